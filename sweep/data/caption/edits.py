"""What is done to captions: words replaced, tags and phrases pruned, a beginning put in front. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sweep.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Edits:
    """Applied in this order. replace: (old, new) of whole words. prune: tags or phrases that are taken out. prefix: put
    in front unless it stands there."""

    replace: tuple[tuple[str, str], ...] = ()
    prune: tuple[str, ...] = ()
    prefix: str = ""

    def apply(self, caption: str) -> str:
        for old, new in self.replace:
            caption = _whole(old).sub(lambda _, new=new: new, caption)  # type: ignore[misc]
        for phrase in self.prune:
            caption = _pruned(caption, phrase)
        caption = _tidy(caption)
        if self.prefix and not caption.lower().startswith(self.prefix.rstrip(",. ").lower()):
            caption = f"{self.prefix} {caption}".strip()
        return caption


def read_list(given: Sequence[str]) -> tuple[str, ...]:
    """Entries between commas, or one a line of a file. Raises DataError."""
    entries: list[str] = []
    for each in given:
        path = Path(each)
        if path.suffix == ".txt":
            if not path.is_file():
                raise DataError(f"{each}: there is no such file. Give the entries themselves, between commas, or a "
                                "file with one on each line.")
            entries += path.read_text(encoding="utf-8-sig").splitlines()
        else:
            entries += each.split(",")
    return tuple(entry.strip() for entry in entries if entry.strip() and not entry.startswith("#"))


def read_pairs(given: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """old=new, each. Raises DataError."""
    pairs = []
    for entry in read_list(given):
        old, sign, new = entry.partition("=")
        if not sign or not old.strip():
            raise DataError(f"--replace {entry!r}: write old=new, e.g. \"t-shirt=tee\".")
        pairs.append((old.strip(), new.strip()))
    return tuple(pairs)


def _pruned(caption: str, phrase: str) -> str:
    """A tag of its own goes whole; inside a sentence the words go, with the "with", "a" or "and" that led to them."""
    tags = [tag for tag in caption.split(",") if _plain(tag) != _plain(phrase)]
    lead = r"(?:\b(?:with|and|has|having)\s+)?(?:\b(?:a|an|his|her|their|its)\s+)?"
    return ",".join(re.sub(lead + _whole(phrase).pattern, "", tag, flags=re.IGNORECASE) for tag in tags)


def _whole(phrase: str) -> re.Pattern[str]:
    """The phrase as whole words, a space in it for an underscore too."""
    words = [re.escape(word) for word in re.split(r"[\s_]+", phrase)]
    return re.compile(r"(?<![\w-])" + r"[\s_]+".join(words) + r"(?![\w-])", re.IGNORECASE)


def _plain(tag: str) -> str:
    return tag.strip().lower().replace("_", " ")


def _tidy(caption: str) -> str:
    parts = (" ".join(part.split()) for part in caption.split(","))
    return ", ".join(part for part in parts if part)
