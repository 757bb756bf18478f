"""Adherence: does the image show what the prompt asks for (scores.md, Adherence).

Probes look at the whole image, where scores.md would have them look at the fitting crop. A crop is cut around a face,
so an image without one would be judged on something else than its neighbours, and adherence would hang on likeness.
Floor and ceiling are seen whole too, so what framing does to a probe falls on all three; where hair or glasses are too
small to be seen, the base fails the probe as well, and it is dropped by name. Whether crops would tell more on real
photographs is not measured.

Shapes: B images, V values of an attribute, D width of an embedding, P prompts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sweep.evaluation.settings import Attribute

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]
RARE = 0.005
"""Share of prompts that may fail a probe though a stage's few show none that does: of a good LoRA that misses the
glasses once in a while (results/2026-11-22_intervals), where leaving prompts out alone says too little."""


def contrast_captions(attribute: Attribute, class_noun: str) -> dict[str, list[str]]:
    """The captions of each value."""
    return {value: [" ".join(t.replace("{class_noun}", class_noun).replace("{value}", words).replace(" ,", ",").split())
                    for t in attribute.templates]
            for value, words in attribute.values.items()}


def probe(image_features_BD: Tensor, text_features_VD: Tensor, logit_scale: float) -> Tensor:
    """Probability of each value, [B, V]: softmax of CLIP's scaled cosines (Radford et al. 2021, 3.1.2)."""
    return (logit_scale * image_features_BD @ text_features_VD.T).softmax(dim=1)


@dataclass(frozen=True, slots=True)
class ProbeTable:
    """One attribute over the prompts: the probability of the value asked for, NaN where none is asked for."""

    gen_P: Floats
    base_P: Floats
    real_P: Floats  # on the real photos, which ignore the prompt

    def value(self, keep: NDArray[np.intp]) -> float:
        """Mean over prompts, between the real photos (0) and the base (1); NaN if nothing is left."""
        gen, base, real = (x[keep] for x in (self.gen_P, self.base_P, self.real_P))
        used = ~np.isnan(gen) & ~np.isnan(base)
        if not used.any():
            return float("nan")
        span = float(np.mean(base[used] - real[used]))
        return float(np.mean(gen[used] - real[used])) / span


    def unseen_error(self, value: float) -> float:
        """Standard error of `value` from failures too rare to be seen on its prompts, at a rate of RARE."""
        num = int((~np.isnan(self.gen_P) & ~np.isnan(self.base_P)).sum())
        return min(max(value, 0.0), 1.0) * math.sqrt(RARE * (1 - RARE) / max(num, 1))


def drop_failed_probes(table: ProbeTable, min_range: float) -> tuple[ProbeTable, list[int]]:
    """Blank the prompts whose attribute the base itself fails; returns their indices too."""
    failed = ~np.isnan(table.base_P) & (table.base_P - table.real_P < min_range)
    blank = np.where(failed, np.nan, table.gen_P)
    return ProbeTable(blank, table.base_P, table.real_P), [int(i) for i in np.flatnonzero(failed)]


def adherence(probes: Mapping[str, float], retained_clip: float | None, probes_weight: float) -> float:
    """A = .6 * mean of valid probes + .4 * retained CLIP-T (scores.md); NaN without a valid probe."""
    valid = [value for value in probes.values() if not np.isnan(value)]
    if not valid:
        return float("nan")
    mean_probe = float(np.mean(valid))
    if retained_clip is None:
        return mean_probe
    return probes_weight * mean_probe + (1 - probes_weight) * retained_clip
