"""Memorisation: how near the images come to single training photos (scores.md, Memorisation).

Distances are those of copies.py to the nearest training photo, after near-duplicates among those have been taken out.
Shapes: R training photos.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


def without_duplicates(distances_RR: Tensor, min_distance: float) -> list[int]:
    """Indices of the photos that are kept: each one is further than `min_distance` from all kept before it."""
    kept: list[int] = []
    for i in range(len(distances_RR)):
        if all(float(distances_RR[i, j]) >= min_distance for j in kept):
            kept.append(i)
    return kept


def memo_rate(distances: Sequence[float], copy_distance: float) -> float:
    """Share of images that are copies."""
    return float(np.mean([d < copy_distance for d in distances]))


def memo_gap(distances: Sequence[float], unseen_distances: Sequence[float]) -> float:
    """How much nearer the images are than real photos that were not trained on; above 0 = nearer."""
    return float(np.mean(unseen_distances) - np.mean(distances))


def normalised_gap(gap: float, unseen_distances: Sequence[float]) -> float:
    """0 = as near as photos that were never trained on, 1 = equal to a training photo.

    Not between the base and the training photos' own nearest neighbours, as the table of anchors in scores.md has it:
    those anchors give M = 1 to true photos of the subject in other clothes and scenes. (Renders of the pocket world,
    mean distance to the nearest of the subject's 25 training photos: 64 such photos .53, the training photos to each
    other .54, 64 photos of strangers .58.)
    """
    return gap / max(float(np.mean(unseen_distances)), 1e-6)


def memorisation(rate: float, normalised_gap: float, leak: float, rate_full: float) -> float:
    """M = clip01(max(memo_rate / .25, norm(memo_gap), norm(leak))) of scores.md; a leak that can't be known is none."""
    return float(np.clip(max(rate / rate_full, normalised_gap, 0.0 if np.isnan(leak) else leak), 0, 1))
