"""What a command line sweeps over: one axis per override, as Hydra's own sweeper reads it.

    network_dim=8,32,128   choice(a, b)   range(1, 5)   glob(alex/*)   shuffle(...)   tag(log, interval(1e-5, 1e-3))
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sweep.errors import ConfigError

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Numbers from low to high, both included. step: None = every number between; is_log: drawn by their logarithm."""

    low: float
    high: float
    is_whole: bool
    is_log: bool
    step: float | None = None

    def __contains__(self, value: object) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and self.low <= value <= self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One override: a fixed value, a list of values, or a span of numbers.

    lines: an override per value ("network_dim=8"); empty for an interval, which can't be enumerated.
    values: the same as plain values, in the same order.
    span: of an interval or a range; None for choices.
    """

    key: str  # without + or ~
    lines: tuple[str, ...]
    values: tuple[Any, ...]
    is_swept: bool
    span: Span | None = None

    def line_of(self, value: Any) -> str:
        """The override that gives the axis a value."""
        for known, line in zip(self.values, self.lines, strict=True):
            if known == value and type(known) is type(value):
                return line
        return f"{self.key}={'null' if value is None else repr(value)}"


def read_axes(arguments: Sequence[str], loader: ConfigLoader) -> list[Axis]:
    """The axes of override lines, in the order of Hydra's BasicSweeper: a key that comes twice keeps its first place
    and its last value.

    Differs from it in globs alone: one looks into the folders of a group too, one that matches nothing is an error
    (BasicSweeper runs zero jobs without a word), and what it finds is in the order of its numbers: sd2, sd15, where
    BasicSweeper has sd15, sd2. A diary's alex_lora1 to alex_lora11 come as they were numbered.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create(config_loader=loader)
    axes: dict[str, Axis] = {}
    for override in parser.parse_overrides(list(arguments)):
        axes[override.get_key_element()] = _axis(override, loader)
    return [_with_values(axis, parser) for axis in axes.values()]


def space_axes(space: Mapping[str, str], loader: ConfigLoader) -> list[Axis]:
    """The axes of conf/search's `space`: key -> what would stand behind its "=" on the command line."""
    axes = read_axes([f"{key}={text}" for key, text in space.items()], loader)
    fixed = [axis.key for axis in axes if not axis.is_swept]
    if fixed:
        raise ConfigError(f"search.space has one value only for {', '.join(fixed)}. Give a choice, a range or an "
                          "interval, or set the key itself.")
    return axes


def _axis(override: Override, loader: ConfigLoader) -> Axis:
    from hydra.core.override_parser.types import Glob, IntervalSweep, RangeSweep

    key, value = override.get_key_element(), override.value()
    plain_key = override.key_or_group
    if not override.is_sweep_override():
        line = f"{key}={override.get_value_element_as_str()}"
        return Axis(key=plain_key, lines=(line,), values=(), is_swept=False)
    if isinstance(value, IntervalSweep):
        return Axis(key=plain_key, lines=(), values=(), is_swept=True, span=_interval(value))
    if isinstance(value, Glob):
        texts = _matches(plain_key, value, loader)
    else:
        texts = list(override.sweep_string_iterator())
    span = _range(value, texts) if isinstance(value, RangeSweep) and not value.shuffle else None
    return Axis(key=plain_key, lines=tuple(f"{key}={text}" for text in texts), values=(), is_swept=True, span=span)


def _with_values(axis: Axis, parser: Any) -> Axis:
    return replace(axis, values=tuple(parser.parse_override(line).value() for line in axis.lines))


def _interval(sweep: Any) -> Span:
    if not sweep.start < sweep.end:
        raise ConfigError(f"interval({sweep.start}, {sweep.end}) is empty: its first number must be the smaller one.")
    is_whole = isinstance(sweep.start, int) and isinstance(sweep.end, int)  # int(interval(1, 8)); else Hydra has floats
    is_log = "log" in sweep.tags
    if is_log and sweep.start <= 0:
        raise ConfigError(f"tag(log, interval({sweep.start}, {sweep.end})): a logarithm needs numbers above 0.")
    return Span(low=sweep.start, high=sweep.end, is_whole=is_whole, is_log=is_log)


def _range(sweep: Any, texts: Sequence[str]) -> Span | None:
    """A range as a span; unlike Hydra's own Optuna sweeper, whose upper end is one step too high, the end stays out."""
    numbers = sorted(float(text) for text in texts)
    if len(numbers) < 2:
        return None
    is_whole = all(number.is_integer() for number in numbers)
    is_log = "log" in sweep.tags and numbers[0] > 0
    step = abs(float(sweep.step))
    return Span(low=numbers[0], high=numbers[-1], is_whole=is_whole, is_log=is_log and step == 1 and is_whole,
                step=step)


def _matches(group: str, glob: Any, loader: ConfigLoader) -> list[str]:
    known = list(_options(group, loader))
    found = [name for name in known if any(fnmatch.fnmatch(name, pattern) for pattern in glob.include)
             and not any(fnmatch.fnmatch(name, pattern) for pattern in glob.exclude)
             # "*" means the files of one folder, as in a shell
             and any(name.count("/") == pattern.count("/") for pattern in glob.include)]
    if not found:
        raise ConfigError(f"{group}=glob({', '.join(glob.include)}) matches nothing. Known: "
                          f"{', '.join(known) or 'none'}.")
    return sorted(found, key=_natural)


def _natural(name: str) -> list[tuple[int, str]]:
    """Numbers by value: alex_lora2 comes before alex_lora10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _options(group: str, loader: ConfigLoader, prefix: str = "") -> Iterator[str]:
    from hydra.core.object_type import ObjectType

    for name in loader.get_group_options(group, results_filter=ObjectType.CONFIG):
        yield f"{prefix}{name}"
    for name in loader.get_group_options(group, results_filter=ObjectType.GROUP):
        yield from _options(f"{group}/{name}", loader, f"{prefix}{name}/")
