"""What a row of metrics.jsonl and a trial's end become on a dashboard: flat names with plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sweep.record.figures import FIGURES, figure_of
from sweep.trial import Score, TrialResult, to_json

_MAX_TAG_CHARS = 64  # wandb refuses longer tags


def payload(row: Mapping[str, Any]) -> dict[str, Any]:
    """What one row of metrics.jsonl becomes on the dashboard: "train/loss", "screen/likeness" ..., by `step`."""
    kind = row["kind"]
    shown: dict[str, Any] = {key: row[key] for key in ("step", "epoch") if row.get(key) is not None}
    if kind == "score":
        score = row["score"]
        stage = score["stage"]
        for name, axis in score["axes"].items():
            for suffix, part in (("", "value"), ("_low", "low"), ("_high", "high")):
                if axis[part] is not None:
                    shown[f"{stage}/{name}{suffix}"] = axis[part]
        details = {name: value for name, value in score["details"].items() if value is not None}
        shown |= {f"{stage}/details/{name}": value for name, value in details.items()}
        return shown | {f"{stage}/strength": score["strength"], f"{stage}/verdict": score["verdict"]}
    rest = {k: v for k, v in row.items() if k not in ("kind", "step", "epoch") and v is not None}
    for key, value in rest.items():
        named = value if isinstance(value, Mapping) else {"": value}  # a validation's buckets have names of their own
        shown |= {f"{kind}/{key}/{name}".removesuffix("/"): each for name, each in named.items()}
    return shown


class Speed:
    """Steps per second of the time that a trial was charged for training, from one of its training rows to the next."""

    def __init__(self) -> None:
        self._last: tuple[int, float] | None = None

    def of(self, row: Mapping[str, Any]) -> dict[str, float]:
        """What a row adds to the dashboard; nothing for the first and for other rows."""
        if "attributed_s" not in row:
            return {}
        if row["kind"] != "train":  # what a score or a validation cost is not the next step's
            self._last = self._last and (self._last[0], float(row["attributed_s"]))
            return {}
        before, (step, spent_s) = self._last, (int(row["step"]), float(row["attributed_s"]))
        self._last = step, spent_s
        if before is None or step <= before[0] or spent_s <= before[1]:
            return {}
        return {"train/steps_per_s": (step - before[0]) / (spent_s - before[1])}


def summary_of(result: TrialResult) -> dict[str, Any]:
    """A trial's end as flat values: its answer's axes with intervals, verdict, file and strength, cost, reason (also
    when it is empty, as an earlier try may have left one)."""
    summary: dict[str, Any] = {"number": result.trial.number, "status": result.status, "steps": result.step,
                               "attributed_minutes": result.attributed_s / 60, "reason": result.reason}
    if result.answer is None:
        return summary
    score = result.answer.score
    summary |= {"verdict": score.verdict, "file": result.answer.file, "strength": result.answer.strength}
    for name in FIGURES:
        axis = figure_of(score, name)
        if axis is not None:
            bounds = {name: axis.value, f"{name}_low": axis.low, f"{name}_high": axis.high}
            summary |= {key: value for key, value in bounds.items() if value is not None}
    return summary


def tag_of(result: TrialResult) -> str:
    """The verdict, or the status of a trial without one."""
    return (result.answer.score.verdict if result.answer else result.status)[:_MAX_TAG_CHARS]


def sweep_tag(name: str) -> str:
    """The mark of the trials of a sweep: one trial may belong to several."""
    return f"sweep:{name}"[:_MAX_TAG_CHARS]


def score_row(score: Score) -> dict[str, Any]:
    """A score as a row of metrics.jsonl, which holds those of the screen."""
    return {"kind": "score", "step": score.step, "epoch": score.epoch, "score": to_json(score)}
