"""A trial's train.log: tracebacks and warnings, from its worker, and from its conductor where the worker is gone."""

from __future__ import annotations

import time

from sweep.redact import without_secrets
from sweep.trial import TrialFolder


def say(folder: TrialFolder, text: str) -> None:
    """Add to the log, with the time in UTC and without secrets."""
    folder.root.mkdir(parents=True, exist_ok=True)
    with folder.log.open("a", encoding="utf-8") as log:
        log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {without_secrets(text.rstrip())}\n")
