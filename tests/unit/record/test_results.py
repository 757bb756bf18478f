"""What is read back from a trial's folder."""

from dataclasses import replace
from pathlib import Path

import pytest
import record_examples as examples

from sweep.files import append_jsonl, sha256_of, write_json
from sweep.record.facts import read_trials
from sweep.record.results import is_complete, read_result, read_status
from sweep.trial import DIVERGED, PRUNED, WAITING, Status, to_json, trial_folder


def test_an_arm_that_was_refined_in_two_rounds_has_one_score(tmp_path: Path) -> None:
    """The first round draws the screening prompts alone; its score stays in the folder as a part of the cache."""
    trial = examples.trial(1, network_dim=8)
    folder = trial_folder(tmp_path, trial.train_id)
    folder.checkpoints.mkdir(parents=True)
    path = folder.checkpoints / "a.safetensors"
    path.write_bytes(b"a")
    whole = replace(examples.score((0.5, 0.4, 0.6), stage="refine"), file=path.name, file_sha256=sha256_of(path),
                    strength=0.8, num_images=16, scoring_id="s1")
    dropped = replace(whole, strength=0.6, num_images=8)
    for name, score in (("a", whole), ("b", replace(whole, num_images=8)), ("c", dropped)):
        write_json(folder.scores / f"{name}.json", to_json(replace(score, score_id=name)))
    scores = read_result(tmp_path, trial, "s1").scores
    assert [(score.strength, score.num_images) for score in scores] == [(0.6, 8), (0.8, 16)]
    assert [score.elapsed_s for score in scores] == [1.0, 2.0], "what both rounds cost"


def test_equal_parts_of_trials_are_held_once_and_keep_their_kind(tmp_path: Path) -> None:
    for number, rate in enumerate((1, 1.0, True), start=1):
        append_jsonl(tmp_path / "trials.jsonl", {
            "number": number, "train_id": f"t{number}", "settings": {}, "num_steps": 4,
            "config": {"unet_lr": rate, "base_model": {"name": "pocket", "resolution": 64}}})
    one, two, three = read_trials(tmp_path / "trials.jsonl").values()
    assert one.config["base_model"] is two.config["base_model"] is three.config["base_model"]
    assert [type(trial.config["unet_lr"]) for trial in (one, two, three)] == [int, float, bool]


@pytest.mark.parametrize("status", [PRUNED, DIVERGED])
def test_a_trial_that_ended_before_its_first_checkpoint_is_complete(tmp_path: Path, status: str) -> None:
    """Nothing can be made of it; asked for again, it would be opened and left each time."""
    trial = examples.trial(1, network_dim=8)
    folder = trial_folder(tmp_path, trial.train_id)
    write_json(folder.status, to_json(Status(status=status, phase="", step=2, num_steps=100, is_trained=True,
                                             attributed_s=1.0)))
    assert is_complete(tmp_path, trial, "s1") and is_complete(tmp_path, trial, None)
    folder.checkpoints.mkdir()
    (folder.checkpoints / "a.safetensors").write_bytes(b"a")
    assert not is_complete(tmp_path, trial, "s1"), "what it had saved is to be scored"
    assert is_complete(tmp_path, trial, "s1", counts_pruned=False) is False


@pytest.mark.parametrize("content", [b"", b"\0" * 200, b'{"status": "do', b"null", b"{}", b"\xff\xfe"])
def test_a_damaged_status_counts_as_none_and_is_named(tmp_path: Path, content: bytes) -> None:
    trial = examples.trial(1, network_dim=8)
    path = trial_folder(tmp_path, trial.train_id).status
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    status = read_status(tmp_path, trial)
    assert status.status == WAITING and f"{path} can't be read (" in status.reason
    assert not is_complete(tmp_path, trial, None)
