"""The grid: every combination of the swept values, in the order of Hydra's own sweeper."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from sweep.config import RunConfig, load
from sweep.errors import ConfigError
from sweep.search.options import values_of

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from omegaconf import DictConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One point of the grid. settings: the swept keys with their values here."""

    settings: Mapping[str, Any]
    config: RunConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """A whole grid.

    fixed: the composed config without the swept overrides; the sweep's name stands for it.
    """

    cells: tuple[Cell, ...]
    swept_keys: tuple[str, ...]
    fixed: Mapping[str, Any]


def cells_of(arguments: Sequence[str], compose: Callable[[list[str]], DictConfig], loader: ConfigLoader) -> Cells:
    """Enumerate the cells of sweep overrides (`a=1,2`, `choice`, `range`, `glob`).

    Raises ConfigError naming every cell that can't work, and for a swept key that is not the trials' own.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    overrides = OverridesParser.create(config_loader=loader).parse_overrides(list(arguments))
    fixed = [o.input_line or "" for o in overrides if not o.is_sweep_override()]
    swept = {o.get_key_element(): [f"{o.get_key_element()}={value}" for value in values_of(o, loader)]
             for o in overrides if o.is_sweep_override()}
    cells, problems = [], []
    for choices in itertools.product(*swept.values()):
        settings = {key: _plain(choice.partition("=")[2]) for key, choice in zip(swept, choices, strict=True)}
        try:
            cells.append(Cell(settings=settings, config=load(compose([*fixed, *choices]))))
        except ConfigError as error:
            problems.append(f"{' '.join(choices)}: {error}" if choices else str(error))
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))
    _check_one_sweep(cells)
    tree = OmegaConf.to_container(compose(fixed), resolve=True)
    assert isinstance(tree, dict)
    return Cells(cells=tuple(cells), swept_keys=tuple(swept), fixed={str(k): v for k, v in tree.items()})


def one_cell(cfg: DictConfig) -> Cells:
    """A sweep of a single trial."""
    from omegaconf import OmegaConf

    tree = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(tree, dict)
    return Cells(cells=(Cell(settings={}, config=load(cfg)),), swept_keys=(),
                 fixed={str(k): v for k, v in tree.items()})


def _check_one_sweep(cells: Sequence[Cell]) -> None:
    """All cells must be scored, launched and recorded alike; only what a trial trains can be swept."""
    first = cells[0].config
    for cell in cells:
        for part in fields(RunConfig):
            if part.name not in ("train", "note") and getattr(cell.config, part.name) != getattr(first, part.name):
                raise ConfigError(f"{dict(cell.settings)} changes {part.name}, which holds for a whole sweep: only "
                                  "what a trial trains can be swept. Run one sweep for each.")


def _plain(text: str) -> Any:
    """'8' -> 8, '1e-4' -> 0.0001, 'adamw' -> 'adamw'."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False, "null": None}.get(text, text.strip("'\""))
