"""Which of two scores is better, and whether that can be told: one rule for files, strengths and trials.

All are drawn on the same cells, so two scores are paired by prompt through `Score.replicates`. It is all about *these
files*: prompts are the random thing here, the training seed is not, and the best of many looks better than it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from sweep.trial import Score

CONFIDENCE = 0.90
MIN_UNITS = 3
NEGLIGIBLE = 0.005
"""A difference in usefulness that its two digits don't show is nobody's reason to choose, however sure it is."""


@dataclass(frozen=True, slots=True)
class Interval:
    """low, high: None where they can't be known; reason says why."""

    low: float | None
    high: float | None
    n: int
    reason: str = ""


def cautious(score: Score) -> float:
    """Usefulness less one standard error, so that a lucky draw is not taken for a good file; -inf if it is invalid."""
    return cautious_value(score.axes["usefulness"].value, score.replicates, score.margins)


def cautious_value(value: float | None, replicates: Mapping[str, float], margins: tuple[float, float]) -> float:
    """The same of a score's parts. Where its error isn't known, below all whose error is."""
    if value is None:
        return -math.inf
    if not replicates:
        return value - 1
    beyond = margins[0] / t_quantile(max(len(replicates) - 1, 1))
    return value - math.hypot(jackknife_error(list(replicates.values())), beyond)


def are_tied(one: Score, other: Score) -> bool:
    """Whether their usefulness is as good as the same, or the interval of the paired difference holds 0 or can't be
    known.

    An invalid score ties with nothing.
    """
    assert (one.scoring_id, one.stage) == (other.scoring_id, other.stage), "scores of other cells or anchors"
    a, b = one.axes["usefulness"].value, other.axes["usefulness"].value
    if a is None or b is None:
        return False
    if abs(a - b) < NEGLIGIBLE:
        return True
    interval = ahead([(one, other)])
    return interval.low is None or interval.high is None or interval.low <= 0 <= interval.high


def ahead(pairs: Sequence[tuple[Score, Score]]) -> Interval:
    """Of the mean, over the pairs, of how far the first one's usefulness is ahead of the second's. All are drawn on the
    same prompts, which are paired; what each one's margins hold beyond that is not, and is added in squares (Zou &
    Donner 2008, Eq. 3). Raises ValueError for a score without usefulness."""
    differences = [(a.axes["usefulness"].value, b.axes["usefulness"].value) for a, b in pairs]
    known = [x - y for x, y in differences if x is not None and y is not None]
    if not known or len(known) < len(pairs):
        raise ValueError("a score without usefulness is ahead of nothing")
    shared = sorted(set.intersection(*(set(score.replicates) for pair in pairs for score in pair)))
    over_prompts = jackknife_interval(math.fsum(known) / len(known),
                                      [math.fsum(a.replicates[p] - b.replicates[p] for a, b in pairs) / len(pairs)
                                       for p in shared])
    below = math.hypot(*(margin for a, b in pairs for margin in (a.margins[0], b.margins[1]))) / len(pairs)
    above = math.hypot(*(margin for a, b in pairs for margin in (a.margins[1], b.margins[0]))) / len(pairs)
    return stretched(over_prompts, below, above)


def stretched(interval: Interval, below: float, above: float) -> Interval:
    """Wider by margins of other causes than the interval's own; errors add in squares."""
    if interval.low is None or interval.high is None:
        return interval
    middle, margin = (interval.low + interval.high) / 2, (interval.high - interval.low) / 2
    return Interval(middle - math.hypot(margin, below), middle + math.hypot(margin, above), interval.n,
                    interval.reason)


def jackknife_interval(value: float, replicates: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """value +- t * se, se from the statistic with each unit left out (Efron & Tibshirani 1993, Eq. 11.5).

    For a mean, and for a mean of paired differences, this is Student's t interval itself.
    """
    n = len(replicates)
    if n < MIN_UNITS:
        return Interval(None, None, n, f"an interval needs at least {MIN_UNITS} prompts, there are {n}")
    if not math.isfinite(value) or not all(math.isfinite(theta) for theta in replicates):
        return Interval(None, None, n, "without one of its prompts the value can't be computed")
    margin = t_quantile(n - 1, confidence) * jackknife_error(replicates)
    return Interval(value - margin, value + margin, n)


def jackknife_error(replicates: Sequence[float]) -> float:
    """The standard error of a statistic from its values with each unit left out; 0 for fewer than two."""
    n = len(replicates)
    if n < 2:
        return 0.0
    mean = math.fsum(replicates) / n
    return math.sqrt((n - 1) / n * math.fsum((theta - mean) ** 2 for theta in replicates))


@lru_cache(maxsize=256)
def t_quantile(degrees: int, confidence: float = CONFIDENCE) -> float:
    """Of Student's t, two-sided."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + confidence) / 2))
