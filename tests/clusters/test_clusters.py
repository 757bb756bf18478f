"""Real sweeps on a real SLURM and a real Ray of this machine, with something taken away in the middle.

    apt-get install munge slurmctld slurmd slurm-client && tests/clusters/slurm.sh && pytest -m slurm -n 0
    pytest -m ray -n 0
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from sweep.files import read_json
from tests.conftest import ROOT

SWEEP = ("-m", "network_dim=4,8,16", "max_train_steps=80", "dataset.num_images=4", "scoring=none", "tracker=none",
         "pack.save_state_every_n_steps=25", "pack.max_trials=1", "sweep.name=s", "launcher.device=cpu",
         "launcher.threads=1")
SLURM = ("launcher=slurm", "launcher.devices=1", "launcher.partition=low", "launcher.memory_gb=2",
         "launcher.time_limit_min=30", "launcher.grace_s=40")
TIMEOUT_S = 580


def start(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "train.py", *SWEEP, *arguments, f"sweep.results_dir={folder}"], cwd=ROOT,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            env={**os.environ, **environment})


def finish(sweep: subprocess.Popen[str]) -> None:
    said, _ = sweep.communicate(timeout=TIMEOUT_S)
    assert sweep.returncode == 0, said


def wait_for_a_step(folder: Path, sweep: subprocess.Popen[str]) -> None:
    """Until some trial has trained a little."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while not any(path.read_text().count('"train"') > 10 for path in folder.glob("trials/*/metrics.jsonl")):
        assert sweep.poll() is None and time.monotonic() < deadline_s
        time.sleep(0.2)


def trains_on(folder: Path, raylet: psutil.Process) -> bool:
    """Whether a worker of that machine of the cluster is in the middle of a trial: it holds the trial's lock."""
    children = {child.pid for child in raylet.children(recursive=True)}
    for trial in folder.glob("trials/*"):
        with contextlib.suppress(FileNotFoundError):  # not begun, or just ended
            holder = read_json(trial / "worker.lock" / "holder.json")
            if holder["pid"] in children and (trial / "metrics.jsonl").read_text().count('"train"') > 10:
                return True
    return False


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.glob("trials/*/checkpoints/*.safetensors"))}


@pytest.mark.slow
@pytest.mark.slurm
@pytest.mark.skipif(shutil.which("sbatch") is None, reason="no SLURM: see slurm.sh")
def test_a_preempted_job_is_queued_again_and_ends_equal_to_a_local_run(tmp_path: Path) -> None:
    finish(start(tmp_path / "local", "launcher.devices=1"))
    sweep = start(tmp_path / "slurm", *SLURM)
    wait_for_a_step(tmp_path / "slurm", sweep)
    subprocess.run(["sbatch", "-p", "high", "-n", "1", "-c", str(os.cpu_count()), "-o", "/dev/null", "--wrap",
                    "sleep 3"], check=True)
    seen: set[str] = set()
    deadline_s = time.monotonic() + TIMEOUT_S
    while sweep.poll() is None and time.monotonic() < deadline_s:
        for job in subprocess.run(["squeue", "-h", "-p", "low", "-o", "%i"], capture_output=True,
                                  text=True).stdout.split():
            seen |= {f"{job} {part}" for part in subprocess.run(["scontrol", "-o", "show", "job", job],
                     capture_output=True, text=True).stdout.split() if part.startswith("Restarts=")}
        time.sleep(0.5)
    finish(sweep)
    assert any(not one.endswith("Restarts=0") for one in seen), seen
    wanted, found = files(tmp_path / "local"), files(tmp_path / "slurm")
    assert len({Path(name).parts[1] for name in wanted}) == 3
    assert sorted(found) == sorted(wanted)
    assert [name for name in wanted if found[name] != wanted[name]] == []


@pytest.mark.slow
@pytest.mark.ray
def test_a_cluster_that_loses_a_machine_finishes(tmp_path: Path) -> None:
    finish(start(tmp_path / "local", "launcher.devices=1"))
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        lost = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        sweep = start(tmp_path / "ray", "launcher=ray", f"launcher.address={cluster.address}", "launcher.devices=2",
                      "pack.max_retries=3", RAY_USAGE_STATS_ENABLED="0")
        deadline_s = time.monotonic() + TIMEOUT_S
        raylet = psutil.Process(lost.all_processes["raylet"][0].process.pid)
        while not trains_on(tmp_path / "ray", raylet):
            assert sweep.poll() is None and time.monotonic() < deadline_s
            time.sleep(0.2)
        cluster.remove_node(lost, allow_graceful=False)
        finish(sweep)
    finally:
        cluster.shutdown()
    wanted, found = files(tmp_path / "local"), files(tmp_path / "ray")
    assert len({Path(name).parts[1] for name in wanted}) == 3
    assert sorted(found) == sorted(wanted)
    assert [name for name in wanted if found[name] != wanted[name]] == []
    said = (tmp_path / "ray" / "s" / "sweep.log").read_text()
    assert said.count("are tried again") == 1 and "the worker ended early" in said
