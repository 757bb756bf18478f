"""The study of three methods: what counts as best, and the table that is written."""

from dataclasses import replace
from pathlib import Path

import pytest

from studies.methods import RATES, rows_of, settings, size, write_report
from sweep.combinations import refusal
from sweep.errors import ScoringError
from sweep.files import append_jsonl, read_json
from sweep.methods import METHODS
from sweep.trial import DONE, Trial, TrialResult, trial_folder
from tests.unit.studies.test_choice import answer, score
from tests.unit.test_config import loaded


def result(number: int, method: str, value: float, root: Path, *, num_photos: int = 4) -> TrialResult:
    trial = Trial(number=number, train_id=f"t{number}", settings={}, num_steps=10,
                  config={"method": {"name": method}, "seed": 1, "dataset": {"num_images": num_photos}})
    folder = trial_folder(root, trial.train_id)
    folder.checkpoints.mkdir(parents=True)
    (folder.checkpoints / "a").write_bytes(b"x" * 4000)
    for kind, spent_s in (("train", 6), ("train", 12), ("checkpoint", 12), ("score", 60), ("train", 66), ("train", 72)):
        append_jsonl(folder.metrics, {"kind": kind, "attributed_s": spent_s})
    mine = replace(score("a", 1.0, value, stage="confirm"), elapsed_s=30.0)
    return TrialResult(trial=trial, status=DONE, step=10, attributed_s=90.0,
                       answer=replace(answer("a", 1.0), score=mine), scores=(mine,))


@pytest.mark.parametrize("method", METHODS)
def test_what_a_method_trains_can_be_trained(method: str) -> None:
    config = loaded(*settings(method, 100, 4)).train
    assert refusal(config) == "" and (config.unet_lr, config.text_encoder_lr) == RATES[method]
    assert config.save_every_n_steps == 25


def test_the_table_says_size_minutes_and_who_is_best(tmp_path) -> None:
    rows = rows_of([result(1, "textual_inversion", 0.4, tmp_path), result(2, "lora", 0.7, tmp_path),
                    result(3, "dreambooth", 0.7, tmp_path), result(4, "lora", 0.2, tmp_path, num_photos=20)], tmp_path)
    assert [(row.num_photos, row.method, row.is_best) for row in rows] == [
        (4, "lora", True), (4, "dreambooth", True), (4, "textual_inversion", False), (20, "lora", True)]
    assert all(row.training_minutes == pytest.approx(1.0) and row.file_bytes == 4000 for row in rows)
    write_report(rows, tmp_path / "out", {"command": "python -m studies.methods", "date": "d", "hardware": "h",
                                          "commit": "c", "rates": RATES})
    text = (tmp_path / "out" / "README.md").read_text()
    assert "| **LoRA** | 4 | 20-50 | 0 | 4.0 kB | 1.0 | step 1, strength 1 |" in text
    assert "| textual inversion | 4 | 3-5, ideally 20-30 | 0 | 4.0 kB | 1.0 | step 1 |" in text
    assert len(read_json(tmp_path / "out" / "figures.json")["rows"]) == 4


def test_a_trial_without_an_answer_is_named(tmp_path) -> None:
    failed = replace(result(1, "lora", 0.4, tmp_path), answer=None, status="failed", reason="it broke")
    with pytest.raises(ScoringError, match=r"t1 \(lora\) has no answer: failed. it broke"):
        rows_of([failed], tmp_path)


def test_sizes_are_in_the_usual_units() -> None:
    assert [size(n) for n in (4056, 14_124_430, 2_130_000_000)] == ["4.1 kB", "14.1 MB", "2.1 GB"]
