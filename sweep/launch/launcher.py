"""What every launcher promises, and which one a config asks for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from sweep.launch.settings import Local, Ray, Slurm


class Launcher(Protocol):
    """Runs packs somewhere. A pack is a spec file; its results appear in its trials' folders.

    Contract: `start` is called only while `num_free` > 0 and does not raise for a worker that died; every started pack
    is reported by `poll` exactly once, with None or the reason why its worker ended early, and its slot is free then;
    after `close` no worker runs any more. Ctrl-C in the terminal does not reach a worker. A worker whose conductor was
    killed ends by itself.
    """

    @property
    def num_free(self) -> int: ...

    def device_of_next(self) -> tuple[str, int]:
        """(device, CPU threads) of the worker that the next `start` will use."""

    def start(self, spec: Path) -> None: ...

    def poll(self) -> Sequence[tuple[Path, str | None]]:
        """Packs that ended since the last call."""

    def stop(self) -> None:
        """The sweep is asked to stop: packs that still wait in a queue are taken out of it, and `poll` reports them.
        Those that run end by themselves, as their control file says."""

    def close(self) -> None:
        """End all workers; the ones that still run are killed."""


def make_launcher(config: Local | Ray | Slurm, sweep_dir: Path) -> Launcher:
    """The launcher of a config; logs of workers go into the sweep's folder."""
    if isinstance(config, Ray):
        from sweep.launch.ray import RayLauncher

        return RayLauncher(config, sweep_dir)
    if isinstance(config, Slurm):
        from sweep.launch.slurm import SlurmLauncher

        return SlurmLauncher(config, sweep_dir)
    from sweep.launch.local import LocalLauncher

    return LocalLauncher(config, sweep_dir)
