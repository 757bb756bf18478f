"""The report's data and its file, without a browser; tests/browser drives the page itself."""

import json
import re
from pathlib import Path

import pytest
from record_on_disk import HOSTILE, HOSTILE_IMAGE, make_sweep

from sweep.errors import ConfigError
from sweep.record.curves import MAX_POINTS, read_curves
from sweep.record.facts import find_sweep, read_record
from sweep.record.pictures import read_strip
from sweep.record.report import report_html, script_json
from sweep.record.report_data import report_data
from sweep.record.views import write_views
from sweep.trial import trial_folder


@pytest.fixture(scope="module")
def sweep_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sweep(tmp_path_factory.mktemp("report") / "results", num_trials=9)


def test_all_views_are_written_from_the_folder_alone(sweep_dir: Path) -> None:
    record = write_views(sweep_dir)
    assert len(record.results) == 9
    assert {"diary.md", "report.html", "trials.csv"} <= {path.name for path in sweep_dir.iterdir()}
    assert (sweep_dir.parent / "DIARY.md").exists()


def test_nothing_from_outside_reaches_the_page_as_markup(sweep_dir: Path) -> None:
    page = report_html(report_data(read_record(sweep_dir)))
    assert HOSTILE not in page and HOSTILE_IMAGE not in page
    assert HOSTILE in json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])["note"]  # type: ignore[index]


def test_the_page_asks_the_network_for_nothing(sweep_dir: Path) -> None:
    page = report_html(report_data(read_record(sweep_dir)))
    assert "default-src 'none'" in page and "connect-src 'none'" in page
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=[\"']?(http|//)", page.split('id="data"')[0])


def test_json_in_a_script_cannot_end_it() -> None:
    assert "<" not in script_json({"a": "</script><!--"})
    assert json.loads(script_json({"a": "</script>"})) == {"a": "</script>"}


def test_every_trial_is_a_row_with_its_words(sweep_dir: Path) -> None:
    tree = report_data(read_record(sweep_dir)).tree
    assert [trial["number"] for trial in tree["trials"]] == list(range(1, 10))
    assert tree["trials"][8]["status"] == "diverged" and HOSTILE in tree["trials"][8]["words"]
    assert tree["trials"][0]["axes"]["usefulness"][0] is not None
    assert "bleed" in tree["axes"] and tree["trials"][0]["axes"]["bleed"] == [0.34, 0.16, 0.53]
    assert next(score for score in tree["scores"] if score["stage"] == "screen")["axes"]["bleed"] == [None] * 3
    assert tree["answer"]["choices"][0]["paste"].startswith("alexq man <lora:alexq-")


def test_images_of_every_stage_come_with_their_prompts(sweep_dir: Path) -> None:
    data = report_data(read_record(sweep_dir))
    stages = {score["stage"] for score in data.tree["scores"] if score.get("picture") in data.pictures}
    assert stages == {"screen", "refine", "confirm"}
    first = next(score for score in data.tree["scores"] if score["stage"] == "screen")
    assert "prompt 0" in data.tree["cells"][first["cells"][0]]["text"]


def test_each_image_has_its_own_scores(sweep_dir: Path) -> None:
    data = report_data(read_record(sweep_dir))
    for score in (score for score in data.tree["scores"] if score["trial"] == 3):
        assert score["images"] == [f"likeness 0.{p}3, hair red 0.9{p}" for p in range(len(score["cells"]))]


def test_images_of_another_guidance_are_told_apart_from_the_samplers_own(tmp_path: Path) -> None:
    sweep_dir = make_sweep(tmp_path / "results", num_trials=1, guidance_scales=(3.0,))
    tree = report_data(read_record(sweep_dir)).tree
    refined = [(score["strength"], score["guidance"]) for score in tree["scores"] if score["stage"] == "refine"]
    assert sorted(refined) == [(0.6, 7.0), (0.8, 3.0), (0.8, 7.0)]
    assert {score["guidance"] for score in tree["scores"] if score["stage"] == "screen"} == {7.0}
    assert tree["trials"][0]["guidance"] == 7.0


def test_a_budget_leaves_pictures_out_and_says_so(sweep_dir: Path) -> None:
    whole, small = (report_data(read_record(sweep_dir), picture_budget=n) for n in (10**9, 9_000))
    assert 0 < len(small.pictures) < len(whole.pictures)
    assert small.tree["pictures_left_out"] == len(whole.pictures) - len(small.pictures)
    named = small.tree["answer"]["choices"][0]["trial"]
    assert any(score["trial"] == named and "picture" in score for score in small.tree["scores"])


def test_the_copy_report_pairs_images_with_their_nearest_photo(sweep_dir: Path) -> None:
    copies = report_data(read_record(sweep_dir)).tree["copies"]
    distances = [pair["distance"] for pair in copies["pairs"]]
    assert distances == sorted(distances) and len(distances) == 24
    assert copies["num_copies"] > 24 and all(pair["is_copy"] for pair in copies["pairs"])
    assert copies["photos"][copies["pairs"][0]["photo"]]["picture"].startswith("data:image/webp;base64,")
    assert copies["attract"][0]["count"] == max(row["count"] for row in copies["attract"])


def test_a_photo_that_has_gone_is_named_without_a_picture(tmp_path: Path) -> None:
    sweep_dir = make_sweep(tmp_path / "results", num_trials=1)
    for path in (tmp_path / "photos").iterdir():
        path.unlink()
    photos = report_data(read_record(sweep_dir)).tree["copies"]["photos"]
    assert photos and all(photo["picture"] is None and photo["name"] for photo in photos)


def test_a_sheet_that_does_not_say_where_its_images_lie_is_left_alone(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (64, 64)).save(tmp_path / "old.png")
    assert read_strip(tmp_path / "old.png") is None and read_strip(tmp_path / "none.png") is None
    (tmp_path / "cut.png").write_bytes((tmp_path / "old.png").read_bytes()[:40])
    assert read_strip(tmp_path / "cut.png") is None


def test_curves_are_thinned_to_means_and_repeated_steps_count_once(sweep_dir: Path, tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    rows = [{"kind": "train", "step": step, "epoch": 1, "loss": float(step)} for step in [*range(1, 601), 600]]
    metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    loss = read_curves(metrics)["train/loss"]
    assert len(loss["x"]) <= MAX_POINTS and loss["x"][-1] == 600 and loss["y"][0] == 2.5
    curves = read_curves(trial_folder(sweep_dir.parent, f"{1:012x}").metrics)
    assert {"train/used_unet_lr", "validation/loss", "validation/buckets/1", "screen/usefulness"} <= set(curves)


def test_a_sweep_is_found_by_name_or_path(sweep_dir: Path) -> None:
    assert find_sweep("alex", sweep_dir.parent) == find_sweep(str(sweep_dir)) == sweep_dir
    with pytest.raises(ConfigError, match="no sweep 'axel'.*Known there: alex"):
        find_sweep("axel", sweep_dir.parent)
