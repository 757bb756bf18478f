"""The Pareto front over (L, A, D, -M): what nothing else beats in every way (scores.md, Usefulness). No torch."""

from __future__ import annotations

from collections.abc import Sequence

from sweep.trial import Score


def pareto_front(scores: Sequence[Score]) -> list[int]:
    """Indices of the scores that no other dominates: none is at least as good on all axes and better on one.

    Compared on the axes that all of them know; a score without likeness, adherence or memorisation is never on it.
    """
    known = [i for i, score in enumerate(scores)
             if all(score.axes[axis].is_valid for axis in ("likeness", "adherence", "memorisation"))]
    if len({scores[i].scoring_id for i in known}) > 1:
        raise ValueError("scores under different scorings are never compared")
    has_diversity = all(scores[i].axes["diversity"].is_valid for i in known)
    points = {i: _point(scores[i], has_diversity) for i in known}
    front: list[int] = []
    for i in sorted(known, key=points.__getitem__, reverse=True):  # what dominates a point comes before it
        if not any(_dominates(points[j], points[i]) for j in front):
            front.append(i)
    return sorted(front)


def _point(score: Score, has_diversity: bool) -> tuple[float, ...]:
    values = {axis: estimate.value for axis, estimate in score.axes.items() if estimate.value is not None}
    point = (values["likeness"], values["adherence"], -values["memorisation"])
    return (*point, values["diversity"]) if has_diversity else point


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return all(a >= b for a, b in zip(one, other, strict=True)) and one != other
