"""trials.csv: one row per trial, also of those that failed."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sweep.files import write_text
from sweep.record.asked import brought, settings_of
from sweep.record.best import choices_of
from sweep.record.entry import SweepEntry
from sweep.record.figures import BLEED, figure_of
from sweep.trial import AXES, TrialResult


def columns(swept_keys: Sequence[str], along: Sequence[str] = ()) -> list[str]:
    """The header: each figure with its 90 % interval in two more columns; choice is "best", "tie" or empty. along: the
    settings that differ with those that are swept.

    Whoever reads the table by position finds what was there before in its place: what is new comes last.
    """
    axes, bleed = ([name + suffix for name in names for suffix in ("", "_low", "_high")] for names in (AXES, (BLEED,)))
    return ["number", "identity", "status", *swept_keys, "steps", *axes, "verdict", "file", "strength",
            "attributed_minutes", "reason", "choice", "guidance_scale", *bleed, *along]


def write_csv(path: Path, entry: SweepEntry, results: Sequence[TrialResult]) -> None:
    """Write the table atomically. Cells that can't be known are empty; lists are JSON.

    The figures are those of each trial's answer: the file, strength and guidance to use (empty = the sampler's).
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    along = brought(entry, results)
    writer.writerow(columns(entry.swept_keys, along))
    for result, choice, settings in zip(results, choices_of(results), settings_of(entry, results), strict=True):
        writer.writerow(_row(result, [settings[key] for key in entry.swept_keys], choice,
                             [settings.get(key) for key in along]))
    write_text(path, text.getvalue())


def _row(result: TrialResult, swept: Sequence[Any], choice: str, along: Sequence[Any]) -> list[str]:
    answer = result.answer
    cells = [
        result.trial.number, result.trial.train_id, result.status, *swept, result.step,
        *(figure for name in AXES for figure in _figure(result, name)),
        answer.score.verdict if answer else None,
        answer.file if answer else None,
        answer.strength if answer else None,
        round(result.attributed_s / 60, 3),
        _reason(result), choice, answer.guidance_scale if answer else None, *_figure(result, BLEED), *along,
    ]
    return [_cell(value) for value in cells]


def _figure(result: TrialResult, name: str) -> list[float | None]:
    known = figure_of(result.answer.score, name) if result.answer else None
    return [known.value, known.low, known.high] if known else [None, None, None]


def _reason(result: TrialResult) -> str:
    if result.reason:
        return result.reason
    if result.answer is None:
        return ""
    unknown = [f"{name}: {axis.reason}" for name, axis in result.answer.score.axes.items() if not axis.is_valid]
    return " ".join([result.answer.reason, *unknown]).strip()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple, dict)):
        return json.dumps(value)
    return " ".join(str(value).split())
