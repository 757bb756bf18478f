"""What every launcher starts: for one pack, cache -> train -> generate -> score.

    python -m sweep.worker SPEC.json ...     these packs, one after the other
    python -m sweep.worker -                 packs whose paths come on standard input; the base stays loaded

A worker and the conductor meet only in files: the pack's spec, the trials' folders, and a control file that may say
"stop". Everything here can be killed at any moment and run again; SIGTERM, as a cluster sends it before it takes a
machine back, saves first and ends with exit code 143.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from sweep.files import read_json
from sweep.stopping import STOP_ASKED
from sweep.trial import pack_spec_from_json
from sweep.worker.process import Worker, import_libraries

TERMINATED = 143  # the exit code of a process that was asked to end: 128 + SIGTERM


def main(arguments: Sequence[str]) -> int:
    """Run the packs named on the command line or on standard input. Answers each on standard output when it is done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the conductor's to understand
    for name in ("SIGTERM", "SIGUSR2"):  # SLURM sends the latter to a job's children too when its time is nearly over
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: STOP_ASKED.set())
    answers, sys.stdout = sys.stdout, sys.stderr  # a library's stray print must not be taken for an answer
    worker = Worker(prepare=import_libraries)
    for path in _paths_from_stdin() if list(arguments) == ["-"] else arguments:
        worker.run(pack_spec_from_json(read_json(Path(path))), Path(path))
        if STOP_ASKED.is_set():
            return TERMINATED
        print(path, file=answers, flush=True)
    return 0


def _paths_from_stdin() -> Iterator[str]:
    """Lines up to "exit". A conductor that dies closes the pipe without it: then this process ends at once, so that a
    new conductor's worker never shares a trial's folder with an orphan."""
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line.strip())
            if line.strip() == "exit":
                return
        os._exit(1)

    threading.Thread(target=read, daemon=True).start()
    while (line := lines.get()) != "exit":
        yield line


if __name__ == "__main__":
    exit_code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)  # everything is in files: taking the libraries apart would only keep the conductor waiting
