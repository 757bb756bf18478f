"""results/<sweep>/sweep.log: what a sweep skipped, changed or lost, one line each."""

from __future__ import annotations

import time
from pathlib import Path

from sweep.record.redact import without_secrets

SWEEP_LOG = "sweep.log"


def note(sweep_dir: Path, text: str) -> None:
    """Add one line with the time in UTC, unless the log holds one of the same text: a sweep that is started again
    skips the same photos again."""
    text = without_secrets(" ".join(text.split()))
    path = sweep_dir / SWEEP_LOG
    if path.exists() and text in (line.partition(" ")[2] for line in path.read_text(encoding="utf-8").splitlines()):
        return
    sweep_dir.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{stamp} {text}\n")
