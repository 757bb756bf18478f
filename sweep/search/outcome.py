"""What a search is told of a trial: its state, its values and its screened checkpoints, as its folder has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sweep.trial import DIVERGED, DONE, PRUNED, Score, TrialResult, score_from_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Screened:
    """A checkpoint as pruning sees it. usefulness: None where it is invalid."""

    step: int
    usefulness: float | None
    replicates: Mapping[str, float]
    margins: tuple[float, float] = (0.0, 0.0)  # as `Score` has them


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A finished trial. state: "complete", "pruned" or "failed"."""

    state: str
    axes: Mapping[str, float | None] = field(default_factory=dict)
    screened: Sequence[Screened] = ()
    reason: str = ""


def screened(score: Score) -> Screened:
    return Screened(step=score.step, usefulness=score.axes["usefulness"].value, replicates=score.replicates,
                    margins=score.margins)


def screened_rows(rows: Sequence[Mapping[str, Any]], scoring_id: str | None = None) -> list[Screened]:
    """Those of a trial's metrics, the newest of each step, oldest first.

    scoring_id: only its scores, as sweeps that score otherwise write into the same metrics; None = all.
    """
    scores = [score_from_json(row["score"]) for row in rows if row["kind"] == "score"]
    newest = {score.step: screened(score) for score in scores if scoring_id in (None, score.scoring_id)}
    return [newest[step] for step in sorted(newest)]


def outcome_of(result: TrialResult, seen: Sequence[Screened] = ()) -> Outcome:
    """A trial that diverged counts as pruned with what it had: a sampler then keeps away from there. One that failed
    says nothing about its settings."""
    axes = {} if result.answer is None else {name: axis.value for name, axis in result.answer.score.axes.items()}
    state = {DONE: "complete", PRUNED: "pruned", DIVERGED: "pruned"}.get(result.status, "failed")
    return Outcome(state=state, axes=axes, screened=tuple(seen), reason=result.reason)
