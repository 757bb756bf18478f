"""Axes as Optuna's distributions, with the conditions under which each is searched."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sweep.errors import ConfigError
from sweep.schema import near_match
from sweep.search.axes import Axis, Span

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial


class Space:
    """What a search may vary.

    when: key -> {other key: allowed values}; where it does not hold, the key keeps its default.
    fixed: the composed config as a tree, for conditions on what is not searched.
    """

    def __init__(self, axes: Sequence[Axis], when: Mapping[str, Any], fixed: Mapping[str, Any]):
        self.axes = _parents_first(axes, when)
        self._when, self._fixed = when, fixed
        self._by_key = {axis.key: axis for axis in axes}

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """Values for one trial, conditions heeded."""
        settings: dict[str, Any] = {}
        for axis in self.axes:
            if self.applies(axis.key, settings):
                chosen = trial._suggest(axis.key, distribution(axis))
                settings[axis.key] = self._value(axis, chosen)
        return settings

    def params(self, settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
        """A trial's settings as Optuna's parameters; values that the space no longer holds are left out."""
        inside = {key: as_param(value) for key, value in settings.items()
                  if key in self._by_key and holds(self._by_key[key], value)}
        return inside, {key: distribution(self._by_key[key]) for key in inside}

    def inside(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """The part of a point that the space holds, conditions heeded."""
        settings: dict[str, Any] = {}
        for axis in self.axes:
            if axis.key in point and holds(axis, point[axis.key]) and self.applies(axis.key, {**settings}):
                settings[axis.key] = point[axis.key]
        return settings

    def middle(self) -> dict[str, Any]:
        """A point in the middle of each axis, conditions heeded."""
        return self.inside({axis.key: _middle(axis) for axis in self.axes})

    def applies(self, key: str, settings: Mapping[str, Any]) -> bool:
        """Whether a key is searched beside these values of the others."""
        return all((settings[other] if other in settings else standing(other, self._fixed)) in allowed
                   for other, allowed in self._when.get(key, {}).items())

    @staticmethod
    def _value(axis: Axis, chosen: Any) -> Any:
        if axis.span is not None and _is_numeric(axis):
            return chosen
        return next(value for value in axis.values
                    if as_param(value) == chosen and type(as_param(value)) is type(chosen))


def _middle(axis: Axis) -> Any:
    span = axis.span
    if span is None:
        return axis.values[len(axis.values) // 2]
    value = math.sqrt(span.low * span.high) if span.is_log else (span.low + span.high) / 2
    if span.step is not None:
        value = span.low + span.step * round((value - span.low) / span.step)
    return round(value) if span.is_whole else float(f"{value:.3g}")


def standing(key: str, config: Mapping[str, Any]) -> Any:
    """What a config as a tree has at a dotted key, a group as its option's name; None where it has no such key."""
    node: Any = config
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node.get("name") if isinstance(node, Mapping) else node


def distribution(axis: Axis) -> BaseDistribution:
    """A span as numbers, choices as categories."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not _is_numeric(axis):
        return CategoricalDistribution([as_param(value) for value in axis.values])
    span = axis.span
    assert isinstance(span, Span)
    if span.is_whole:
        return IntDistribution(int(span.low), int(span.high), log=span.is_log, step=int(span.step or 1))
    return FloatDistribution(span.low, span.high, log=span.is_log, step=None if span.is_log else span.step)


def grid_distribution(axis: Axis) -> BaseDistribution:
    """Of a grid: numbers as numbers, so that plots draw them on an axis and more values do not change the kind."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    numbers = [value for value in axis.values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if not numbers or len(numbers) < len(axis.values):
        return CategoricalDistribution([as_param(value) for value in dict.fromkeys(map(as_param, axis.values))])
    if all(isinstance(value, int) for value in numbers):
        return IntDistribution(int(min(numbers)), int(max(numbers)))
    return FloatDistribution(min(numbers), max(numbers))


def holds(axis: Axis, value: Any) -> bool:
    if _is_numeric(axis):
        return axis.span is not None and value in axis.span
    return any(as_param(known) == as_param(value) and isinstance(known, bool) == isinstance(value, bool)
               for known in axis.values)


def as_param(value: Any) -> Any:
    """Optuna's categories are scalars; a list stands as its JSON."""
    return value if value is None or isinstance(value, (bool, int, float, str)) else json.dumps(value)


def _is_numeric(axis: Axis) -> bool:
    return axis.span is not None


def _parents_first(axes: Sequence[Axis], when: Mapping[str, Any]) -> list[Axis]:
    """Axes in an order in which a condition's key is known before the key that depends on it."""
    known = {axis.key for axis in axes}
    for key in when:
        if key not in known:
            raise ConfigError(f"search.when names {key}, which is not searched.{near_match(key, known)} Searched: "
                              f"{', '.join(sorted(known)) or 'nothing'}.")
    ordered: list[Axis] = []
    left = list(axes)
    while left:
        done = {axis.key for axis in ordered}
        ready = [axis for axis in left if not set(when.get(axis.key, {})) & known - done]
        if not ready:
            circle = ", ".join(axis.key for axis in left)
            raise ConfigError(f"search.when goes in a circle: {circle} wait for each other.")
        ordered += ready
        left = [axis for axis in left if axis not in ready]
    return ordered
