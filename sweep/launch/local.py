"""Worker processes on this machine, kept alive from pack to pack."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Protocol

from sweep.launch.settings import Local


class Launcher(Protocol):
    """Runs packs somewhere. A pack is a spec file; its results appear in its trials' folders.

    Contract: `start` is called only while `num_free` > 0; every started pack is reported by `poll` exactly once, with
    None or the reason why its worker ended early; after `close` no worker runs any more.
    """

    @property
    def num_free(self) -> int: ...

    def device_of_next(self) -> tuple[str, int]:
        """(device, CPU threads) of the worker that the next `start` will use."""

    def start(self, spec: Path) -> None: ...

    def poll(self) -> Sequence[tuple[Path, str | None]]:
        """Packs that ended since the last call."""

    def close(self) -> None:
        """End all workers; the ones that still run are killed."""


class LocalLauncher:
    """One worker process per slot, fed through its standard input."""

    def __init__(self, config: Local, log_dir: Path):
        self._config = config
        self._log_dir = log_dir
        self._slots: list[_Slot] = [_Slot(index, log_dir / f"worker-{index}.log") for index in range(config.devices)]
        self._num_threads = config.threads or max(1, (os.cpu_count() or 1) // config.devices)

    @property
    def num_free(self) -> int:
        return sum(slot.running is None for slot in self._slots)

    def device_of_next(self) -> tuple[str, int]:
        return f"{self._config.device}:{self._next().index}", self._num_threads

    def start(self, spec: Path) -> None:
        self._next().send(spec, self._num_threads)

    def poll(self) -> list[tuple[Path, str | None]]:
        return [ended for slot in self._slots if (ended := slot.poll()) is not None]

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

    def send(self, spec: Path, num_threads: int) -> None:
        if self._process is None or self._process.poll() is not None:
            self._process = self._spawn(num_threads)
        assert self._process.stdin is not None
        self._process.stdin.write(f"{spec}\n")
        self._process.stdin.flush()
        self.running = spec

    def poll(self) -> tuple[Path, str | None] | None:
        """The pack that ended, with the reason if its worker died; None while it runs."""
        if self.running is None or self._process is None:
            return None
        exit_code = self._process.poll()
        reason: str | None = None
        try:
            self._answers.get_nowait()
        except queue.Empty:
            if exit_code is None:
                return None
            reason = f"the worker process ended with exit code {exit_code}; see {self._log}"
        ended, self.running = self.running, None
        return ended, reason

    def close(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        assert self._process.stdin is not None
        if self.running is None:
            self._process.stdin.write("exit\n")
            self._process.stdin.close()
        else:
            self._process.kill()
        self._process.wait()

    def _spawn(self, num_threads: int) -> subprocess.Popen[str]:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "OMP_NUM_THREADS": str(num_threads), "TOKENIZERS_PARALLELISM": "false"}
        self._answers = queue.Queue()
        with self._log.open("a") as log:
            process = subprocess.Popen([sys.executable, "-m", "sweep.worker", "-"], stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        assert process.stdout is not None
        threading.Thread(target=_forward, args=(process.stdout, self._answers), daemon=True).start()
        return process


def _forward(lines: IO[str], answers: queue.Queue[str]) -> None:
    for line in lines:
        answers.put(line)
