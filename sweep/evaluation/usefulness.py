"""Usefulness, the scalar that a search maximises (scores.md, Usefulness)."""

from __future__ import annotations

from sweep.evaluation.settings import Weights


def usefulness(likeness: float, adherence: float, diversity: float | None, memorisation: float, bleed: float,
               weights: Weights) -> float:
    """U = c(L)^l * c(A)^a * c(D)^d * (1 - M) * (1 - b B), c clipping to [weights.clip_low, 1]; l, a, d and b are the
    weights of likeness, adherence, diversity and bleed.

    bleed: B, 0 to 1. Where it grows in proportion to L, U grows with L as long as b <= l / (1 + l).
    diversity: None where a stage draws one seed per prompt; the other two exponents then share its weight.
    """
    exponents = [(likeness, weights.likeness), (adherence, weights.adherence)]
    if diversity is not None:
        exponents.append((diversity, weights.diversity))
    total = weights.likeness + weights.adherence + weights.diversity
    scale = total / sum(weight for _, weight in exponents)
    product = 1.0
    for value, weight in exponents:
        product *= min(max(value, weights.clip_low), 1.0) ** (weight * scale)
    return product * (1 - memorisation) * (1 - weights.bleed * bleed)
