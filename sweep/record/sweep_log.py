"""results/<sweep>/sweep.log: what a sweep skipped, changed or lost, one line each."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from sweep.redact import without_secrets

SWEEP_LOG = "sweep.log"


def note(sweep_dir: Path, text: str) -> None:
    """Add one line with the time in UTC, unless the log holds one of the same text: a sweep that is started again
    skips the same photos again."""
    notes(sweep_dir, [text])


def notes(sweep_dir: Path, texts: Iterable[str]) -> None:
    """Add a line for each text that the log does not hold."""
    path = sweep_dir / SWEEP_LOG
    known = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    said = {line.partition(" ")[2] for line in known}
    lines = dict.fromkeys(without_secrets(" ".join(text.split())) for text in texts)
    new = [line for line in lines if line not in said]
    if not new:
        return
    sweep_dir.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with path.open("a", encoding="utf-8") as file:
        file.writelines(f"{stamp} {line}\n" for line in new)
