"""How a worker is told to save and end: by its sweep's control file, or by the system."""

from __future__ import annotations

import threading
from pathlib import Path

from sweep.files import read_json

STOP_ASKED = threading.Event()
"""Set when the system asks this process to end (SIGTERM): as good as a control file that says stop."""


class Stopped(Exception):
    """Asked to stop; everything is saved."""


def is_stop_asked(control: Path) -> bool:
    return STOP_ASKED.is_set() or (control.exists() and bool(read_json(control).get("command") == "stop"))
