"""What becomes of a pack when some of its trials can't be scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sweep.evaluation.scorer import ScoreRequest
from sweep.files import read_jsonl
from sweep.stopping import Stopped
from sweep.trial import DONE, FAILED, RUNNING, Score, Status, Trial, trial_folder
from sweep.worker.pack_scores import PackScores
from sweep.worker.trial_run import TrialRun


class Scorer:
    """Scores nothing; raises what it is given."""

    scoring_id = "s"
    notes = ("no face was found in 2 of 14 photos",)

    def __init__(self, error: Exception | None = None):
        self.error = error

    def screen(self, requests: Sequence[ScoreRequest], on_progress: Any) -> list[Score]:
        if self.error is not None:
            raise self.error
        return [Score(score_id=f"x{request.step}", scoring_id="s", file=request.file.name, file_sha256="",
                      epoch=request.epoch, step=request.step, strength=1.0, stage="screen", num_images=1, axes={},
                      details={}, replicates={}, verdict="good", notes=(), elapsed_s=0.0) for request in requests]

    def finish(self, trial_requests: Sequence[Sequence[ScoreRequest]], on_progress: Any) -> None:
        if self.error is not None:
            raise self.error


@pytest.fixture
def runs(tmp_path: Path) -> list[TrialRun]:
    """Two trials with a checkpoint each; their photos are others."""
    made = []
    for number in (1, 2):
        trial = Trial(number=number, train_id=f"t{number}", settings={}, config={}, num_steps=4)
        folder = trial_folder(tmp_path, trial.train_id)
        folder.root.mkdir(parents=True)
        request = ScoreRequest(file=folder.checkpoints / "a.safetensors", epoch=1, step=2, scores_dir=folder.scores,
                               images_dir=folder.images)
        made.append(TrialRun(
            trial=trial, config=cast(Any, None), dataset=cast(Any, None), folder=folder, lock=cast(Any, None),
            requests=[request], status=Status(status=RUNNING, phase="training", step=2, num_steps=4, is_trained=False,
                                              attributed_s=0.0)))
    return made


def scores_of(scorers: dict[str, Scorer | Exception]) -> PackScores:
    """scorers: by train id; an exception is what making one raises."""
    def scorer_of(run: TrialRun) -> Any:
        found = scorers[run.trial.train_id]
        if isinstance(found, Exception):
            raise found
        return found

    trials = SimpleNamespace(stop_if_asked=None, release=lambda run: None)
    return PackScores(cast(Any, trials), scorer_of)


@pytest.mark.parametrize("broken", [Scorer(MemoryError("CUDA out of memory.")), OSError("no such photo")],
                         ids=["while scoring", "while the scorer is made"])
def test_an_error_of_scoring_leaves_the_other_trials_and_the_training_alone(
        runs: list[TrialRun], broken: Scorer | Exception) -> None:
    one, other = runs
    scores = scores_of({"t1": broken, "t2": Scorer()})
    scores.screen(runs)
    assert [run.status.status for run in runs] == [RUNNING] * 2, "training goes on"
    assert not one.folder.metrics.exists() and "could not be scored" in one.folder.log.read_text()
    assert [row["kind"] for row in read_jsonl(other.folder.metrics)] == ["score"]
    scores.finish(runs)
    assert [run.status.status for run in runs] == [FAILED, DONE]
    assert "out of memory" in one.status.reason or "no such photo" in one.status.reason


def test_what_could_not_be_scored_is_scored_at_the_end(runs: list[TrialRun]) -> None:
    scorer = Scorer(OSError("the disk is away"))
    scores = scores_of({"t1": scorer, "t2": scorer})
    scores.screen(runs)
    scorer.error = None
    scores.finish(runs)
    assert [run.status.status for run in runs] == [DONE] * 2
    assert all([row["step"] for row in read_jsonl(run.folder.metrics)] == [2] for run in runs)


def test_what_is_wrong_with_the_photos_is_said_once_in_each_trials_log(runs: list[TrialRun]) -> None:
    scorer = Scorer()
    scores = scores_of({"t1": scorer, "t2": scorer})
    scores.screen(runs)
    later = [replace(run.requests[0], step=4) for run in runs]
    for run, request in zip(runs, later, strict=True):
        run.requests.append(request)
    scores.finish(runs)
    assert [run.folder.log.read_text().count("no face was found in 2 of 14 photos") for run in runs] == [1, 1]


def test_a_stop_while_scoring_is_no_error(runs: list[TrialRun]) -> None:
    with pytest.raises(Stopped):
        scores_of({"t1": Scorer(Stopped()), "t2": Scorer()}).screen(runs)
