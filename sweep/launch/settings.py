"""Where workers run."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from functools import cache

from sweep.schema import bounds, one_of

MAX_CPU_WORKERS = 4
"""Without a GPU: two workers of one thread outrun one of two threads, but each holds the base in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """Worker processes on this machine, one per GPU, or on a CPU a few that share its cores out."""

    name: str
    devices: int | None = bounds(1, 1024)
    # how many workers at a time; on GPUs worker i gets cuda:i; null = all GPUs, without one the cores, at most 4
    device: str = one_of("auto", "cpu", "cuda")
    # auto = cuda if there is one
    threads: int | None = bounds(1, 4096)
    # CPU threads of each worker; null = the machine's cores shared out evenly

    @property
    def num_workers(self) -> int:
        if self.devices is not None:
            return self.devices
        num_gpus = 0 if self.device == "cpu" else count_gpus()
        return num_gpus or (1 if self.device == "cuda" else min(os.cpu_count() or 1, MAX_CPU_WORKERS))


@cache
def count_gpus() -> int:
    """GPUs that a worker could use, asked of the driver: torch is not imported here."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    try:
        told = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in told.splitlines())


LAUNCHERS: dict[str, type] = {"local": Local}
