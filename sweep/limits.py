"""Limits on memorisation and diversity, search.max_memorisation and search.min_diversity: which trials are feasible."""

from __future__ import annotations

from collections.abc import Mapping

from sweep.trial import Score

_AXES = {"max_memorisation": ("memorisation", 1), "min_diversity": ("diversity", -1)}


def excess(limits: Mapping[str, float], values: Mapping[str, float | None]) -> dict[str, float]:
    """By how much each limit is broken, at most 0 where it is kept. A limit on what can't be known is left out.

    limits: by key of `search`. values: of a trial's axes.
    """
    found = {}
    for name, limit in limits.items():
        axis, sign = _AXES[name]
        value = values.get(axis)
        if value is not None:
            found[name] = sign * (value - limit)
    return found


def breach(limits: Mapping[str, float], score: Score) -> str:
    """"memorisation 0.62 with search.max_memorisation=0.5"; empty if the score keeps to the limits."""
    values = {name: axis.value for name, axis in score.axes.items()}
    return " and ".join(f"{_AXES[name][0]} {values[_AXES[name][0]]:.2f} with search.{name}={limits[name]:g}"
                        for name, by in excess(limits, values).items() if by > 0)
