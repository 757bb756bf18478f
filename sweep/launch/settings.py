"""Where workers run."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from functools import cache
from typing import Any

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Ray:
    """Packs as tasks of a Ray cluster whose machines all see the results folder, the photos and this code."""

    name: str
    address: str | None
    # of a running cluster, "auto" = the one of this machine; null = start one here that ends with the sweep
    devices: int | None = bounds(1, 4096)
    # packs at a time; null = as many as the cluster has GPUs (with device=cpu: CPUs / threads) when the sweep starts
    device: str = one_of("cpu", "cuda")
    threads: int | None = bounds(1, 4096)
    # CPUs of each pack; null = 1

    @property
    def num_workers(self) -> int:
        """For the plan; the cluster itself is asked when the sweep starts."""
        return self.devices or 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Slurm:
    """Packs as jobs of a SLURM cluster whose machines all see the results folder, the photos and this code."""

    name: str
    devices: int = bounds(1, 4096)
    # jobs at a time; those that start together are one array
    device: str = one_of("cpu", "cuda")
    # cuda = each job asks for one GPU
    threads: int | None = bounds(1, 4096)
    # CPUs of each job; null = 1
    memory_gb: float = bounds(above=0)
    time_limit_min: int = bounds(1)
    grace_s: int = bounds(10, 3600)
    # so long before its time is over a job is told to save, and put into the queue again
    max_timeouts: int = bounds(0, 1000)
    # how often a job may run out of time
    partition: str | None
    account: str | None
    options: dict[str, Any]
    # any others of sbatch

    @property
    def num_workers(self) -> int:
        return self.devices


LAUNCHERS: dict[str, type] = {"local": Local, "ray": Ray, "slurm": Slurm}
