"""A user's own words beside the program's: notes.jsonl in a sweep's or a trial's folder. Only ever added to."""

from __future__ import annotations

import time
from pathlib import Path

from sweep.files import append_jsonl, read_jsonl
from sweep.redact import without_secrets

NOTES = "notes.jsonl"


def add_note(folder: Path, text: str) -> None:
    """Append one note to a sweep's or a trial's folder."""
    append_jsonl(folder / NOTES, {"written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                                  "text": without_secrets(text.strip())})


def read_notes(folder: Path) -> list[str]:
    """Oldest first."""
    return [str(row["text"]) for row in read_jsonl(folder / NOTES)]
