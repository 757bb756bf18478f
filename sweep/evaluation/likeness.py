"""Likeness: how near the faces in the images are to the reference photos' (scores.md, Likeness).

Shapes: B images, R reference photos, D width of an embedding, P prompts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sweep.evaluation.intervals import standard_error
from sweep.evaluation.settings import MIN_REFERENCES

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]

def mean_pairwise(faces_BD: Tensor, references_RD: Tensor) -> Tensor:
    """Mean cosine of each face to every reference face, [B]. Not to their centroid, whose distance shrinks with R.

    0 without a reference; `why_invalid` then says that nothing was measured.
    """
    if len(references_RD) == 0:
        return faces_BD.new_zeros(len(faces_BD))
    return (faces_BD @ references_RD.T).mean(dim=1)


def leave_one_out(faces_RD: Tensor, references_RD: Tensor) -> list[float]:
    """Mean cosine of each photo's face to the reference faces of the other photos: how like the subject a photo is."""
    cosines_RR = faces_RD @ references_RD.T
    num = len(references_RD)
    return [float((row.sum() - row[i]) / (num - 1)) for i, row in enumerate(cosines_RR)] if num > 1 else []


def likeness(gen_P: Floats, base_P: Floats, ceiling: float) -> float:
    """norm(v) = (v - floor) / (ceiling - floor) of scores.md; the floor is the base on the same prompts."""
    floor = float(np.mean(base_P))
    return (float(np.mean(gen_P)) - floor) / (ceiling - floor)


def ceiling_error(value: float, floor: float, ceiling: Sequence[float]) -> float:
    """What the standard error of the ceiling's mean makes of a likeness (first order)."""
    span = float(np.mean(ceiling)) - floor
    return abs(value) * standard_error(ceiling) / span if span > 0 else 0.0


def dprime(floor: Sequence[float], ceiling: Sequence[float]) -> float:
    """Distance of two samples in units of their pooled standard deviation (Green & Swets 1966)."""
    spread = math.sqrt((float(np.var(floor, ddof=1)) + float(np.var(ceiling, ddof=1))) / 2)
    return (float(np.mean(ceiling)) - float(np.mean(floor))) / max(spread, 1e-9)


def why_invalid(floor: Sequence[float], ceiling: Sequence[float], num_references: int, min_dprime: float) -> str:
    """Why likeness can't be measured with these anchors; empty if it can."""
    if num_references < MIN_REFERENCES:
        return (f"a face was found on {num_references} of the photos that likeness is measured against, it needs at "
                f"least {MIN_REFERENCES}")
    if len(ceiling) < 2:
        return (f"the base model's autoencoder leaves a face on {len(ceiling)} of the photos that likeness is measured "
                "against, it needs at least 2")
    if len(floor) < 2:
        return "the base model draws no faces on these prompts"
    distance = dprime(floor, ceiling)
    if distance < min_dprime:
        return (f"this recogniser cannot tell your subject (photos: mean similarity {np.mean(ceiling):.2f}) from the "
                f"base model's average one ({np.mean(floor):.2f}): d' = {distance:.1f}, needed are {min_dprime:g}")
    return ""
