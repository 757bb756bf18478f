"""Which values an override sweeps over. Hydra's own glob sees no subfolders and puts alex_lora10 before alex_lora2."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sweep.errors import ConfigError

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override


def values_of(override: Override, loader: ConfigLoader) -> list[str]:
    """The swept values. Those of a glob are files of subfolders too, alex_lora2 before alex_lora10.

    Raises ConfigError for a glob that matches nothing.
    """
    from hydra.core.override_parser.types import Glob

    glob = override.value()
    if not isinstance(glob, Glob):
        return list(override.sweep_string_iterator())
    names = list(_options(override.key_or_group, loader))
    found = [name for name in names if _matches(name, glob.include) and not _matches(name, glob.exclude)]
    if not found:
        raise ConfigError(f"{override.input_line}: no file of conf/{override.key_or_group} matches. There are: "
                          f"{', '.join(sorted(names, key=_natural)) or 'none'}.")
    return sorted(found, key=_natural)


def _options(group: str, loader: ConfigLoader, folder: str = "") -> Iterator[str]:
    """A config group's files, those of its subfolders as FOLDER/NAME."""
    from hydra.core.object_type import ObjectType

    yield from (folder + name for name in loader.get_group_options(group, results_filter=ObjectType.CONFIG))
    for name in loader.get_group_options(group, results_filter=ObjectType.GROUP):
        yield from _options(f"{group}/{name}", loader, f"{folder}{name}/")


def _matches(name: str, patterns: Sequence[str]) -> bool:
    """A star stands for a part of a name, not for folders."""
    return any(name.count("/") == pattern.count("/") and fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
