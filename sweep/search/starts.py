"""Points that a search tries first, from a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from sweep.command_line import CONF_DIR, Known
from sweep.errors import ConfigError
from sweep.schema import near_match
from sweep.search.space import Space, standing

STARTS_DIR = CONF_DIR / "search" / "starts"

Point = dict[str, Any]


def read_starts(name: str) -> list[Point]:
    """The points of a file: a YAML list of settings. name: of conf/search/starts, or a path.

    Raises ConfigError for a file that is not there, is no such list, or has a key that conf/ does not know.
    """
    import yaml

    path = STARTS_DIR / f"{name}.yaml"
    if not path.exists():
        path = Path(name).expanduser()
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in STARTS_DIR.glob("*.yaml")))
        raise ConfigError(f"search.start_from={name}: there is no such file. Give a path, or one of: {known}.")
    points = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(points, list) or not all(isinstance(point, dict) for point in points):
        raise ConfigError(f"{path} must be a list of settings, e.g. - {{network_dim: 32, unet_lr: 1.0e-4}}.")
    keys = Known("config").keys
    for number, point in enumerate(points, start=1):
        for key in point:
            if key not in keys:
                raise ConfigError(f'{path}, point {number}: unknown key "{key}".{near_match(str(key), keys)} '
                                  "`python train.py --help` lists the keys.")
    return [{key: _number(value) for key, value in point.items()} for point in points]


def fitting(points: Sequence[Point], space: Space, composed: Callable[[Point], Mapping[str, Any]],
            typed: Collection[str]) -> tuple[list[Point], list[str]]:
    """(what is searched of the points that can be tried as they are meant, why each of the others can't, in words).

    A point is meant whole: one that holds a value outside the space, or a key that is not searched at another value
    than the command composes to, would be another point. What the user typed has the last word: such a key may differ.

    composed: values of some axes -> the training config of that cell as a tree. Raises ConfigError for values that
        can't stand together.
    typed: keys that the command line sets to one value.
    """
    kept: list[Point] = []
    left_out: list[str] = []
    for number, point in enumerate(points, start=1):
        inside = space.inside(point)
        try:
            differing = _outside(point, inside, space) or _differing(point, inside, composed(inside), typed)
        except ConfigError as error:
            differing = str(error)
        if not differing and not inside:
            differing = "nothing in it is searched"
        if not differing and inside in kept:
            differing = "what is searched of it is the same as in an earlier point"
        if differing:
            left_out.append(f"point {number}: {differing}")
        else:
            kept.append(inside)
    return kept, left_out


def _outside(point: Point, inside: Point, space: Space) -> str:
    """Where a searched key can't have the point's value. One whose condition does not hold is not searched here."""
    outside = [f"{axis.key}={_said(point[axis.key])}" for axis in space.axes
               if axis.key in point and axis.key not in inside and space.applies(axis.key, inside)]
    return f"outside of what is searched: {', '.join(outside)}" if outside else ""


def _differing(point: Point, inside: Point, config: Mapping[str, Any], typed: Collection[str]) -> str:
    """Where a key that is not searched has another value here, and nobody typed it."""
    found = []
    for key, value in point.items():
        here = standing(key, config)
        is_typed = key in typed or (here is None and key.rpartition(".")[0] in typed)  # of another option of a group
        if key not in inside and not is_typed and here != value:
            found.append(f"{key}={_said(value)} there, {_said(here)} here")
    return f"{', '.join(found)}; set or search such a key, and it is no hindrance" if found else ""


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e-4 as a word."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
