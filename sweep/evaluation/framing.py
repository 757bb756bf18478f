"""Likeness by framing: is the subject itself from close up, and from far away? Pure.

Shapes: P prompts of the stage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sweep.comparison import CONFIDENCE, MIN_UNITS, Interval, jackknife_interval
from sweep.evaluation.intervals import widened
from sweep.evaluation.likeness import ceiling_error, likeness
from sweep.evaluation.paired import WORTH_SAYING
from sweep.evaluation.settings import ScoringConfig
from sweep.evaluation.table import Floats, Table, mean_of
from sweep.framings import FRAMINGS, framing_key


@dataclass(frozen=True, slots=True)
class Framed:
    """Likeness on the prompts of one framing, and how it differs from that on the other framed ones."""

    framing: str
    value: float
    interval: Interval
    elsewhere: float
    gap: Interval  # value - elsewhere, at a confidence that holds for all framings at once

    def details(self) -> dict[str, float | None]:
        name = framing_key(self.framing)
        return {name: self.value, f"{name}_low": self.interval.low, f"{name}_high": self.interval.high}


def by_framing(table: Table, scoring: ScoringConfig, ceiling_faces: Sequence[float]) -> list[Framed]:
    """The framings that the stage's prompts have, the nearest first; none if there is but one."""
    ceiling = mean_of(ceiling_faces)
    framing_of = [scoring.prompts[p].framing for p in table.prompts]
    shown = [framing for framing in FRAMINGS if framing in framing_of]
    if len(shown) < 2 or math.isnan(ceiling):
        return []
    confidence = 1 - (1 - CONFIDENCE) / len(shown)  # Bonferroni
    framed = []
    for framing in shown:
        here = np.array([i for i, name in enumerate(framing_of) if name == framing])
        there = np.array([i for i, name in enumerate(framing_of) if name not in (framing, None)])
        if np.isnan(table.every_base_P[[*here, *there]]).any():
            return []  # the base draws no face at all
        value, replicates = _likeness(table.every_gen_P[here], table.every_base_P[here], ceiling)
        rest, others = _likeness(table.every_gen_P[there], table.every_base_P[there], ceiling)
        gap = _difference(value, jackknife_interval(value, replicates, confidence),
                          rest, jackknife_interval(rest, others, confidence))
        error = ceiling_error(value, float(table.every_base_P[here].mean()), ceiling_faces)
        interval = widened(jackknife_interval(value, replicates), error)
        framed.append(Framed(framing, value, interval, rest, gap))
    return framed


def framing_notes(framed: Sequence[Framed]) -> list[str]:
    """Where the subject is surely less like itself than elsewhere."""
    return [f"less like the subject in {each.framing} pictures: likeness {each.value:.2f} ({each.interval.low:.2f} to "
            f"{each.interval.high:.2f}), elsewhere {each.elsewhere:.2f}" for each in framed
            if each.gap.high is not None and each.gap.high < 0 and each.value < each.elsewhere - WORTH_SAYING]


def _likeness(gen_P: Floats, base_P: Floats, ceiling: float) -> tuple[float, list[float]]:
    """The value, and the value without each prompt."""
    left_out = [likeness(np.delete(gen_P, i), np.delete(base_P, i), ceiling) for i in range(len(gen_P))
                if len(gen_P) >= MIN_UNITS]
    return likeness(gen_P, base_P, ceiling), left_out


def _difference(a: float, one: Interval, b: float, other: Interval) -> Interval:
    """Of two means over different prompts: errors add in squares."""
    if one.high is None or other.high is None:
        return Interval(None, None, min(one.n, other.n), "an interval needs at least 3 prompts on each side")
    margin = math.hypot(one.high - a, other.high - b)
    return Interval(a - b - margin, a - b + margin, min(one.n, other.n))
