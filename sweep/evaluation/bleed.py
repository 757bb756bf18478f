"""Bleed: does every member of the class now look like the subject? On prompts without the trigger (scores.md, Bleed).

Shapes: P class prompts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sweep.comparison import Interval, jackknife_interval
from sweep.evaluation.anchors import Anchors
from sweep.evaluation.intervals import widened
from sweep.evaluation.likeness import ceiling_error, likeness
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
    def clipped_margins(self) -> tuple[float, float]:
        """How far the interval reaches below and above inside [0, 1]."""
        if self.interval.low is None or self.interval.high is None:
            return 0.0, 0.0
        low, high = (min(max(bound, 0.0), 1.0) for bound in (self.interval.low, self.interval.high))
        return self.clipped - low, high - self.clipped

    def details(self) -> dict[str, float | None]:
        return {"bleed": self.value, "bleed_low": self.interval.low, "bleed_high": self.interval.high,
                "bleed_drift_to_natural": None if math.isnan(self.drift) else self.drift}


def bleed_of(measured: MeasuredSet, anchors: Anchors, scoring: ScoringConfig, stage: str) -> Bleed | str:
    """Or why it can't be known, in words."""
    if not any(m.kind == "class" for m in measured.images):
        return "no class prompts at this stage"
    base = {m.key: m for m in anchors.base[stage].images if m.kind == "class" and not m.is_broken}
    images = [m for m in measured.images if m.key in base and not m.is_broken]
    ceiling = mean_of(anchors.real.ceiling_faces)
    if not images:
        return "the images of the class prompts are broken"
    if anchors.likeness_problem(scoring):
        return "likeness can't be measured"
    # Where the base shows no face, it is as like the subject as on the stage's other prompts.
    floors = ([base[m.key] for m in images], list(anchors.base_on(stage).values()))
    floor = next((mean for shown in floors
                  if not math.isnan(mean := mean_of([m.face for m in shown if m.face is not None]))), math.nan)
    prompts = sorted({m.index for m in images})
    base_P = np.array([mean_of([_face(base[m.key], floor) for m in images if m.index == p]) for p in prompts])
    gen_P = np.array([mean_of([_face(m, floor) for m in images if m.index == p]) for p in prompts])
    if not np.isfinite([*base_P, *gen_P]).all():
        return "the base model draws no face"
    if ceiling - base_P.max() < MIN_SPAN:
        return "on some class prompt the base model's own people are as like the subject as its photos"
    value = likeness(gen_P, base_P, ceiling)
    left_out = [likeness(np.delete(gen_P, i), np.delete(base_P, i), ceiling) for i in range(len(prompts))]
    natural = natural_hair(anchors, scoring)
    drift = [m.probes["hair"][natural] - base[m.key].probes["hair"][natural] for m in images] if natural else []
    interval = widened(jackknife_interval(value, left_out),
                       ceiling_error(value, float(base_P.mean()), anchors.real.ceiling_faces))
    return Bleed(value, interval, mean_of(drift))


def _face(image: Measured, floor: float) -> float:
    return floor if image.face is None else image.face
