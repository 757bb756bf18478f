"""Thresholds of the verdicts fitted to what a person said of the same files. Pure; imports no torch.

Two kinds of judgement: a note that names a verdict agrees where the rules say the same; a pair of images of which one
was preferred agrees where no threshold puts the other one higher.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from sweep.evaluation.settings import RISING, Thresholds
from sweep.evaluation.verdict import FIELD_OF, Point, verdict

MIN_JUDGEMENTS = 15  # about different files or pairs of files; the same asked again adds nothing
MIN_GAIN = 2.0  # a threshold moves only if at least so many judgements more agree
MAX_FOLDS = 60  # from more files and pairs than this on, several are left out at a time
_MAX_PASSES = 10
_MAX_CANDIDATES = 32
_BEYOND = 0.05  # how far past the last figure a threshold may go

_STEPS: Mapping[str, tuple[str, ...]] = {"likeness": RISING[0], "adherence": RISING[1]}
_SHARES = ("memorised_rate", "min_detect_rate")


class Judgement(Protocol):
    """What a person said of one file, or of two."""

    @property
    def points(self) -> tuple[Point, ...]: ...

    @property
    def about(self) -> frozenset[str]:
        """Which file or which two; what is said of the same ones is no news of others."""

    def agrees(self, thresholds: Thresholds) -> float:
        """1 = the rules say the same, 0 = they say something else, .5 = they leave it open."""


@dataclass(frozen=True, slots=True)
class Named:
    """A note that names a verdict."""

    point: Point
    verdict: str
    about: frozenset[str]

    @property
    def points(self) -> tuple[Point, ...]:
        return (self.point,)

    def agrees(self, thresholds: Thresholds) -> float:
        return float(verdict(self.point, thresholds) == self.verdict)


@dataclass(frozen=True, slots=True)
class Preferred:
    """A rated pair. question: "likeness" or "adherence"; is_same: neither was preferred."""

    better: Point
    worse: Point
    question: str
    about: frozenset[str]
    is_same: bool = False

    @property
    def points(self) -> tuple[Point, ...]:
        return (self.better, self.worse)

    def agrees(self, thresholds: Thresholds) -> float:
        limits = [getattr(thresholds, name) for name in _STEPS[self.question]]
        better, worse = (sum(getattr(point, self.question) >= limit for limit in limits) for point in self.points)
        if self.is_same or better == worse:
            return float(better == worse) if self.is_same else 0.5
        return float(better > worse)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """thresholds: those to use. Agreements are numbers of judgements out of `num`.

    left_out: of thresholds fitted without any judgement that touches a file that they are asked about; None where
        nothing was fitted.
    why_default: why the defaults stay; empty if they don't.
    """

    thresholds: Thresholds
    num: int
    default_agreement: float
    left_out: float | None
    why_default: str = ""


def calibrate(judgements: Sequence[Judgement], defaults: Thresholds) -> Calibration:
    """Fitted thresholds, where there are enough judgements and fitting helps on those that it has not seen."""
    before, num = _total(judgements, defaults), len(judgements)
    different = list(dict.fromkeys(judgement.about for judgement in judgements))
    if len(different) < MIN_JUDGEMENTS:
        return Calibration(thresholds=defaults, num=num, default_agreement=before, left_out=None,
                           why_default=f"uncalibrated: {len(different)} different files or pairs were judged, and "
                                       f"fitting takes {MIN_JUDGEMENTS}")
    left_out = 0.0
    num_folds = min(len(different), MAX_FOLDS)
    for fold in range(num_folds):
        asked = different[fold::num_folds]
        files = frozenset[str]().union(*asked)
        rest = [judgement for judgement in judgements if not judgement.about & files]
        left_out += _total([judgement for judgement in judgements if judgement.about in asked], fit(rest, defaults))
    if left_out <= before:
        return Calibration(thresholds=defaults, num=num, default_agreement=before, left_out=left_out,
                           why_default="they agree at least as often as thresholds fitted without the files that are "
                                       "asked about")
    return Calibration(thresholds=fit(judgements, defaults), num=num, default_agreement=before, left_out=left_out)


def fit(judgements: Sequence[Judgement], defaults: Thresholds) -> Thresholds:
    """One threshold after the other to where most judgements agree, until none gains by moving (coordinate ascent).

    Of places where equally many agree the middle one is taken: nothing was said between the figures on its sides.
    """
    thresholds = defaults
    for _ in range(_MAX_PASSES):
        before = thresholds
        for name in FIELD_OF:
            thresholds = _moved(name, judgements, thresholds)
        if thresholds == before:
            break
    return thresholds


def _moved(name: str, judgements: Sequence[Judgement], thresholds: Thresholds) -> Thresholds:
    now = getattr(thresholds, name)
    places = sorted({*_candidates(name, judgements, thresholds), now})
    gains = [_gain(name, place, judgements, thresholds) for place in places]
    top = max(gains)
    if top < MIN_GAIN:
        return thresholds
    best = [i for i, gain in enumerate(gains) if gain == top]
    start = min(best, key=lambda i: abs(places[i] - now))  # of several such stretches, the one nearest to where it is
    stretch = [i for i in best if all(gains[j] == top for j in range(min(i, start), max(i, start) + 1))]
    return dataclasses.replace(thresholds, **{name: places[stretch[len(stretch) // 2]]})


def _gain(name: str, place: float, judgements: Sequence[Judgement], thresholds: Thresholds) -> float:
    """How many more judgements agree with the threshold there; only those it passes over can change."""
    low, high = sorted((place, getattr(thresholds, name)))
    moved = dataclasses.replace(thresholds, **{name: place})
    return sum(judgement.agrees(moved) - judgement.agrees(thresholds) for judgement in judgements
               if any(low <= value <= high for value in _values(name, judgement)))


def _candidates(name: str, judgements: Sequence[Judgement], thresholds: Thresholds) -> list[float]:
    """Between the figures that were judged, and a little past the first and the last; in order with its neighbours, and
    rounded as they are written, so that what is judged is what is used."""
    values = sorted({value for judgement in judgements for value in _values(name, judgement)})
    if not values:
        return []
    places = [values[0] - _BEYOND, *((a + b) / 2 for a, b in pairwise(values)), values[-1] + _BEYOND]
    if len(places) > _MAX_CANDIDATES:
        places = [places[k * (len(places) - 1) // (_MAX_CANDIDATES - 1)] for k in range(_MAX_CANDIDATES)]
    low, high = (0.0, 1.0) if name in _SHARES else (-float("inf"), float("inf"))
    for rising in RISING:
        if name in rising:
            place = rising.index(name)
            low = max(low, getattr(thresholds, rising[place - 1])) if place else low
            high = min(high, getattr(thresholds, rising[place + 1])) if place + 1 < len(rising) else high
    return [place for place in (round(place, 3) for place in places) if low <= place <= high]


def _values(name: str, judgement: Judgement) -> list[float]:
    found = (getattr(point, FIELD_OF[name]) for point in judgement.points)
    return [value for value in found if value is not None]


def _total(judgements: Sequence[Judgement], thresholds: Thresholds) -> float:
    return sum(judgement.agrees(thresholds) for judgement in judgements)
