"""90 % intervals of what is no plain jackknife (sweep/comparison.py has that one). Never NaN."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sweep.comparison import CONFIDENCE, Interval, stretched, t_quantile


def standard_error(values: Sequence[float]) -> float:
    """Of the mean; 0 for fewer than two values."""
    return float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def widened(interval: Interval, other_error: float) -> Interval:
    """The interval of a figure that has a standard error of another cause, too; errors add in squares."""
    margin = t_quantile(max(interval.n - 1, 1)) * other_error
    return stretched(interval, margin, margin)


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
