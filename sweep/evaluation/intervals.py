"""90 % intervals about *this file*: prompts are the random thing. Never NaN; too few prompts say so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.90
MIN_UNITS = 3


@dataclass(frozen=True, slots=True)
class Interval:
    """low, high: None where they can't be known; reason says why."""

    low: float | None
    high: float | None
    n: int
    reason: str = ""


def jackknife_interval(value: float, replicates: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """value +- t * se, se from the statistic with each unit left out (Efron & Tibshirani 1993, Eq. 11.5).

    For a mean, and for a mean of paired differences, this is the t interval itself.
    """
    n = len(replicates)
    if n < MIN_UNITS:
        return Interval(None, None, n, f"an interval needs at least {MIN_UNITS} prompts, there are {n}")
    theta = np.asarray(replicates, dtype=float)
    if not math.isfinite(value) or not np.isfinite(theta).all():
        return Interval(None, None, n, "without one of its prompts the value can't be computed")
    standard_error = math.sqrt((n - 1) / n * float(((theta - theta.mean()) ** 2).sum()))
    margin = t_quantile(n - 1, confidence) * standard_error
    return Interval(value - margin, value + margin, n)


def mean_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """The paired t interval of per-prompt values or differences (Student 1908)."""
    x = np.asarray(values, dtype=float)
    n = len(x)
    left_out = [(x.sum() - v) / (n - 1) for v in x] if n > 1 else list(x)
    return jackknife_interval(float(x.mean()) if n else math.nan, left_out, confidence)


def standard_error(values: Sequence[float]) -> float:
    """Of the mean; 0 for fewer than two values."""
    return float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def widened(interval: Interval, value: float, other_error: float) -> Interval:
    """The interval of a difference whose other side has a standard error of its own; errors add in squares."""
    if interval.low is None or interval.high is None:
        return interval
    margin = math.hypot((interval.high - interval.low) / 2, t_quantile(interval.n - 1) * other_error)
    return Interval(value - margin, value + margin, interval.n, interval.reason)


def rate_interval(count: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Of a share: count of n. Wilson 1927, which stays honest at 0 of n."""
    if n == 0:
        return Interval(None, None, 0, "there are no images")
    from statistics import NormalDist

    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p = count / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    margin = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low = 0.0 if count == 0 else max(0.0, centre - margin)
    return Interval(low, 1.0 if count == n else min(1.0, centre + margin), n)


def t_quantile(degrees: int, confidence: float = CONFIDENCE) -> float:
    """Of Student's t, two-sided."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + confidence) / 2))
