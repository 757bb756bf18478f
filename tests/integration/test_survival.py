"""A sweep that is killed, cut off from its disk or handed damaged files recovers, or names what is wrong."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load

from tests.conftest import ROOT

# Two packs of two, all of the worker's ways: states, checkpoints, scores, answers.
SWEEP = ("-m", "network_dim=4,8", "seed=1,2", "pack.max_trials=2", "max_train_steps=12", "save_every_n_steps=6",
         "dataset.num_images=4", "launcher.devices=1", "launcher.threads=1", "tracker=none",
         "pack.save_state_every_n_steps=3", "sweep.name=s")
SCORED = ("scoring.sampler.num_steps=2", "scoring.choice.strengths=[1.0]", "scoring.confirm.num_seeds=1",
          "scoring.confirm.prompts=screen", "scoring.refine.prompts=screen")
UNSCORED = ("scoring=none",)
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL for a whole group")


def train(folder: Path, *arguments: str, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "train.py", *SWEEP, *arguments, f"sweep.results_dir={folder}"], cwd=ROOT,
                          capture_output=True, text=True, timeout=timeout_s)


def killed_after(folder: Path, seconds: float, *arguments: str) -> bool:
    """Run the sweep and kill all of it after so long; whether it was still running."""
    process = subprocess.Popen([sys.executable, "train.py", *SWEEP, *arguments, f"sweep.results_dir={folder}"],
                               cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        process.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for member in family:
            member.kill()
        psutil.wait_procs(family, timeout=60)
        process.wait()
        return True


def what_came_out(folder: Path) -> dict[str, object]:
    """The trials' files byte by byte, and their answers' scores less the time they took."""
    found: dict[str, object] = {}
    for path in sorted((folder / "trials").glob("*/checkpoints/*.safetensors")):
        found[path.relative_to(folder).as_posix()] = path.read_bytes()
    for path in sorted((folder / "trials").glob("*/scores/answer-*.json")):
        answer = json.loads(path.read_text())
        answer["score"].pop("elapsed_s")
        found[path.relative_to(folder).as_posix()] = answer
    return found


def steps_logged(folder: Path) -> list[list[int]]:
    rows = [[json.loads(line) for line in path.read_text().splitlines()]
            for path in sorted((folder / "trials").glob("*/metrics.jsonl"))]
    return [[row["step"] for row in trial if row["kind"] == "train"] for trial in rows]


def fuzz(tmp_path: Path, num_kills: int, *arguments: str) -> None:
    started = time.monotonic()
    whole = train(tmp_path / "whole", *arguments)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    whole_s = time.monotonic() - started
    draw = random.Random(0)
    num_done = 0
    for number in range(num_kills):
        folder = tmp_path / "killed"
        if not killed_after(folder, draw.uniform(0.15, 0.9) * whole_s, *arguments):
            num_done += 1
            if number < num_kills - 1:
                check(tmp_path, arguments)
                shutil.rmtree(folder)  # this one came through; the next kills meet a fresh sweep
    check(tmp_path, arguments)
    assert num_done < num_kills, "no kill hit"


def check(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    last = train(tmp_path / "killed", *arguments)
    assert last.returncode == 0, last.stdout + last.stderr
    assert what_came_out(tmp_path / "killed") == what_came_out(tmp_path / "whole")
    check_steps(tmp_path)


def check_steps(tmp_path: Path) -> None:
    assert steps_logged(tmp_path / "killed") == [list(range(1, 13))] * 4, "no step twice, none missing"
    numbers = [json.loads(line)["number"] for line in (tmp_path / "killed/s/trials.jsonl").read_text().splitlines()]
    assert numbers == [1, 2, 3, 4]


@posix
@pytest.mark.slow
def test_killed_twice(tmp_path: Path) -> None:
    fuzz(tmp_path, 2, *UNSCORED)


@posix
@pytest.mark.slow
def test_killed_at_thirty_moments(tmp_path: Path) -> None:
    fuzz(tmp_path, 30, *SCORED)


@posix
@pytest.mark.slow
def test_a_corrupt_state_and_a_truncated_cache(tmp_path: Path) -> None:
    assert train(tmp_path / "whole", *UNSCORED).returncode == 0
    folder = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "train.py", *SWEEP, *UNSCORED, f"sweep.results_dir={folder}"], cwd=ROOT,
                               stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while len(list(folder.glob("trials/*/state/*"))) < 4 and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGSTOP)
    for member in psutil.Process(process.pid).children(recursive=True):
        member.kill()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for path in sorted(folder.glob("trials/*/state/*.safetensors"))[-1:]:
        path.write_bytes(path.read_bytes()[:100])
    for path in (folder / "cache").rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:50])
    (folder / "cache" / "file_hashes.json").write_text('{"half')
    last = train(folder, *UNSCORED)
    assert last.returncode == 0, last.stdout + last.stderr
    check_steps(tmp_path)
    # Who lost its state goes on from an older one without its companions: equal up to rounding (contract 1).
    for name, data in what_came_out(tmp_path / "whole").items():
        assert isinstance(data, bytes)
        mine = load(what_came_out(folder)[name])
        assert all(torch.allclose(mine[key], tensor, rtol=1e-2, atol=1e-4) for key, tensor in load(data).items())


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a small disk")
@pytest.mark.slow
def test_a_full_disk_is_named_and_nothing_is_lost(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("may not mount")
    try:
        run = train(disk, *UNSCORED)
        assert run.returncode != 0
        assert "No space left" in run.stdout + run.stderr, run.stdout + run.stderr
        subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
        again = train(disk, *UNSCORED)
        assert again.returncode == 0, again.stdout + again.stderr
        assert steps_logged(disk) == [list(range(1, 13))] * 4
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a read-only disk")
def test_a_read_only_results_folder_is_named(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("may not mount")
    try:
        run = train(disk / "results", *UNSCORED)
        assert run.returncode == 2 and run.stderr.startswith("error: "), run.stderr
        assert str(disk / "results") in run.stderr and "read-only" in run.stderr
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_clock_that_jumps_ends_no_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Budgets and waits count by the monotonic clock: a year forth and back changes nothing."""
    jump = tmp_path / "jump"
    jump.mkdir()
    (jump / "sitecustomize.py").write_text(
        "import time\nreal = time.time\ncalls = [0]\n"
        "def jumping():\n  calls[0] += 1\n  return real() + (-1) ** calls[0] * 3e7\n"
        "time.time = jumping\n")
    monkeypatch.setenv("PYTHONPATH", f"{jump}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    run = train(tmp_path / "r", *UNSCORED)
    assert run.returncode == 0, run.stderr
    assert steps_logged(tmp_path / "r") == [list(range(1, 13))] * 4
