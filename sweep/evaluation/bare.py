"""The bare trigger: is the subject drawn where nothing but the trigger asks for it?

Beside regularisation images with short captions a LoRA of long ones may answer to sentences only: the bare trigger then
draws a stranger, which likeness on the prompts does not show.

Shapes: S seeds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sweep.comparison import Interval, jackknife_interval
from sweep.evaluation.anchors import Anchors
from sweep.evaluation.bleed import MIN_SPAN
from sweep.evaluation.intervals import widened
from sweep.evaluation.likeness import ceiling_error, likeness
from sweep.evaluation.measure import MeasuredSet
from sweep.evaluation.settings import ScoringConfig
from sweep.evaluation.table import mean_of


@dataclass(frozen=True, slots=True)
class Bare:
    """Likeness on the bare trigger, 0 = as the base there, 1 = the subject; its interval is over seeds."""

    value: float
    interval: Interval

    def details(self) -> dict[str, float | None]:
        return {"likeness_bare": self.value, "likeness_bare_low": self.interval.low,
                "likeness_bare_high": self.interval.high}

    def notes(self, elsewhere: float, limit: float) -> list[str]:
        """That the trigger does not draw the subject, where that is sure; limit: below it is no likeness."""
        if self.interval.high is None or self.interval.high >= limit or elsewhere < limit:
            return []
        return [f"does not answer to its trigger alone: likeness {self.value:.2f} ({self.interval.low:.2f} to "
                f"{self.interval.high:.2f}) there, {elsewhere:.2f} on the prompts; put it into a sentence, as its "
                "captions do"]


def bare_of(measured: MeasuredSet, anchors: Anchors, scoring: ScoringConfig, stage: str) -> Bare | None:
    """None if it is not drawn at this stage or can't be measured. An image without a face is as like the subject as the
    base's of the same noise."""
    base = {m.key: m.face for m in anchors.base[stage].images if m.kind == "bare" and m.face is not None}
    images = [m for m in measured.images if m.key in base and not m.is_broken]
    if not images or anchors.likeness_problem(scoring):
        return None
    base_S = np.array([base[m.key] for m in images])
    gen_S = np.array([base[m.key] if m.face is None else m.face for m in images])
    ceiling = mean_of(anchors.real.ceiling_faces)
    if ceiling - base_S.max() < MIN_SPAN:
        return None
    value = likeness(gen_S, base_S, ceiling)
    left_out = [likeness(np.delete(gen_S, i), np.delete(base_S, i), ceiling) for i in range(len(images))
                if len(images) > 1]
    error = ceiling_error(value, float(base_S.mean()), anchors.real.ceiling_faces)
    return Bare(value, widened(jackknife_interval(value, left_out), error))
