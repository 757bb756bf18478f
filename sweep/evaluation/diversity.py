"""Diversity: do the seeds of one prompt still give different images (scores.md, Diversity)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor


MIN_VARIETY = 0.01  # LPIPS between the base's seeds; nearer than that they are one image


def mean_pairwise_distance(distances_BB: Tensor) -> float | None:
    """Mean LPIPS over the pairs of images of one prompt; None for fewer than two."""
    num = len(distances_BB)
    return float(distances_BB.sum() / (num * (num - 1))) if num > 1 else None


def diversity(gen_P: NDArray[np.float64], base_P: NDArray[np.float64]) -> float:
    """Ratio to the base's on the same cells: floor 0, ceiling 1; NaN where the base's own seeds hardly differ."""
    ceiling = float(np.mean(base_P))
    return float(np.mean(gen_P)) / ceiling if ceiling >= MIN_VARIETY else float("nan")
