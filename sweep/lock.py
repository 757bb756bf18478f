"""Folders that one process at a time may write: a lock names its holder, and a dead holder does not keep it.

A lock is a folder `NAME.lock` with one file, `holder.json`. It is made under another name and then renamed: a rename
is whole or not at all and never replaces a folder that holds something, on every file system and also where hard links
are missing (exFAT, network mounts). So a lock that can be seen is complete.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from types import TracebackType

from sweep.errors import LockedError
from sweep.files import patiently, read_json

_HOLDER = "holder.json"
_CLEARING_S = 10.0  # how long another process may take to clear a dead holder's lock; it needs milliseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The process that holds a lock."""

    pid: int
    process_started: float  # seconds since the epoch; tells it from a later process with the same pid
    host: str
    started: str  # when it took the lock, for people
    command: str
    token: str  # tells this lock from every other one, also of the same process
    owner: str = ""  # on whose behalf: of a trial's lock, the sweep whose conductor started the worker
    ticks: str = ""  # the boot and the process's start in clock ticks since then, see `_ticks`; older locks lack it


class FolderLock:
    """A lock that is held until `release`, or until the end of a `with` block."""

    def __init__(self, path: Path, token: str):
        self._path = path
        self._token = token

    def release(self) -> None:
        """Give the folder free. A lock that is no longer this one's (deleted by hand, taken by another) stays."""
        with contextlib.suppress(FileNotFoundError):
            holder = _read(self._path)
            if holder is not None and holder.token == self._token:
                _remove(self._path)

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.release()


def conductor_lock(sweep_dir: Path) -> FolderLock:
    """Hold a sweep against other conductors. Raises LockedError naming the process that runs it."""
    path = sweep_dir / "conductor.lock"
    return _held(path, lambda holder: (
        f"The sweep {sweep_dir.name!r} is being run by {_named(holder)}. Wait for it, stop it, or choose another "
        f"sweep.name. {_if_gone(path)}"))


def trial_lock(trial_dir: Path, owner: str = "") -> FolderLock:
    """Hold a trial's folder against other workers. Raises LockedError naming the process that trains it.

    owner: a sweep starts a trial again only when it knows its worker's end; so the owner's own lock that was left on
    another machine, where no process can be asked, is a dead one's.
    """
    path = _trial_lock_path(trial_dir)
    return _held(path, lambda holder: (
        f"The trial {trial_dir.name} is being trained by {_named(holder)}. Wait for it or stop it. {_if_gone(path)}"),
        owner)


def try_trial_lock(trial_dir: Path) -> FolderLock | None:
    """Hold a trial's folder against other workers; None if another process trains it."""
    taken = _take(_trial_lock_path(trial_dir))
    return taken if isinstance(taken, FolderLock) else None


def try_lock(path: Path) -> FolderLock | None:
    """Hold the lock of that path; None if another process holds it."""
    taken = _take(path)
    return taken if isinstance(taken, FolderLock) else None


def cache_lock(folder: Path) -> FolderLock:
    """Hold a folder of the cache while it is filled. Raises LockedError naming the process that fills it."""
    path = folder / "fill.lock"
    return _held(path, lambda holder: f"{folder} is being filled by {_named(holder)}. {_if_gone(path)}")


def _trial_lock_path(trial_dir: Path) -> Path:
    return trial_dir / "worker.lock"


def _named(holder: Holder) -> str:
    return f"process {holder.pid} on {holder.host} since {holder.started} ({holder.command})"


def _if_gone(path: Path) -> str:
    return f"If that machine is gone for good, delete the folder {path}."


def _held(path: Path, refusal: Callable[[Holder], str], owner: str = "") -> FolderLock:
    taken = _take(path, owner)
    if isinstance(taken, Holder):
        raise LockedError(refusal(taken))
    return taken


def _take(path: Path, owner: str = "") -> FolderLock | Holder:
    """The lock, or the live process that holds it. A holder that died on this machine is taken over from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    me = replace(_this_process(), owner=owner)
    give_up_s = time.monotonic() + _CLEARING_S
    while not _create(path, me):
        try:
            holder = _read(path)
        except FileNotFoundError:  # released just now, or a folder emptied by hand, which only Windows minds
            with contextlib.suppress(OSError):
                path.rmdir()
            continue
        if holder is not None and _is_alive(holder, owner):
            return holder
        clearing = _clear(path, owner)
        if clearing is not None and time.monotonic() > give_up_s:
            return clearing
    return FolderLock(path, me.token)


def _clear(path: Path, owner: str) -> Holder | None:
    """Remove a dead holder's lock, or say who is at it.

    Under a lock of its own: of two processes that judged the same holder dead, the slower one would else remove the
    live lock of the one that took over. Only who clears removes a lock that is not its own, so what is read dead here
    stays the same lock until it is gone.
    """
    guard = _take(path.with_name(f"{path.name}.clearing"))
    if isinstance(guard, Holder):
        time.sleep(0.01)
        return guard
    with guard, contextlib.suppress(FileNotFoundError):
        holder = _read(path)
        if holder is None or not _is_alive(holder, owner):
            _remove(path)
    return None


def _create(path: Path, me: Holder) -> bool:
    """Put a lock at `path` unless there is one."""
    made = path.with_name(f"{path.name}.{me.token}")
    made.mkdir(exist_ok=True)
    (made / _HOLDER).write_text(json.dumps(asdict(me)), encoding="utf-8")
    try:
        patiently(lambda: made.rename(path))
        return True
    except OSError as error:
        shutil.rmtree(made, ignore_errors=True)
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            return False
        raise


def _remove(path: Path) -> None:
    """Take a lock away: at once by a rename, as one without its file would look like no lock at all."""
    gone = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    patiently(lambda: path.rename(gone))
    shutil.rmtree(gone, ignore_errors=True)


def _read(path: Path) -> Holder | None:
    """Who holds a lock; None if its file can't be understood (a power cut). Raises FileNotFoundError without a lock."""
    try:
        return Holder(**read_json(path / _HOLDER))
    except (ValueError, TypeError):
        return None


def _this_process() -> Holder:
    import psutil

    return Holder(pid=os.getpid(), process_started=psutil.Process().create_time(), host=socket.gethostname(),
                  started=datetime.now().isoformat(timespec="seconds"), command=" ".join(sys.argv)[:200],
                  token=secrets.token_hex(4), ticks=_ticks(os.getpid()))


def _ticks(pid: int) -> str:
    """What tells a process from every later one with its pid, whatever the system's clock is set to. Empty where the
    system does not say: Linux alone makes up a process's time of start from the clock; others note it at the start."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    if not boot.exists():
        return ""
    stat = Path(f"/proc/{pid}/stat").read_bytes()
    start = int(stat.rpartition(b")")[2].split()[19])  # field 22; the second one, a name, may hold blanks
    return f"{boot.read_text(encoding='ascii').strip()} {start}"


def _is_alive(holder: Holder, owner: str) -> bool:
    """A holder that can't be asked, because it is on another machine or another user's, counts as alive. A process id
    that was given out again is told by its time of start."""
    import psutil

    if holder.host != socket.gethostname():
        return not owner or holder.owner != owner
    try:
        process = psutil.Process(holder.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        if holder.ticks and (ticks := _ticks(holder.pid)):
            return ticks == holder.ticks
        return abs(process.create_time() - holder.process_started) < 1  # where clocks differ by parts of a second
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return False
    except psutil.AccessDenied:
        return True
