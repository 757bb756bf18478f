"""A trial's metrics.jsonl is shared by all sweeps that it is part of: each sees the scores of its own scoring alone."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from sweep.evaluation.scorer import ScoreRequest
from sweep.files import append_jsonl, read_jsonl
from sweep.search.outcome import screened_rows
from sweep.trial import AXES, Estimate, Score, TrialFolder, to_json
from sweep.worker.checkpoints import unscored

ONE = Score(score_id="1", scoring_id="mine", file="a.safetensors", file_sha256="", epoch=1, step=10, strength=1.0,
            stage="screen", num_images=4, axes={name: Estimate(value=0.5, low=0.4, high=0.6, raw=0.5, n=4)
                                                for name in AXES},
            details={}, replicates={}, verdict="good", notes=(), elapsed_s=0.0)


def useful(score: Score, value: float) -> Score:
    return replace(score, axes={**score.axes, "usefulness": replace(score.axes["usefulness"], value=value)})


def metrics(folder: TrialFolder) -> list[dict[str, Any]]:
    """Both scored step 10, the other sweep after this one; step 20 has the other's score alone."""
    other = replace(ONE, scoring_id="other", score_id="2")
    for score in (useful(ONE, 0.7), useful(other, 0.1), useful(replace(other, step=20, score_id="3"), 0.2)):
        append_jsonl(folder.metrics, {"kind": "score", "step": score.step, "epoch": 1, "score": to_json(score),
                                      "attributed_s": 1.0})
    return list(read_jsonl(folder.metrics))


def test_pruning_and_the_study_see_scores_of_their_own_scoring(tmp_path: Path) -> None:
    rows = metrics(TrialFolder(tmp_path))
    assert [(seen.step, seen.usefulness) for seen in screened_rows(rows, "mine")] == [(10, 0.7)]
    assert [(seen.step, seen.usefulness) for seen in screened_rows(rows, "other")] == [(10, 0.1), (20, 0.2)]


def test_a_checkpoint_is_screened_once_per_scoring(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path)
    metrics(folder)
    requests = [ScoreRequest(file=tmp_path / f"{step}.safetensors", epoch=1, step=step, scores_dir=folder.scores,
                             images_dir=folder.images) for step in (10, 20, 30)]
    run = cast(Any, SimpleNamespace(folder=folder, requests=requests))
    assert [request.step for request in unscored(run, "mine")] == [20, 30]
    assert [request.step for request in unscored(run, "other")] == [30]
    assert [request.step for request in unscored(run, "a third")] == [10, 20, 30]
