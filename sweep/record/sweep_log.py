"""results/<sweep>/sweep.log: what a sweep skipped, changed or lost, one line each."""

from __future__ import annotations

import time
from pathlib import Path

SWEEP_LOG = "sweep.log"


def note(sweep_dir: Path, text: str) -> None:
    """Add one line with the time in UTC."""
    sweep_dir.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with (sweep_dir / SWEEP_LOG).open("a", encoding="utf-8") as file:
        file.write(f"{stamp} {' '.join(text.split())}\n")
