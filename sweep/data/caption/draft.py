"""The captions as they would be, beside what is there; written only when asked to, with a backup. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sweep.data.caption.edits import Edits
from sweep.data.captions import read_caption
from sweep.data.images import IMAGE_SUFFIXES, open_upright
from sweep.errors import DataError
from sweep.files import write_text

if TYPE_CHECKING:
    from PIL.Image import Image

Existing = Literal["keep", "replace", "append"]
Describe = Callable[["Image"], str]


@dataclass(frozen=True, slots=True)
class Draft:
    """One photo's caption: as it is (None = there is none) and as it would be."""

    photo: Path
    file: Path
    before: str | None
    after: str

    @property
    def is_change(self) -> bool:
        return self.after != self.before


def photos_of(folder: Path) -> list[Path]:
    """Every photo of a folder and of its subfolders, but for `reg`: regularisation images have no trigger.

    Raises DataError.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder. Give the one with your photos.")
    found = [path for path in sorted(folder.rglob("*"))
             if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() and not path.name.startswith(".")
             and path.relative_to(folder).parts[0] != "reg"]
    if not found:
        raise DataError(f"{folder} holds no photos ({', '.join(IMAGE_SUFFIXES)}).")
    return found


def drafts(photos: Sequence[Path], describers: Sequence[Describe], edits: Edits, *, extension: str,
           existing: Existing) -> Iterator[Draft]:
    """One after the other, as the models come to them.

    existing: what becomes of a caption that is there: kept (and edited), replaced by the models', or those are put
    behind it. Raises DataError for a caption or photo that can't be read.
    """
    for photo in photos:
        before, problem = read_caption(photo, extension, all_lines=True)
        if problem and "is empty" not in problem:
            raise DataError(f"{photo}: {problem}")
        text = "" if before is None or (existing == "replace" and describers) else before
        if describers and (before is None or existing != "keep"):
            said = [describe(_opened(photo)) for describe in describers]
            text = ", ".join(part for part in (text, *said) if part)
        after = "\n".join(edits.apply(line) for line in text.splitlines()) or edits.apply("")
        if before is not None or describers:
            yield Draft(photo, photo.with_suffix(extension), before, after)


def write(draft: Draft) -> Path | None:
    """Write a draft; returns the backup of what was there. Raises DataError if it would be empty."""
    if not draft.after.strip():
        raise DataError(f"{draft.photo}: nothing would be left of its caption; prune less.")
    backup = None
    if draft.file.exists():
        backup = _free_name(draft.file)
        backup.write_bytes(draft.file.read_bytes())
    write_text(draft.file, draft.after + "\n")
    return backup


def _free_name(file: Path) -> Path:
    """`001.txt.bak`, or .bak2, .bak3: no backup is ever overwritten."""
    number = 1
    while (path := file.with_name(f"{file.name}.bak{number if number > 1 else ''}")).exists():
        number += 1
    return path


def _opened(photo: Path) -> Image:
    try:
        return open_upright(photo)
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{photo}: not a readable image ({error})") from error
