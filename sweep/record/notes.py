"""results/<sweep>/notes.jsonl: what people wrote about a sweep or a trial. Only ever added to."""

from __future__ import annotations

import time
from pathlib import Path

from sweep.files import append_jsonl, read_jsonl

NOTES = "notes.jsonl"


def add_note(sweep_dir: Path, text: str, train_id: str = "") -> None:
    """Append one note. train_id: empty = about the whole sweep."""
    append_jsonl(sweep_dir / NOTES, {"written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                                     "train_id": train_id, "text": text.strip()})


def read_notes(sweep_dir: Path) -> dict[str, list[str]]:
    """By train_id ("" = the sweep's own), oldest first."""
    notes: dict[str, list[str]] = {}
    for row in read_jsonl(sweep_dir / NOTES):
        notes.setdefault(str(row["train_id"]), []).append(str(row["text"]))
    return notes
