"""Likeness of images beside the base's on the same cells, and how it changes from one drawing of them to another. Pure.

A unit is what varies at random: a prompt, or a picture that is inpainted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sweep.comparison import Interval, jackknife_interval
from sweep.evaluation.intervals import widened
from sweep.evaluation.likeness import ceiling_error, likeness
from sweep.evaluation.measure import Measured
from sweep.evaluation.table import mean_of
from sweep.trial import Estimate

Key = tuple[str, int, int]
WORTH_SAYING = 0.1  # of likeness


@dataclass(frozen=True, slots=True)
class FaceUnit:
    """Mean raw likeness of a unit's images, and of the base's."""

    gen: float
    base: float


def face_units(images: Sequence[Measured], base: Mapping[Key, Measured]) -> dict[int, FaceUnit]:
    """By the images' index; what is broken on either side is left out. No face counts as the floor, the base's face on
    the same cell, or what its others have on average; empty if the base has no face at all."""
    whole = [m for m in images if not m.is_broken and m.key in base and not base[m.key].is_broken]
    floor = mean_of([face for m in whole if (face := base[m.key].face) is not None])
    if math.isnan(floor):
        return {}
    rows: dict[int, list[tuple[float, float]]] = {}
    for m in whole:
        face = base[m.key].face
        under = floor if face is None else face
        rows.setdefault(m.index, []).append((under if m.face is None else m.face, under))
    return {index: FaceUnit(*(sum(column) / len(pairs) for column in zip(*pairs, strict=True)))
            for index, pairs in rows.items()}


def likeness_of(units: Mapping[int, FaceUnit], ceiling_faces: Sequence[float], problem: str = "") -> Estimate:
    """Normalised, with its interval over the units and the ceiling's photos. problem: why likeness can't be measured at
    all, if it can't."""
    ceiling = mean_of(ceiling_faces)
    raw = mean_of([unit.gen for unit in units.values()])
    if problem or not units or math.isnan(ceiling):
        return Estimate(value=None, low=None, high=None, raw=None if math.isnan(raw) else raw, n=len(units),
                        reason=problem or "the base model draws no face there")
    value, left_out = _likeness(units, sorted(units), ceiling)
    floor = mean_of([unit.base for unit in units.values()])
    interval = widened(jackknife_interval(value, left_out), ceiling_error(value, floor, ceiling_faces))
    return Estimate(value=value, low=interval.low, high=interval.high, raw=raw, n=len(units), reason=interval.reason)


def change_of(before: Mapping[int, FaceUnit], after: Mapping[int, FaceUnit],
              ceiling: float) -> tuple[float | None, Interval]:
    """Normalised likeness after less before, with its interval, paired by the units that both have."""
    shared = sorted(set(before) & set(after))
    if not shared or math.isnan(ceiling):
        return None, Interval(None, None, 0, "no whole images with a base to compare with")
    (old, olds), (new, news) = (_likeness(units, shared, ceiling) for units in (before, after))
    return new - old, jackknife_interval(new - old, [b - a for a, b in zip(olds, news, strict=True)])


def _likeness(units: Mapping[int, FaceUnit], indices: Sequence[int], ceiling: float) -> tuple[float, list[float]]:
    """The value, and the value without each unit."""
    gen, base = (np.array([getattr(units[i], side) for i in indices]) for side in ("gen", "base"))
    left_out = [likeness(np.delete(gen, i), np.delete(base, i), ceiling) for i in range(len(indices))
                if len(indices) > 1]
    return likeness(gen, base, ceiling), left_out


def told(estimate: Estimate) -> str:
    """"0.71 (0.62 to 0.80)"."""
    if estimate.value is None:
        return "unknown"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.2f}"
    return f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"


def told_change(change: float | None, interval: Interval) -> str:
    """In figures, and whether it matters: surely less, surely not, or neither can be said."""
    if change is None or interval.low is None or interval.high is None:
        return "how it changes can't be known"
    if interval.high < 0 and change <= -WORTH_SAYING:
        words = "less like the subject"
    elif interval.low > 0 and change >= WORTH_SAYING:
        words = "more like the subject"
    else:
        words = "as like the subject" if interval.low > -WORTH_SAYING else "unsure on so few images"
    return f"{words} ({change:+.2f}, {interval.low:+.2f} to {interval.high:+.2f})"
