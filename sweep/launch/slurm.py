"""Packs as jobs of a SLURM cluster, through submitit. Needs no accounting: what squeue no longer lists has ended.

A job that is preempted or runs out of time saves, is queued again and goes on; only one that is lost for good comes
back to the conductor.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from sweep.errors import ConfigError
from sweep.files import append_jsonl, read_json, read_jsonl
from sweep.launch.settings import Slurm
from sweep.launch.slurm_job import PackJob, exit_file

_LOOK_S = 3.0  # between two looks at the queue
_SIGN_S = 30.0  # between two signs of life
_NUM_ABSENT = 2  # a job that is missing so many looks in a row has ended
_CANCEL_S = 120.0  # how long cancelled jobs may take to leave the queue
_ANSWER_S = 15.0  # how long a cancellation may take: a Ctrl-C waits for it


class SlurmLauncher:
    """Packs that start between two looks go into one array job."""

    def __init__(self, config: Slurm, log_dir: Path):
        try:
            import submitit
        except ImportError as error:
            raise ConfigError("launcher=slurm needs submitit: pip install 'lora-sweep[slurm]'.") from error
        self._config, self._dir = config, log_dir / "slurm"
        self._dir.mkdir(parents=True, exist_ok=True)
        self._sign = self._dir / "alive"
        self._waiting: list[Path] = []  # started, not yet submitted
        self._is_stopping = False
        self._jobs: dict[str, Path] = {}
        self._absent: dict[str, int] = {}
        self._looked_s = self._signed_s = float("-inf")
        _queue()  # raises ConfigError where there is no SLURM
        self._executor: Any = submitit.SlurmExecutor(folder=self._dir / "%j", max_num_timeout=config.max_timeouts)
        self._executor.update_parameters(**_parameters(config))
        self._cancel([row["job"] for row in read_jsonl(self._jobs_path)])  # of a conductor that died
        self._jobs_path.unlink(missing_ok=True)

    @property
    def num_free(self) -> int:
        return self._config.devices - len(self._waiting) - len(self._jobs)

    def device_of_next(self) -> tuple[str, int]:
        return f"{self._config.device}:0", self._config.threads or 1  # SLURM shows a job its own GPU alone

    def start(self, spec: Path) -> None:
        exit_file(spec).unlink(missing_ok=True)
        self._waiting.append(spec)

    def poll(self) -> list[tuple[Path, str | None]]:
        self._give_sign()
        if self._is_stopping:
            taken_back, self._waiting = self._waiting, []
            if taken_back:
                return [(spec, "it was not submitted any more") for spec in taken_back]
        if self._waiting:
            self._submit()
        if not self._jobs or time.monotonic() - self._looked_s < _LOOK_S:
            return []
        self._looked_s = time.monotonic()
        if self._is_stopping:
            self._take_back()
        queue = _queue()
        if queue is None:  # the controller does not answer, which says nothing about the jobs
            return []
        ended = []
        for job in self._jobs:
            self._absent[job] = 0 if job in queue else self._absent.get(job, 0) + 1
            if self._absent[job] >= _NUM_ABSENT:
                ended.append(job)
        return [(spec := self._jobs.pop(job), self._reason(job, spec)) for job in ended]

    def stop(self) -> None:
        self._is_stopping = True
        self._take_back()

    def close(self) -> None:
        self._waiting.clear()
        self._cancel(list(self._jobs))
        self._jobs.clear()
        self._sign.unlink(missing_ok=True)

    def _take_back(self) -> None:
        """Take what waits out of the queue. Those that were preempted or timed out and are queued again, too: they have
        saved. As they may come back at any moment, it is done at each look."""
        if self._jobs:
            _scancel("--state=PENDING", *self._jobs)

    def _submit(self) -> None:
        wait_s = self._config.grace_s / 2
        packs = [PackJob(str(spec.resolve()), str(self._sign.resolve()), wait_s) for spec in self._waiting]
        with self._executor.batch():  # one array
            submitted = [self._executor.submit(pack) for pack in packs]
        for job, spec in zip(submitted, self._waiting, strict=True):
            append_jsonl(self._jobs_path, {"job": job.job_id, "spec": str(spec)})
            self._jobs[job.job_id] = spec
        self._waiting.clear()

    def _reason(self, job: str, spec: Path) -> str | None:
        if not exit_file(spec).exists():
            return (f"the SLURM job {job} ended without a word: cancelled, out of memory or lost with its machine; see "
                    f"{self._dir / job}")
        exit_code = read_json(exit_file(spec))["exit_code"]
        return None if exit_code == 0 else f"the worker of the SLURM job {job} ended with exit code {exit_code}"

    def _give_sign(self) -> None:
        if time.monotonic() - self._signed_s >= _SIGN_S:
            self._signed_s = time.monotonic()
            self._sign.write_text(str(self._signed_s))

    def _cancel(self, jobs: list[str]) -> None:
        """Returns when none of them runs any more."""
        deadline_s, left = time.monotonic() + _CANCEL_S, jobs
        while left and time.monotonic() < deadline_s:
            _scancel(*left)
            time.sleep(0.5)
            queue = _queue()
            left = left if queue is None else [job for job in left if job in queue]

    @property
    def _jobs_path(self) -> Path:
        return self._dir / "jobs.jsonl"


def _parameters(config: Slurm) -> dict[str, Any]:
    options: dict[str, Any] = {
        "job_name": "lora-sweep", "time": config.time_limit_min, "cpus_per_task": config.threads or 1,
        "mem": f"{round(config.memory_gb * 1024)}M", "signal_delay_s": config.grace_s, "ntasks_per_node": 1, "nodes": 1,
        "additional_parameters": {"requeue": True, **config.options}}
    if config.device == "cuda":
        options["gpus_per_node"] = 1
    given = {"partition": config.partition, "account": config.account}
    return options | {key: value for key, value in given.items() if value is not None}


def _scancel(*arguments: str) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):  # the controller does not answer: asked again at the next look
        subprocess.run(["scancel", *arguments], check=False, capture_output=True, timeout=_ANSWER_S)


def _queue() -> set[str] | None:
    """Ids of one's jobs that wait or run, array tasks one by one; None = no answer. ConfigError without SLURM."""
    user = os.environ.get("USER") or str(os.getuid() if hasattr(os, "getuid") else "")
    try:
        said = subprocess.run(["squeue", "-h", "-r", "-o", "%i", "-u", user], capture_output=True, text=True,
                              timeout=60)
    except FileNotFoundError as error:
        raise ConfigError("launcher=slurm is used on a machine where sbatch and squeue work; squeue is not found. "
                          "launcher=local trains here.") from error
    except subprocess.TimeoutExpired:
        return None
    return set(said.stdout.split()) if said.returncode == 0 else None
