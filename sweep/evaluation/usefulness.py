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
    values = {"likeness": likeness, "adherence": adherence, "diversity": diversity}
    product = 1.0
    for name, exponent in exponents(weights, is_varied=diversity is not None).items():
        product *= min(max(values[name] or 0.0, weights.clip_low), 1.0) ** exponent
    return product * (1 - memorisation) * (1 - weights.bleed * bleed)


def exponents(weights: Weights, *, is_varied: bool) -> dict[str, float]:
    """Of the parts that are measured, which sum to 1. is_varied: diversity is one of them."""
    names = ("likeness", "adherence", "diversity")[:3 if is_varied else 2]
    total = sum(getattr(weights, name) for name in names)
    return {name: getattr(weights, name) / total for name in names}
