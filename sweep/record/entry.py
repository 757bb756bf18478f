"""What was asked: a sweep's `sweep.yaml`, written when it starts and read by every view of the record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep.errors import ConfigError
from sweep.files import write_text
from sweep.schema import build, to_tree


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepEntry:
    """One sweep's question and circumstances.

    question: the fixed settings that a reader of the diary wants to see, key -> plain value.
    started: ISO 8601 with time zone, of the first start; sorts the collected diary.
    dataset: the folder of photos as the user gave it.
    commit: of this program; None outside a repository.
    note: the user's own words, kept as they are.
    """

    name: str
    command: str
    started: str
    question: dict[str, Any]
    swept_keys: tuple[str, ...]
    trigger: str | None
    class_noun: str | None
    base_model: str
    dataset: str
    num_photos: int
    hardware: str
    versions: dict[str, str]
    commit: str | None
    note: str

    @property
    def subject_words(self) -> str:
        """What to write in a prompt for the subject: "alexq man"."""
        return " ".join(word for word in (self.trigger, self.class_noun) if word)


def write_entry(sweep_yaml: Path, entry: SweepEntry) -> None:
    """Write `sweep.yaml` atomically."""
    import yaml

    write_text(sweep_yaml, yaml.safe_dump(to_tree(entry), sort_keys=False, allow_unicode=True, width=110))


def read_entry(sweep_yaml: Path) -> SweepEntry:
    """Read `sweep.yaml` back. Raises ConfigError naming the file and the key that can't be read."""
    import yaml

    try:
        tree = yaml.safe_load(sweep_yaml.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{sweep_yaml} can't be read: {error}. Start the sweep again to write it anew.") from error
    try:
        return build(SweepEntry, tree)
    except ConfigError as error:
        raise ConfigError(f"{sweep_yaml}: {error}") from error
