"""How a worker is told to save and end: by its sweep's control file, or by the system."""

from __future__ import annotations

import time
from pathlib import Path

from sweep.files import read_json

_SLICE_S = 0.1


class StopFlag:
    """A flag that a signal handler may set. `threading.Event` is none: to set it takes a lock, and a signal may come
    while the thread that it interrupts holds that very lock."""

    def __init__(self) -> None:
        self._is_set = False

    def set(self) -> None:
        self._is_set = True

    def clear(self) -> None:
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, most_s: float) -> None:
        """Returns when it is set, or after so many seconds."""
        until_s = time.monotonic() + most_s
        while not self._is_set and (left_s := until_s - time.monotonic()) > 0:
            time.sleep(min(left_s, _SLICE_S))  # which goes on after a signal's handler


STOP_ASKED = StopFlag()
"""Set when the system asks this process to end (SIGTERM): as good as a control file that says stop."""


class Stopped(Exception):
    """Asked to stop; everything is saved."""


def is_stop_asked(control: Path) -> bool:
    return STOP_ASKED.is_set() or (control.exists() and bool(read_json(control).get("command") == "stop"))
