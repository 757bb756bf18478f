"""Strict dataclasses: build one from a plain tree, or say exactly what is wrong with the tree.

Knows nothing of what is configured. A dataclass states its fields' types and, through `bounds`, `one_of` and
`family`, what they may hold; `build` refuses unknown keys (naming the near match), wrong types and values out of
range. Default values live in `conf/`, so a missing key is an error too; a field with a default of its own, which only
an item of a list may have, can be left out.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, TypeVar

from sweep.errors import ConfigError

T = TypeVar("T")


def bounds(low: float | None = None, high: float | None = None, *, above: float | None = None) -> Any:
    """A number in [low, high], or greater than `above`. Lists are checked element by element."""
    return dataclasses.field(metadata={"low": low, "high": high, "above": above})


def one_of(*allowed: str, default: Any = dataclasses.MISSING) -> Any:
    """A word out of a fixed list. default: what an item of a list has that leaves it out."""
    return dataclasses.field(default=default, metadata={"one_of": allowed})


def family(members: Mapping[str, type]) -> Any:
    """A config group: its key `name` picks the dataclass that the rest is checked against."""
    return dataclasses.field(metadata={"family": members})


def near_match(word: str, known: Iterable[str]) -> str:
    """' Did you mean "x"?' or '' if nothing is near."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f' Did you mean "{close[0]}"?' if close else ""


def build(cls: type[T], tree: Any, path: str = "") -> T:
    """Build `cls` from a plain tree of dicts, lists and scalars.

    Raises ConfigError naming the key, what was given, and what is allowed.
    """
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{path or 'the config'} must be a group of keys, not {tree!r}.")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in tree:
        if key not in fields:
            raise ConfigError(
                f'Unknown key "{_join(path, str(key))}".{near_match(str(key), fields)} '
                f"Known here: {', '.join(sorted(fields))}."
            )
    missing = [_join(path, name) for name, f in fields.items() if name not in tree and f.default is dataclasses.MISSING]
    if missing:
        raise ConfigError(f"Missing: {', '.join(missing)}. Every key has its default in conf/; was a file edited?")
    hints = _hints(typing.cast(Any, cls))
    values = {name: _value(hints[name], f.metadata, tree[name], _join(path, name)) for name, f in fields.items()
              if name in tree}
    return cls(**values)


def build_family(members: Mapping[str, type], tree: Any, path: str = "") -> Any:
    """Build the member of a family that the tree's `name` picks."""
    name = str(tree.get("name") if isinstance(tree, Mapping) else tree)
    if name not in members:
        raise ConfigError(f"{path}.name = {name!r} is unknown.{near_match(name, members)} "
                          f"Known: {', '.join(sorted(members))}.")
    return build(members[name], tree, path)


def to_tree(value: Any) -> Any:
    """The plain tree that `build` takes back: dicts, lists, scalars."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_tree(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): to_tree(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_tree(v) for v in value]
    return value


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _value(hint: Any, metadata: Mapping[str, Any], value: Any, path: str) -> Any:
    if metadata.get("family") is not None:
        return build_family(metadata["family"], value, path)
    try:
        converted = _convert(hint, value, path)
    except ConfigError as error:
        allowed = _range(metadata)
        raise ConfigError(f"{str(error).removesuffix('.')}, {allowed}.") if allowed else error from error
    _check(metadata, converted, path)
    return converted


def _convert(hint: Any, value: Any, path: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _convert(next(a for a in args if a is not type(None)), value, path)
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, (list, tuple)):
            raise ConfigError(f"{path} = {value!r} must be a list, e.g. [a,b].")
        if args[-1] is not Ellipsis and len(value) != len(args):
            raise ConfigError(f"{path} = {value!r} must have {len(args)} values.")
        item_hints = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
        return tuple(_convert(h, v, f"{path}[{i}]") for i, (h, v) in enumerate(zip(item_hints, value, strict=True)))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path} = {value!r} must be a group of keys.")
        return {str(k): _convert(args[1], v, _join(path, str(k))) for k, v in value.items()}
    if dataclasses.is_dataclass(hint):
        if isinstance(value, typing.cast(type, hint)):
            return value
        return build(typing.cast(type, hint), value, path)
    return _scalar(hint, value, path)


def _scalar(hint: type, value: Any, path: str) -> Any:
    if hint is typing.Any:
        return value
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is float and is_number:
        return float(value)
    if hint is float and isinstance(value, str):  # YAML 1.1 reads 1e-4 as a word
        try:
            return float(value)
        except ValueError:
            pass
    if hint is int and is_number and float(value).is_integer():
        return int(value)
    if hint is bool and isinstance(value, bool):
        return value
    if hint is str and (isinstance(value, str) or is_number):
        return str(value)
    kind = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(hint, str(hint))
    raise ConfigError(f"{path} = {value!r} must be {kind}.")


def _check(metadata: Mapping[str, Any], value: Any, path: str) -> None:
    if value is None:
        return
    if isinstance(value, tuple):
        for i, item in enumerate(value):
            _check(metadata, item, f"{path}[{i}]")
        return
    allowed = metadata.get("one_of")
    if allowed is not None and value not in allowed:
        raise ConfigError(f"{path} = {value!r} is not one of: {', '.join(allowed)}.{near_match(str(value), allowed)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{path} = {value} must be a finite number.")
    low, high, above = metadata.get("low"), metadata.get("high"), metadata.get("above")
    is_low = (low is not None and value < low) or (above is not None and value <= above)
    if is_low or (high is not None and value > high):
        raise ConfigError(f"{path} = {value:g} must be {_range(metadata)}.")


def _range(metadata: Mapping[str, Any]) -> str:
    """"at least 1 and at most 4096"; empty where there is no bound."""
    words = {"low": "at least", "above": "greater than", "high": "at most"}
    return " and ".join(f"{word} {metadata[key]:g}" for key, word in words.items() if metadata.get(key) is not None)


def flat(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """{"optimizer": {"name": "adamw"}} -> {"optimizer.name": "adamw"}; lists and empty trees stay values."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{path}{key}.") if isinstance(value, Mapping) and value else {f"{path}{key}": value}
    return found
