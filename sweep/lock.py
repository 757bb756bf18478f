"""One conductor per sweep: a lock file that names its holder, and that a dead holder does not keep."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from sweep.errors import LockedError
from sweep.files import read_json


@contextmanager
def conductor_lock(sweep_dir: Path) -> Iterator[None]:
    """Hold `sweep_dir` against other conductors.

    Raises LockedError naming the process that holds it. A holder that died on this machine is taken over from.
    """
    path = sweep_dir / "conductor.lock"
    sweep_dir.mkdir(parents=True, exist_ok=True)
    while not _create(path):
        holder = _holder(path)
        if holder is not None and _is_alive(holder):
            raise LockedError(
                f"The sweep {sweep_dir.name!r} is being run by process {holder['pid']} on {holder['host']} since "
                f"{holder['started']} ({holder['command']}). Wait for it, stop it, or choose another sweep.name. If "
                f"that machine is gone for good, delete {path}.")
        path.unlink(missing_ok=True)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _create(path: Path) -> bool:
    import psutil

    me = {"pid": os.getpid(), "process_started": psutil.Process().create_time(), "host": socket.gethostname(),
          "started": datetime.now().isoformat(timespec="seconds"), "command": " ".join(sys.argv)[:200]}
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(me))
    try:
        os.link(temporary, path)  # appears whole or not at all, and never over another's
        return True
    except FileExistsError:
        return False
    finally:
        temporary.unlink()


def _holder(path: Path) -> dict[str, object] | None:
    try:
        holder: dict[str, object] = read_json(path)
        return holder
    except (FileNotFoundError, ValueError):
        return None


def _is_alive(holder: dict[str, object]) -> bool:
    """A holder on another machine can't be asked, so it counts as alive. A process id that was given out again is told
    by its time of start."""
    import psutil

    if holder["host"] != socket.gethostname():
        return True
    try:
        created = psutil.Process(int(str(holder["pid"]))).create_time()
    except psutil.NoSuchProcess:
        return False
    return abs(created - float(str(holder["process_started"]))) < 1
