import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from record_on_disk import make_sweep

from sweep.errors import ConfigError
from sweep.files import sha256_of
from sweep.record.best import best_results
from sweep.record.card import card_text, chosen, file_of, without_places, write_publish
from sweep.record.facts import Record, read_record
from sweep.record.use import UseConfig, check_use, copy_chosen
from sweep.trial import TrialResult


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return read_record(make_sweep(tmp_path / "results", num_trials=3, real_configs=True))


def test_the_publish_folder_holds_what_a_hub_page_needs(record: Record) -> None:
    folder = write_publish(record)
    best = chosen(record)
    assert folder is not None and best is not None and best.answer is not None
    name = best.answer.file.removesuffix(".safetensors")
    assert {path.name for path in folder.iterdir()} == {
        f"{name}.safetensors", "README.md", "samples.png", "experiment.yaml"}
    assert sha256_of(folder / best.answer.file) == sha256_of(file_of(record, best))
    card = (folder / "README.md").read_text()
    assert f"`python evaluate.py lora={name}.safetensors base_model=pocket` draws and scores it" in card
    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] == "apache-2.0" and front["instance_prompt"] == "alexq man"
    assert f"alexq man <lora:{name}:0.8>" in card and "Recommended strength: 0.8" in card
    assert "| bleed | 0.34 (0.16 to 0.53) |" in card
    assert re.search(r"\| likeness \| 0\.\d\d \(0\.\d\d to 0\.\d\d\) \|", card)
    assert f"network_dim = {best.trial.config['network_dim']}" in card
    assert "base_model" not in front and "sd-scripts can't" in card, "no other program has the pocket base"
    assert "`python train.py experiment=experiment`" in card and "Drawn with dpmpp_2m_karras, num_steps 20" in card


def with_base(result: TrialResult, path: str, photos: str) -> TrialResult:
    config = {**result.trial.config, "dataset": {**result.trial.config["dataset"], "dir": photos},
              "base_model": {"name": "sd15", "path": path, "resolution": 512, "vae": None}}
    return replace(result, trial=replace(result.trial, config=config))


@pytest.mark.parametrize(("path", "hub_id", "must_be_told"), [
    ("/bases/stable-diffusion-v1-5", "stable-diffusion-v1-5/stable-diffusion-v1-5", True),
    ("/cache/models--me--own-base/snapshots/12ab", "me/own-base", True),
    ("me/own-base", "me/own-base", False), ("/bases/mine.safetensors", None, True)])
def test_another_machine_is_told_what_to_set(path: str, hub_id: str | None, must_be_told: bool, record: Record,
                                             tmp_path: Path) -> None:
    record = replace(record, results=tuple(with_base(r, path, str(tmp_path)) for r in record.results))
    assert record.entry.base_model == "pocket", "a sweep may vary its base: the trial's counts"
    folder, best = write_publish(record), chosen(record)
    assert folder is not None and best is not None and best.answer is not None
    name, card = best.answer.file.removesuffix(".safetensors"), (folder / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front.get("base_model") == hub_id and front["license"] == "creativeml-openrail-m"
    assert "OpenRAIL-M: its restrictions of use" in card
    assert f"accelerate launch train_network.py --config_file {name}.toml" in card
    assert (folder / f"{name}.toml").exists() and "models/loras" in card
    assert ("`train_data_dir` and `pretrained_model_name_or_path`" in card
            or "`pretrained_model_name_or_path` and `train_data_dir`" in card) == must_be_told
    assert ("base_model.path=YOURS" in card) == must_be_told and "dataset.dir=YOURS" in card
    assert "/bases" not in card and str(tmp_path) not in card


def test_a_tie_says_so_and_names_nothing_that_is_not_there(record: Record) -> None:
    assert best_results(record.results)[1], "the drawn trials tie"
    folder = write_publish(record)
    assert folder is not None
    card = (folder / "README.md").read_text()
    assert "the most promising of" in card and "can't be told apart" in card
    assert set(re.findall(r"[\w-]+\.safetensors", card)) <= {path.name for path in folder.iterdir()}
    assert str(record.results_dir) not in card and "trials/" not in card


def test_what_scoring_noted_stands_in_sentences(record: Record) -> None:
    best = chosen(record)
    assert best is not None and best.answer is not None
    score = replace(best.answer.score, notes=("dropped the hair probes: green", "leak not measured: too few photos"))
    noted = replace(best, answer=replace(best.answer, score=score))
    assert "Dropped the hair probes: green. Leak not measured: too few photos.\n" in card_text(record, noted,
                                                                                              has_samples=True)


def test_written_again_it_holds_the_same_and_nothing_stale(record: Record) -> None:
    folder = write_publish(record)
    assert folder is not None
    before = {path.name: sha256_of(path) for path in folder.iterdir()}
    best = chosen(record)
    earlier = next(r.answer.file for r in record.results if r.answer is not None and r is not best)
    (folder / earlier).write_text("of an earlier answer")
    (folder / "mine.txt").write_text("a user's own")
    write_publish(record)
    assert {path.name: sha256_of(path) for path in folder.iterdir() if path.name != "mine.txt"} == before
    assert (folder / "mine.txt").exists()


def test_no_folder_of_this_machine_is_published(tmp_path: Path) -> None:
    config = {"dataset": {"dir": str(tmp_path), "caption_prefix": "/x"}, "seed": 1,
              "base_model": {"path": "runwayml/stable-diffusion-v1-5"}}
    assert without_places(config) == {"dataset": {"dir": tmp_path.name, "caption_prefix": "/x"}, "seed": 1,
                                      "base_model": {"path": "runwayml/stable-diffusion-v1-5"}}


def test_without_a_file_nothing_is_published(tmp_path: Path) -> None:
    record = read_record(make_sweep(tmp_path / "results", num_trials=1))
    best = chosen(record)
    assert best is not None
    file_of(record, best).unlink()
    assert write_publish(read_record(record.dir)) is None


def test_the_chosen_file_is_put_where_the_program_looks(record: Record, tmp_path: Path) -> None:
    loras = tmp_path / "Lora"
    loras.mkdir()
    place = copy_chosen(UseConfig(copy_to=str(loras)), record)
    assert place is not None and place.parent == loras
    details = json.loads(place.with_suffix(".json").read_text())
    assert details["activation text"] == "alexq man" and details["preferred weight"] == 0.8
    assert "the most promising of" in details["notes"], "a tie is no winner, there either"
    assert place.with_suffix(".png").exists()
    place.with_suffix(".json").write_text("edited")
    copy_chosen(UseConfig(copy_to=str(loras)), record)
    assert place.with_suffix(".json").read_text() == "edited"


def test_another_file_of_that_name_is_not_replaced(record: Record, tmp_path: Path) -> None:
    best = chosen(record)
    assert best is not None and best.answer is not None
    (tmp_path / best.answer.file).write_text("somebody else's")
    with pytest.raises(ConfigError, match="another file of the same name"):
        copy_chosen(UseConfig(copy_to=str(tmp_path)), record)
    assert copy_chosen(UseConfig(copy_to=None), record) is None


def test_a_folder_that_is_not_there_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no folder.*models/Lora"):
        check_use(UseConfig(copy_to=str(tmp_path / "lroa")))
    check_use(UseConfig(copy_to=None))
