"""Bleed: does every member of the class now look like the subject? On prompts without the trigger (scores.md, Bleed).

Shapes: P class prompts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sweep.comparison import Interval, jackknife_interval
from sweep.evaluation.anchors import Anchors
from sweep.evaluation.likeness import likeness
from sweep.evaluation.measure import Measured, MeasuredSet
from sweep.evaluation.settings import ScoringConfig
from sweep.evaluation.table import mean_of, natural_hair

MIN_SPAN = 0.05  # cosine; nearer to the ceiling than that, the base's own people say nothing


@dataclass(frozen=True, slots=True)
class Bleed:
    """value: likeness on the class prompts, 0 = as the base there, 1 = the subject. drift: towards natural hair."""

    value: float
    interval: Interval
    drift: float

    @property
    def clipped(self) -> float:
        return min(max(self.value, 0.0), 1.0)

    @property
    def clipped_margin(self) -> float:
        """Half the interval's width inside [0, 1]."""
        if self.interval.low is None or self.interval.high is None:
            return 0.0
        low, high = (min(max(bound, 0.0), 1.0) for bound in (self.interval.low, self.interval.high))
        return (high - low) / 2

    def details(self) -> dict[str, float | None]:
        return {"bleed": self.value, "bleed_low": self.interval.low, "bleed_high": self.interval.high,
                "bleed_drift_to_natural": None if math.isnan(self.drift) else self.drift}


def bleed_of(measured: MeasuredSet, anchors: Anchors, scoring: ScoringConfig, stage: str) -> Bleed | None:
    """None where the stage draws no class prompts, or likeness can't be measured on them."""
    base = {m.key: m for m in anchors.base[stage].images if m.kind == "class" and not m.is_broken}
    images = [m for m in measured.images if m.key in base and not m.is_broken]
    ceiling = mean_of(anchors.real.ceiling_faces)
    if not images or anchors.likeness_problem(scoring):
        return None
    floor = mean_of([face for m in images if (face := base[m.key].face) is not None])
    prompts = sorted({m.index for m in images})
    base_P = np.array([mean_of([_face(base[m.key], floor) for m in images if m.index == p]) for p in prompts])
    gen_P = np.array([mean_of([_face(m, floor) for m in images if m.index == p]) for p in prompts])
    if not np.isfinite([*base_P, *gen_P]).all() or ceiling - base_P.max() < MIN_SPAN:
        return None
    value = likeness(gen_P, base_P, ceiling)
    left_out = [likeness(np.delete(gen_P, i), np.delete(base_P, i), ceiling) for i in range(len(prompts))]
    natural = natural_hair(anchors, scoring)
    drift = [m.probes["hair"][natural] - base[m.key].probes["hair"][natural] for m in images] if natural else []
    return Bleed(value, jackknife_interval(value, left_out), mean_of(drift))


def _face(image: Measured, floor: float) -> float:
    return floor if image.face is None else image.face
