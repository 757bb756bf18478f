"""Planted faults are found, each on the photos it was planted on, and a good set of photos is left in peace."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageFilter

from sweep.config import compose
from sweep.data.check.__main__ import main
from sweep.data.check.findings import Finding
from sweep.data.check.headline import headlines
from sweep.data.check.report import check, headline
from sweep.data.check.strength import strength_finding
from sweep.data.folder import read_dataset
from sweep.pocket.subject import write_subject


def findings(root: Path, *overrides: str) -> dict[str, Finding]:
    """By kind, without the mere notes."""
    config = compose([f"dataset.dir={json.dumps(str(root))}", *overrides]).train
    dataset = read_dataset(config.dataset, trigger=config.trigger, class_noun=config.class_noun, repeats=config.repeats,
                           images_per_epoch=config.images_per_epoch)
    return {finding.kind: finding for finding in check(dataset, config) if finding.level != "note"}


def recaption(folder: Path, old: str, new: str) -> None:
    for path in folder.glob("*.txt"):
        path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize("identity", [31, 3, 20])
def test_no_false_alarm_on_good_photos(identity: int, tmp_path: Path) -> None:
    write_subject(identity, tmp_path, num_photos=25)
    assert findings(tmp_path / "train", "repeats=15") == {}


def test_all_planted_faults_are_found_and_nothing_else(subject: Path, tmp_path: Path) -> None:
    photo = Image.open(subject / "004.png").convert("RGB")
    photo.crop((1, 1, 63, 63)).resize((64, 64)).save(subject / "009.png")  # a second shot of the same moment
    stranger = write_subject(7, tmp_path / "stranger", num_photos=3)
    (subject / "013.png").write_bytes((stranger / "003.png").read_bytes())
    Image.open(subject / "017.png").convert("RGB").filter(ImageFilter.GaussianBlur(2)).save(subject / "017.png")
    (subject / "021.txt").unlink()
    recaption(subject, "alexq man wearing", "alexq man with black hair wearing")
    recaption(subject, "alexq", "woman")
    subject.rename(subject.parent / "15_woman man")
    found = findings(subject.parent)
    assert {kind: finding.photos for kind, finding in found.items()} == {
        "near_duplicates": ("004.png", "009.png"), "stranger": ("013.png",), "blurred": ("017.png",),
        "missing_captions": ("021.png",), "constant_trait": (), "common_trigger": ()}
    assert all(finding.level == "problem" and finding.advice is not None for finding in found.values())
    assert '"black hair"' in found["constant_trait"].text
    assert "'womanq'" in found["common_trigger"].text


def test_a_copy_is_found_mirrored_recompressed_or_brighter(subject: Path) -> None:
    photo = Image.open(subject / "001.png").convert("RGB")
    mirrored = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    mirrored.point(lambda value: min(255, value * 1.1)).save(subject / "002.png")
    photo.save(subject / "003.jpg", quality=70)
    (subject / "003.png").unlink()
    assert findings(subject.parent, "repeats=15")["near_duplicates"].photos == ("001.png", "002.png", "003.jpg")


def test_light_size_and_shape(subject: Path) -> None:
    photo = Image.open(subject / "001.png").convert("RGB")
    photo.point(lambda value: value // 6).save(subject / "001.png")
    photo.resize((40, 40)).save(subject / "002.png")
    wide = Image.new("RGB", (192, 64))
    wide.paste(Image.open(subject / "003.png").convert("RGB").resize((192, 64)))
    wide.save(subject / "003.png")
    found = findings(subject.parent, "repeats=15")
    assert found["exposure"].photos == ("001.png",) and "too dark" in found["exposure"].text
    assert found["low_resolution"].photos == ("002.png",) and "40x40" in found["low_resolution"].text
    assert found["cropped"].photos == ("003.png",)


def test_one_place_and_one_light(subject: Path) -> None:
    for path in subject.glob("*.png"):  # the same frame around each of them
        photo = Image.open(path).convert("RGB")
        framed = Image.new("RGB", (64, 64), (90, 140, 60))
        framed.paste(photo.crop((14, 14, 50, 64)), (14, 14))
        framed.save(path)
    assert "same_background" in findings(subject.parent, "repeats=15")


def test_no_face_and_other_people(subject: Path, tmp_path: Path) -> None:
    Image.effect_noise((64, 64), 60).convert("RGB").save(subject / "001.png")
    assert findings(subject.parent, "repeats=15")["no_face"].photos == ("001.png",)
    crowd = tmp_path / "crowd" / "15_alexq man"
    crowd.mkdir(parents=True)
    for identity in range(6):
        source = write_subject(identity, tmp_path / str(identity), num_photos=1)
        (crowd / f"{identity}.png").write_bytes((source / "001.png").read_bytes())
    assert "mixed_faces" in findings(crowd.parent)


def test_few_photos_and_the_arithmetic(subject: Path) -> None:
    for number in range(5, 26):
        (subject / f"{number:03d}.png").unlink()
    found = findings(subject.parent, "max_train_epochs=24", "network_alpha=1", "network_dim=128")
    assert found["few_photos"].level == "problem"
    assert "960 steps (4 photos x 10 repeats x 24 epochs)" in found["steps"].text
    assert "repeats=18 makes about 1,750" in found["steps"].text
    assert "24 epochs" in found["epochs"].text and "fewer repeats (10) than epochs (24)" in found["repeats"].text
    assert "alpha / dim = 1 / 128" in found["weak_rate"].text
    assert "it may burn" in findings(subject.parent, "unet_lr=2e-3")["strong_rate"].text
    assert "rate" not in " ".join(findings(subject.parent, "optimizer=prodigy"))


def test_the_headline_looks_at_no_pixel_and_repeats_what_matters(subject: Path) -> None:
    (subject / "021.txt").unlink()
    config = compose([f"dataset.dir={json.dumps(str(subject.parent))}"]).train
    dataset = read_dataset(config.dataset, trigger=None, class_noun=None, repeats=None)
    for path in subject.glob("*.png"):
        path.unlink()
    assert [finding.kind for finding in headline(dataset, config)] == ["missing_captions"]
    quick = replace(config, repeats=2, max_train_epochs=5)
    lines = headlines([(dataset, config, 1250), (dataset, config, 1250), (dataset, quick, 250)])
    assert lines[0].startswith("! 1 of 25 photos have no caption") and lines[1].startswith("- 1,250 steps")
    assert lines[1].endswith("(1 more like this among the trials)") and "python -m sweep.data.check" in lines[-1]
    assert headlines([(dataset, config, 1800)])[:-1] == lines[:1]


def test_the_report_names_photos_source_and_certainty(subject: Path, capsys) -> None:
    (subject / "021.txt").unlink()
    assert main([str(subject.parent), "repeats=15"]) == 0
    text = capsys.readouterr().out
    assert "25 photos of alexq (man): 1 to mend (!), 0 worth a look (-)" in text
    assert "! 1 of 25 photos have no caption" in text and "      021.png\n" in text
    assert "measured here on the pocket base" in text and "al + ex + q" in text
    assert main(["--json", str(subject.parent), "repeats=15"]) == 0
    assert json.loads(capsys.readouterr().out)["findings"][0]["kind"] == "missing_captions"


def test_the_base_is_asked_what_it_draws_for_the_trigger(base) -> None:
    assert strength_finding(base, "alexq", "man").level == strength_finding(base, "zwx", "woman").level == "note"
    known = strength_finding(base, "beach", "man")
    assert known.kind == "strong_trigger" and "already draws" in known.text


def test_the_base_is_asked_only_on_demand(subject: Path, capsys) -> None:
    assert main(["--base", str(subject.parent), "repeats=15"]) == 0
    assert "times as much for 'alexq' as for nonsense words: it means nothing yet" in capsys.readouterr().out


def test_what_can_not_be_read_is_said(tmp_path: Path, subject: Path, capsys) -> None:
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "there is no such folder" in capsys.readouterr().err
    (subject / "001.png").write_bytes(b"no image")
    assert main([str(subject.parent)]) == 2
    assert "001.png: not a readable image" in capsys.readouterr().err
    assert main([str(subject.parent), "max_train_epoch=3"]) == 2
    assert "max_train_epoch" in capsys.readouterr().err


def test_epochs_that_are_counted_in_steps(subject: Path) -> None:
    """The character guide's 8 epochs of 1,000 steps: 25 photos x 40 repeats."""
    found = findings(subject.parent, "steps_per_epoch=1000", "max_train_epochs=8", "train_batch_size=2")
    assert set(found) == {"steps"} and "8,000 steps (25 photos x 80 repeats x 8 epochs" in found["steps"].text
