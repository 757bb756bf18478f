"""What a SLURM job runs: one pack in a child process, until it ends, is told to save, or is left alone.

submitit pickles a `PackJob` for its job; no file of ours is read that way.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.files import write_json

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

LEFT_ALONE_S = 600.0  # without a sign of life from its conductor a job ends
_LOOK_S = 1.0
_TERMINATED = 143


def exit_file(spec: Path) -> Path:
    """Where a job says how its worker ended: {"exit_code"}."""
    return spec.with_name(f"{spec.name}.exit.json")


@dataclass(slots=True)
class PackJob:
    """spec: the pack's. sign_of_life: a file whose content the conductor changes now and then. wait_s: how long the
    worker may take to save."""

    spec: str
    sign_of_life: str
    wait_s: float
    left_alone_s: float = LEFT_ALONE_S
    child: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def __call__(self) -> int:
        self.child = subprocess.Popen([sys.executable, "-m", "sweep.worker", self.spec], stdin=subprocess.DEVNULL)
        exit_code = self._followed()
        if exit_code == _TERMINATED and self._is_watched():  # the cluster's SIGTERM reached the worker itself
            self._requeue()
        write_json(exit_file(Path(self.spec)), {"exit_code": exit_code})
        return exit_code

    def checkpoint(self) -> DelayedSubmission:
        """submitit calls this when the time is nearly over, and puts the job into the queue again."""
        from submitit.helpers import DelayedSubmission

        self._end()
        return DelayedSubmission(PackJob(self.spec, self.sign_of_life, self.wait_s, self.left_alone_s))

    def _followed(self) -> int:
        assert self.child is not None
        seen, seen_s = self._sign(), time.monotonic()
        while self.child.poll() is None:
            time.sleep(_LOOK_S)
            sign = self._sign()
            if sign != seen:
                seen, seen_s = sign, time.monotonic()
            elif time.monotonic() - seen_s > self.left_alone_s:
                print("no sign of life from the conductor: saving and ending", flush=True)
                self._end()
                return 1
        return int(self.child.returncode)

    def _end(self) -> None:
        if self.child is None:
            return
        self.child.terminate()
        try:
            self.child.wait(self.wait_s)
        except subprocess.TimeoutExpired:
            self.child.kill()

    def _is_watched(self) -> bool:
        return bool(self._sign())

    def _sign(self) -> str:
        try:
            return Path(self.sign_of_life).read_text()
        except OSError:
            return ""

    def _requeue(self) -> None:
        """Preempted. SLURM queues the job again by itself or, where it only cancels, on our word; both kill us."""
        time.sleep(self.wait_s)
        subprocess.run(["scontrol", "requeue", os.environ.get("SLURM_JOB_ID", "")], check=False)
        time.sleep(self.wait_s)
