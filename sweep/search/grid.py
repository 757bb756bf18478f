"""The grid: every combination of the swept values, in the order of Hydra's own sweeper."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from sweep.config import RunConfig, load, plain_tree
from sweep.errors import ConfigError
from sweep.search.axes import Axis, read_axes, space_axes
from sweep.search.composer import Composer
from sweep.search.covering import covering_order
from sweep.search.settings import Grid

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from omegaconf import DictConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One point of the grid.

    settings: the swept keys with their values here.
    refused: why they make no config, if they don't; `config` is then another cell's.
    """

    settings: Mapping[str, Any]
    config: RunConfig
    refused: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """What a command asks for: a whole grid, or a space that a search proposes cells from.

    cells: of a grid, all of them; of a search, none yet.
    order: the positions of `cells` in the order in which they should run.
    fixed: the composed config without the swept overrides; the sweep's name stands for it.
    config: the same, typed; of a sweep that has cells, the first one's that works.
    axes: what is swept.
    typed: keys that the command line sets to one value.
    cell_at: the cell with given values of some of the axes; what the rest is set to then is the fixed config's. Raises
        ConfigError for values that can't stand together.
    """

    cells: tuple[Cell, ...]
    order: tuple[int, ...]
    swept_keys: tuple[str, ...]
    fixed: Mapping[str, Any]
    config: RunConfig
    axes: tuple[Axis, ...]
    cell_at: Callable[[Mapping[str, Any]], Cell]
    typed: frozenset[str] = frozenset()


def cells_of(arguments: Sequence[str], compose: Callable[[list[str]], DictConfig], loader: ConfigLoader) -> Cells:
    """What sweep overrides (`a=1,2`, `choice`, `range`, `glob`, `interval`) ask for, under `search`.

    A cell whose settings make no config is refused, and the others go on. Raises ConfigError naming each cell's reason
    if none works, and for a swept key that is not the trials' own.
    """
    axes = read_axes(arguments, loader)
    fixed = [line for axis in axes if not axis.is_swept for line in axis.lines]
    composer = Composer(compose, loader, fixed)
    tree = _fixed_tree(axes, composer, fixed)
    spaces = tree.get("search", {}).get("space") or {}
    named = {axis.key for axis in axes}  # the command line has the last word on what it names
    axes += space_axes({key: text for key, text in spaces.items() if key not in named}, loader)
    swept = tuple(axis for axis in axes if axis.is_swept)

    def cell_at(settings: Mapping[str, Any]) -> Cell:
        lines = [line for axis in axes for line in
                 ([axis.line_of(settings[axis.key])] if axis.key in settings else () if axis.is_swept else axis.lines)]
        return Cell(settings=dict(settings), config=composer.config(lines))

    if tree.get("search", {}).get("name") != "grid":
        config = cell_at({}).config
        return Cells(cells=(), order=(), swept_keys=tuple(axis.key for axis in swept), fixed=tree, config=config,
                     axes=tuple(_whole_where_needed(axis, config) for axis in swept), cell_at=cell_at,
                     typed=frozenset(axis.key for axis in axes if not axis.is_swept))
    intervals = [axis.key for axis in swept if not axis.lines]
    if intervals:
        raise ConfigError(f"{', '.join(intervals)}: an interval has no end of values, so a grid can't run them all. "
                          "Add search=tpe (or random, qmc, gp, cmaes, nsga2), or give values: "
                          f"{intervals[0]}=choice(...) or range(...).")
    cells = _all_cells(axes, composer)
    sizes = [len(axis.lines) for axis in swept]
    return Cells(cells=cells, order=tuple(covering_order(sizes)) if sizes else (0,),
                 swept_keys=tuple(axis.key for axis in swept), fixed=tree, axes=swept, cell_at=cell_at,
                 config=next(cell.config for cell in cells if not cell.refused))


def override_lists(axes: Sequence[Axis]) -> list[list[str]]:
    """All overrides of each cell, fixed ones included, in BasicSweeper's order."""
    return [list(lines) for lines in itertools.product(*(axis.lines for axis in axes))]


def one_cell(cfg: DictConfig) -> Cells:
    """A sweep of a single trial."""
    cell = Cell(settings={}, config=load(cfg))
    if not isinstance(cell.config.search, Grid):
        raise ConfigError(f"search={cell.config.search.name} needs -m and something to search over, e.g. "
                          "python train.py -m search=tpe 'unet_lr=tag(log, interval(1e-5,1e-3))'.")

    def only(settings: Mapping[str, Any]) -> Cell:
        assert not settings
        return cell

    return Cells(cells=(cell,), order=(0,), swept_keys=(), fixed=plain_tree(cfg), config=cell.config, axes=(),
                 cell_at=only)


def _fixed_tree(axes: Sequence[Axis], composer: Composer, fixed: Sequence[str]) -> dict[str, Any]:
    """What all cells share, composed. A setting that the default option lacks and a swept one has (optimizer.d_coef=2
    with optimizer=adamw,prodigy) can't be composed without a cell: then the first that works stands for what is fixed.
    """
    try:
        return composer.tree(fixed)
    except ConfigError:
        for lines in override_lists(axes) if any(axis.is_swept for axis in axes) else ():
            with contextlib.suppress(ConfigError):
                return composer.tree(lines)
        raise


def _all_cells(axes: Sequence[Axis], composer: Composer) -> tuple[Cell, ...]:
    found: list[tuple[dict[str, Any], RunConfig | None, str]] = []
    values = [[(axis, value) for value in axis.values] if axis.is_swept else [(axis, None)] for axis in axes]
    for lines, chosen in zip(override_lists(axes), itertools.product(*values), strict=True):
        settings = {axis.key: value for axis, value in chosen if axis.is_swept}
        try:
            found.append((settings, composer.config(lines), ""))
        except ConfigError as error:
            found.append((settings, None, str(error)))
    works = next((config for _, config, _ in found if config is not None), None)
    if works is None:
        raise ConfigError("\n".join(dict.fromkeys(f"{_spoken(settings)}{reason}" for settings, _, reason in found)))
    cells = tuple(Cell(settings=settings, config=config or works, refused=reason)
                  for settings, config, reason in found)
    _check_one_sweep(cells)
    return cells


def _spoken(settings: Mapping[str, Any]) -> str:
    return "".join(f"{key}={value} " for key, value in settings.items()).rstrip() + ": " if settings else ""


def _whole_where_needed(axis: Axis, config: RunConfig) -> Axis:
    """Hydra reads interval(8, 128) as floats; a key that takes whole numbers gets whole ones."""
    import typing

    owner, _, name = f"train.{axis.key}".rpartition(".")
    holder: Any = config
    for part in owner.split("."):
        holder = getattr(holder, part, None)
    hint = str(typing.get_type_hints(type(holder)).get(name, "")) if holder is not None else ""
    if axis.span is None or axis.span.is_whole or not hint.startswith(("<class 'int'>", "int")):
        return axis
    return replace(axis, span=replace(axis.span, low=math.ceil(axis.span.low), high=math.floor(axis.span.high),
                                      is_whole=True))


def _check_one_sweep(cells: Sequence[Cell]) -> None:
    """All cells must be scored, launched and recorded alike; only what a trial trains can be swept."""
    first = cells[0].config
    for cell in cells:
        for part in fields(RunConfig):
            mine, theirs = getattr(cell.config, part.name), getattr(first, part.name)
            if part.name not in ("train", "note") and mine is not theirs and mine != theirs:
                raise ConfigError(f"{dict(cell.settings)} changes {part.name}, which holds for a whole sweep: only "
                                  "what a trial trains can be swept. Run one sweep for each.")
