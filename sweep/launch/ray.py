"""Packs as tasks of a Ray cluster. A task's process stays for the next pack, and with it the base.

Ray tries no task again: the conductor does, a bounded number of times and with the reason in the record.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
from pathlib import Path
from typing import Any

from sweep.errors import ConfigError
from sweep.launch.settings import Ray
from sweep.threads import spin_little

_CODE = Path(__file__).parents[2]


class RayLauncher:
    """Starts a cluster on this machine if the config names none."""

    def __init__(self, config: Ray, log_dir: Path):
        try:
            import ray
        except ImportError as error:
            raise ConfigError("launcher=ray needs Ray: pip install 'lora-sweep[ray]'.") from error
        self._ray, self._config = ray, config
        self._num_cpus = config.threads or 1
        self._num_gpus = 1 if config.device == "cuda" else 0
        self._is_mine = not ray.is_initialized()
        if self._is_mine:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            environment = {"PYTHONPATH": os.pathsep.join([str(_CODE), os.environ.get("PYTHONPATH", "")]),
                           "OMP_NUM_THREADS": str(self._num_cpus), "TOKENIZERS_PARALLELISM": "false"}
            spin_little(environment)
            try:
                ray.init(address=config.address, log_to_driver=False, include_dashboard=False,
                         configure_logging=False, runtime_env={"env_vars": environment})
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise ConfigError(f"launcher.address={config.address!r}: no Ray cluster answers there ({error}). Give "
                                  "HOST:PORT of `ray start --head`, or null to start one here.") from error
        # max_calls=0: Ray would end a GPU task's process, and with it the base, after every call.
        self._task = ray.remote(num_cpus=self._num_cpus, num_gpus=self._num_gpus, max_retries=0, max_calls=0)(_run_pack)
        self._num_slots = config.devices or self._room()
        self._running: dict[Any, Path] = {}

    @property
    def num_free(self) -> int:
        return self._num_slots - len(self._running)

    def device_of_next(self) -> tuple[str, int]:
        return f"{self._config.device}:0", self._num_cpus  # Ray shows a task its own GPU alone

    def start(self, spec: Path) -> None:
        began_file(spec).unlink(missing_ok=True)
        self._running[self._task.remote(str(spec), str(Path.cwd()))] = spec

    def poll(self) -> list[tuple[Path, str | None]]:
        if not self._running:
            return []
        ended, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        reports = [(self._running.pop(task), self._reason(task)) for task in ended]
        for spec, _ in reports:
            began_file(spec).unlink(missing_ok=True)
        return reports

    def stop(self) -> None:
        """On a shared disk a task's sign may be seen late: one that runs already takes it as `_run_pack` says."""
        for task, spec in self._running.items():
            if not began_file(spec).exists():
                self._ray.cancel(task)

    def close(self) -> None:
        for task in self._running:
            self._ray.cancel(task, force=True)
        if self._running:
            self._ray.wait(list(self._running), num_returns=len(self._running), timeout=60)
        self._running.clear()
        if self._is_mine:
            self._is_mine = False
            self._ray.shutdown()

    def _reason(self, task: Any) -> str | None:
        try:
            self._ray.get(task)
        except self._ray.exceptions.RayError as error:
            return f"the worker ended early, {type(error).__name__}: {str(error).strip().partition('. ')[0]}"
        return None

    def _room(self) -> int:
        """How many packs the cluster has room for. Raises ConfigError if it is none."""
        has = self._ray.cluster_resources()
        room = has.get("GPU", 0) if self._num_gpus else has.get("CPU", 0) / self._num_cpus
        if room < 1:
            with contextlib.suppress(Exception):
                self.close()
            raise ConfigError(f"The Ray cluster has {has.get('GPU', 0):g} GPUs and {has.get('CPU', 0):g} CPUs, and no "
                              f"room for a pack on launcher.device={self._config.device} with {self._num_cpus} CPUs.")
        return int(room)


def began_file(spec: Path) -> Path:
    """What a task leaves when its turn has come; Ray itself says so only where its dashboard runs."""
    return spec.with_name(f"{spec.name}.began")


_worker: Any = None  # of this task's process


def _run_pack(spec: str, folder: str) -> None:
    """What a task does. folder: where the conductor runs, as paths may be relative.

    Ray cancels a task that runs by an interrupt, which would be a training's error: it is taken for the wish to save
    and end.
    """
    global _worker
    from sweep.files import read_json
    from sweep.stopping import STOP_ASKED
    from sweep.trial import pack_spec_from_json

    os.chdir(folder)
    STOP_ASKED.clear()  # what ended this process's pack before is not meant for this one
    handler = signal.signal(signal.SIGINT, lambda *_: STOP_ASKED.set())
    try:
        began_file(Path(spec)).touch()
        if _worker is None:
            _worker = importlib.import_module("sweep.worker.process").Worker()  # by name, as others start it
        _worker.run(pack_spec_from_json(read_json(Path(spec))), Path(spec))
    finally:
        signal.signal(signal.SIGINT, handler)
