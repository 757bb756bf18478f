"""Override lines in, a checked config out. A compose costs 42 ms, so it is done once per combination of what shapes the
config (groups, added and deleted keys); plain values are merged into the result."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, cast

from sweep.command_line import Known, explained
from sweep.config import RunConfig, from_tree, plain_tree, refuse_resolvers, train_part
from sweep.errors import ConfigError
from sweep.schema import flat

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig


@dataclass(slots=True, kw_only=True)
class _Composed:
    """What one combination of groups composes to, for cells that set the same plain values: they are written over
    those of the cell before."""

    config: DictConfig
    tree: dict[str, Any]  # resolved
    links: Mapping[str, str]  # keys that stand for another key's value ("${network_dim}"), and that key
    references: tuple[str, ...]  # keys that refer to others in any other way, which OmegaConf alone can read
    keys: tuple[str, ...]  # what the cells set
    run: RunConfig | None = None

    @property
    def is_train_only(self) -> bool:
        """Whether the cells differ in the training alone."""
        return not any(key.split(".")[0] in _RUN_PARTS for key in self.keys)


class Composer:
    """Composes cells. compose: override lines -> config without the `hydra` node. fixed: lines that all cells share."""

    def __init__(self, compose: Callable[[list[str]], DictConfig], loader: ConfigLoader, fixed: Sequence[str] = ()):
        from hydra.core.override_parser.overrides_parser import OverridesParser

        self._compose = compose
        self._loader = loader
        self._parser = OverridesParser.create(config_loader=loader)
        self._fixed = list(fixed)
        self._parsed: dict[str, Override] = {}
        self._is_group: dict[str, bool] = {}
        self._composed: dict[tuple[tuple[str, ...], tuple[str, ...]], _Composed | ConfigError] = {}
        self._merges: dict[tuple[Any, ...], list[bool]] = {}
        self._equal: dict[Any, Any] = {}
        self._known = Known("config")

    def tree(self, lines: Sequence[str]) -> dict[str, Any]:
        """The resolved config of one cell as a plain tree. lines: all overrides of the cell, in order."""
        return self._merge(lines)[1]

    def config(self, lines: Sequence[str]) -> RunConfig:
        """The typed config of one cell. Raises ConfigError, also for what Hydra can't compose."""
        composed, tree = self._merge(lines)
        if composed.run is None or not composed.is_train_only:
            composed.run = from_tree(tree)
        train = composed.run.train if not composed.is_train_only else train_part(tree)
        return replace(composed.run, train=self._shared(train))

    def _merge(self, lines: Sequence[str]) -> tuple[_Composed, dict[str, Any]]:
        from omegaconf import OmegaConf

        overrides = [self._override(line) for line in lines]
        merges = self._mergeable(overrides)
        shape = tuple(line for line, does_merge in zip(lines, merges, strict=True) if not does_merge)
        merged = [override for override, does_merge in zip(overrides, merges, strict=True) if does_merge]
        keys = tuple(override.key_or_group for override in merged)
        if (shape, keys) not in self._composed:
            # The first cell's values take part, so that a key that does not exist is Hydra's own error.
            self._composed[shape, keys] = self._compose_or_say_why(lines, keys)
        composed = self._composed[shape, keys]
        if isinstance(composed, ConfigError):
            raise composed
        values = {override.key_or_group: override.value() for override in merged}
        refuse_resolvers(values)
        tree = dict(composed.tree)
        for key, value in values.items():
            _put(tree, key.split("."), value)
        for key in composed.links:
            if key not in values:
                _put(tree, key.split("."), _followed(key, composed, values))
        references = [key for key in composed.references if key not in values]
        if references:
            for key, value in values.items():
                OmegaConf.update(composed.config, key, value, merge=True)
            for key in references:
                _put(tree, key.split("."), OmegaConf.select(composed.config, key))
        return composed, tree

    def _compose_or_say_why(self, lines: Sequence[str], keys: Sequence[str]) -> _Composed | ConfigError:
        """An error belongs to the combination, so that its other cells cost no compose either."""
        from hydra.errors import HydraException
        from omegaconf.errors import OmegaConfBaseException

        try:
            return _composed(self._compose(list(lines)), keys)
        except ConfigError as error:
            return error
        except (HydraException, OmegaConfBaseException) as error:  # e.g. a setting that another option does not have
            return ConfigError(explained(error, self._known))

    def _mergeable(self, overrides: Sequence[Override]) -> list[bool]:
        """Which overrides are plain values of keys that no other one touches: Hydra applies those after composing."""
        kinds = tuple((o.type, o.key_or_group, o.package, isinstance(o.value(), dict)) for o in overrides)
        if kinds not in self._merges:
            self._merges[kinds] = [self._can_merge(override, overrides) for override in overrides]
        return self._merges[kinds]

    def _can_merge(self, override: Override, others: Sequence[Override]) -> bool:
        """A plain value of a key that no other override touches: Hydra applies those after composing, in order."""
        from hydra.core.override_parser.types import OverrideType

        key = override.key_or_group
        if (override.type is not OverrideType.CHANGE or override.package is not None or self._names_group(key)
                or isinstance(override.value(), dict) or override.input_line in self._fixed):
            return False
        value = override.value()
        if isinstance(value, list) or (isinstance(value, str) and "$" in value):
            return False
        return not any(other is not override and _overlap(key, other.key_or_group) for other in others
                       if not self._names_group(other.key_or_group))

    def _override(self, line: str) -> Override:
        if line not in self._parsed:
            self._parsed[line] = self._parser.parse_override(line)
        return self._parsed[line]

    def _names_group(self, key: str) -> bool:
        if key not in self._is_group:
            self._is_group[key] = bool(self._loader.get_group_options(key))
        return self._is_group[key]

    def _shared(self, config: Any) -> Any:
        """The config with each group's part replaced by an equal one that was seen before: 10,000 cells share them."""
        parts = {f.name: getattr(config, f.name) for f in fields(config)}
        shared = {}
        for name, part in parts.items():
            try:
                shared[name] = self._equal.setdefault((type(part), part), part)
            except TypeError:  # not hashable
                shared[name] = part
        return replace(config, **shared)


def _composed(config: DictConfig, keys: Sequence[str]) -> _Composed:
    from omegaconf import OmegaConf

    raw = OmegaConf.to_container(config, resolve=False)
    refuse_resolvers(raw)
    assert isinstance(raw, dict)
    links, references = _references(flat(cast("dict[str, Any]", raw)))
    return _Composed(config=config, tree=plain_tree(config), links=links, references=references, keys=tuple(keys))


def _references(raw: Mapping[str, Any]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Keys whose value is another key's and nothing else, which are followed without OmegaConf's parser (2 ms each);
    and the other keys that refer to something. raw: unresolved values by key."""
    found = {key: value for key, value in raw.items() if "${" in str(value)}
    links: dict[str, str] = {}
    plain = {*raw} - {*found}
    num_links = -1
    while len(links) > num_links:  # a link may lead to a link
        num_links = len(links)
        for key, value in found.items():
            match = re.fullmatch(r"\$\{(\w[\w.]*)\}", value) if isinstance(value, str) else None
            if match and match[1] in plain:
                links[key] = match[1]
                plain.add(key)
    return links, tuple(key for key in found if key not in links)


def _followed(key: str, composed: _Composed, values: Mapping[str, Any]) -> Any:
    while key in composed.links and key not in values:
        key = composed.links[key]
    if key in values:
        return values[key]
    node: Any = composed.tree
    for part in key.split("."):
        node = node[part]
    return node


def _put(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set a value deep in a tree; what lies on the way is copied first, as it is shared between cells."""
    if len(path) > 1:
        tree[path[0]] = dict(tree[path[0]])
        _put(tree[path[0]], path[1:], value)
    else:
        tree[path[0]] = value


_RUN_PARTS = tuple(f.name for f in fields(RunConfig) if f.name != "train")


def _overlap(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")
