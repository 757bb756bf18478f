"""Worker processes on this machine, kept alive from pack to pack."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

from sweep.launch.settings import Local

_LAST_WORDS_S = 5.0  # how long the answers of a worker that ended may take to arrive
_EXIT_S = 10.0  # how long an idle worker may take to end by itself


class LocalLauncher:
    """One worker process per slot, fed through its standard input."""

    def __init__(self, config: Local, log_dir: Path):
        self._config = config
        self._log_dir = log_dir
        num_workers = config.num_workers
        self._slots: list[_Slot] = [_Slot(index, log_dir / f"worker-{index}.log") for index in range(num_workers)]
        self._num_threads = config.threads or max(1, (os.cpu_count() or 1) // num_workers)

    @property
    def num_free(self) -> int:
        return sum(slot.running is None for slot in self._slots)

    def device_of_next(self) -> tuple[str, int]:
        return f"{self._config.device}:{self._next().index}", self._num_threads

    def start(self, spec: Path) -> None:
        self._next().send(spec, self._num_threads)

    def poll(self) -> list[tuple[Path, str | None]]:
        return [ended for slot in self._slots if (ended := slot.poll()) is not None]

    def stop(self) -> None:
        pass  # every pack has its worker

    def close(self) -> None:
        for slot in self._slots:
            slot.close()

    def _next(self) -> _Slot:
        return next(slot for slot in self._slots if slot.running is None)


class _Slot:
    """A place for one worker process, started when it is first needed and again after it died."""

    def __init__(self, index: int, log: Path):
        self.index = index
        self.running: Path | None = None
        self._log = log
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.Queue[str] = queue.Queue()
        self._reader: threading.Thread | None = None

    def send(self, spec: Path, num_threads: int) -> None:
        if self._process is None or self._process.poll() is not None:
            self._process = self._spawn(num_threads)
        self.running = spec
        with contextlib.suppress(OSError):  # it died this very moment; `poll` will say so
            _say(self._process, str(spec))

    def poll(self) -> tuple[Path, str | None] | None:
        """The pack that ended, with the reason if its worker died; None while it runs."""
        if self.running is None or self._process is None:
            return None
        exit_code = self._process.poll()
        if exit_code is not None and self._reader is not None:
            self._reader.join(_LAST_WORDS_S)
        reason: str | None = None
        if not self._has_answered(self.running):
            if exit_code is None:
                return None
            reason = _reason(exit_code, self._log)
        ended, self.running = self.running, None
        return ended, reason

    def close(self) -> None:
        if self._process is None:
            return
        if self.running is None:
            with contextlib.suppress(OSError):
                _say(self._process, "exit")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_EXIT_S)
        self._process.kill()
        self._process.wait()
        _close_stdin(self._process)
        self._process = None

    def _has_answered(self, spec: Path) -> bool:
        """Whether the worker named the pack. Other lines are what a library said as it was loaded."""
        while True:
            try:
                if self._answers.get_nowait() == str(spec):
                    return True
            except queue.Empty:
                return False

    def _spawn(self, num_threads: int) -> subprocess.Popen[str]:
        if self._process is not None:
            _close_stdin(self._process)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "OMP_NUM_THREADS": str(num_threads), "TOKENIZERS_PARALLELISM": "false",
                       "PYTHONUTF8": "1"}
        with self._log.open("a", encoding="utf-8") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "sweep.worker", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                encoding="utf-8", errors="replace", env=environment, **_out_of_reach_of_ctrl_c())
        assert process.stdout is not None
        self._answers = queue.Queue()
        self._reader = threading.Thread(target=_forward, args=(process.stdout, self._answers), daemon=True)
        self._reader.start()
        return process


def _out_of_reach_of_ctrl_c() -> dict[str, Any]:
    """Popen's arguments for a process group of its own: a terminal sends Ctrl-C to its whole foreground group."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _say(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def _close_stdin(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(OSError):  # what a dead worker did not read
        process.stdin.close()


def _reason(exit_code: int, log: Path) -> str:
    why = ", as the system does to a process when memory runs out" if exit_code == -9 else ""
    return f"the worker process ended with exit code {exit_code}{why}; see {log}"


def _forward(lines: IO[str], answers: queue.Queue[str]) -> None:
    with lines:
        for line in lines:
            answers.put(line.rstrip("\r\n"))
