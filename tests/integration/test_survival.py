"""A sweep that is killed, cut off from its disk or handed damaged files recovers, or names what is wrong."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from sweep.lock import conductor_lock
from tests.conftest import ROOT

# Two packs of two, all of the worker's ways: states, checkpoints, scores, answers.
NUM_STEPS, STATE_EVERY = 8, 2
SWEEP = ("-m", "network_dim=4,8", "seed=1,2", "pack.max_trials=2", f"max_train_steps={NUM_STEPS}",
         "save_every_n_steps=4", "dataset.num_images=4", "launcher.devices=1", "launcher.threads=1", "tracker=none",
         f"pack.save_state_every_n_steps={STATE_EVERY}", "sweep.name=s")
SCORED = ("scoring.sampler.num_steps=2", "scoring.choice.strengths=[1.0]", "scoring.choice.confirm=1",
          "scoring.refine.prompts=screen", "scoring.confirm.prompts=screen", "scoring.confirm.num_varied=1",
          "scoring.confirm.num_captions=1", "scoring.confirm.num_class=0", "validate=false")
UNSCORED = ("scoring=none",)
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL for a whole group")

# In a process of the sweep: half of what is just being written stands on the disk, and the process and its conductor
# are gone. KILL_AT: number, then a pattern of the file; counted are the renames that put a file in its place and the
# openings to add a row.
KILL_INSIDE = """
import os, re, signal, sys
number, pattern = os.environ["KILL_AT"].split(" ", 1)
seen = [0]

def look(event, arguments):
    if event == "os.rename":
        path, written = str(arguments[1]), arguments[0]
    elif event == "open" and str(arguments[1]).startswith("a"):
        path, written = str(arguments[0]), None
    else:
        return
    if not re.search(pattern, path):
        return
    seen[0] += 1
    if seen[0] != int(number):
        return
    if written is not None:
        os.truncate(written, os.path.getsize(written) // 2)
    else:
        row = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(row, b'{"kind": "train", "st')
    if "sweep.worker" in sys.orig_argv:
        os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(look)
"""


@dataclass(frozen=True, slots=True)
class Kill:
    """After so many seconds, or (at) inside the `number`th write of a file that the pattern names."""

    after_s: float = 0.0
    at: str = ""
    number: int = 1


def train(folder: Path, *arguments: str, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "train.py", *SWEEP, *arguments, f"sweep.results_dir={folder}"], cwd=ROOT,
                          capture_output=True, text=True, timeout=timeout_s)


@contextlib.contextmanager
def started(folder: Path, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """The sweep as a process; at the end whatever still runs of it is killed."""
    process = subprocess.Popen([sys.executable, "train.py", *SWEEP, *arguments, f"sweep.results_dir={folder}"],
                               cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
                               env={**os.environ, **environment})
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGSTOP)  # so that it starts no more workers
            family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
            for member in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
            process.wait()
            psutil.wait_procs(family, timeout=60)


def killed(kill: Kill, folder: Path, *arguments: str) -> bool:
    """Run the sweep and kill all of it; whether it was still running."""
    hook = folder.parent / "hook"
    hook.mkdir(exist_ok=True)
    (hook / "sitecustomize.py").write_text(KILL_INSIDE)
    inside = {"KILL_AT": f"{kill.number} {kill.at}",
              "PYTHONPATH": f"{hook}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"} if kill.at else {}
    with started(folder, *arguments, **inside) as process:
        try:
            exit_code = process.wait(kill.after_s or 600)
        except subprocess.TimeoutExpired:
            return True
    assert exit_code in (0, -signal.SIGKILL), exit_code
    return exit_code != 0


def what_came_out(folder: Path) -> dict[str, object]:
    """The trials' files byte by byte, their losses, scores and answers, all less the time and the memory they took."""
    found: dict[str, object] = {}
    for trial in sorted((folder / "trials").iterdir()):
        for path in sorted(trial.glob("checkpoints/*.safetensors")):
            found[path.relative_to(folder).as_posix()] = path.read_bytes()
        for path in sorted(trial.glob("scores/*.json")):
            found[path.relative_to(folder).as_posix()] = timeless(json.loads(path.read_text()))
        found[f"{trial.name} metrics"] = [timeless(row) for row in rows(trial)]
    return found


def timeless(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: timeless(value) for key, value in tree.items()
                if key not in ("elapsed_s", "attributed_s", "memory_gib")}
    return [timeless(one) for one in tree] if isinstance(tree, list) else tree


def rows(trial: Path) -> list[dict[str, Any]]:
    from sweep.files import read_jsonl

    return list(read_jsonl(trial / "metrics.jsonl"))


def train_rows(folder: Path) -> dict[str, list[dict[str, Any]]]:
    return {trial.name: [row for row in rows(trial) if row["kind"] == "train"]
            for trial in sorted((folder / "trials").glob("*"))}


def kept_steps(folder: Path) -> dict[str, int]:
    """So far each trial need never be trained again."""
    from sweep.training.state import latest_save

    trials = sorted((folder / "trials").glob("*"))
    save = latest_save({trial.name: trial / "state" for trial in trials})
    found = {}
    for trial in trials:
        status = json.loads((trial / "status.json").read_text()) if (trial / "status.json").exists() else {}
        found[trial.name] = (NUM_STEPS if status.get("is_trained") else 0 if save is None
                             else save.steps.get(trial.name, 0))
    return found


def fuzz(tmp_path: Path, kills: Iterator[Kill], num_kills: int, *arguments: str) -> None:
    """Sweeps that are killed again and again until num_kills have hit, each compared with an undisturbed one."""
    folder, num_hits = tmp_path / "killed", 0
    kept: dict[str, list[dict[str, Any]]] = {}
    while num_hits < num_kills:
        kill = next(kills)
        has_hit = killed(kill, folder, *arguments)
        trained = train_rows(folder)
        check_kept(folder, kept, kill)
        if has_hit:
            num_hits += 1
            steps = kept_steps(folder)
            for name, some in trained.items():
                assert len(some) - steps[name] <= STATE_EVERY, (kill, name)
            kept = {name: some[:steps[name]] for name, some in trained.items()}
        else:  # this one came through; the next kills meet a fresh sweep
            check(tmp_path, arguments)
            shutil.rmtree(folder)
            kept = {}
    check(tmp_path, arguments)


def check(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    last = train(tmp_path / "killed", *arguments)
    assert last.returncode == 0, last.stdout + last.stderr
    found, wanted = what_came_out(tmp_path / "killed"), what_came_out(tmp_path / "whole")
    assert sorted(found) == sorted(wanted)
    assert [name for name in wanted if found[name] != wanted[name]] == []
    check_steps(tmp_path / "killed")
    assert len((tmp_path / "killed/s/trials.csv").read_text().splitlines()) == 5
    assert not [*(tmp_path / "killed" / "trials").rglob("*.tmp")]


def check_kept(folder: Path, kept: dict[str, list[dict[str, Any]]], kill: Kill | None = None) -> None:
    """Rows with the times they took: not trained again."""
    trained = train_rows(folder)
    assert [name for name, before in kept.items() if trained[name][:len(before)] != before] == [], kill


def check_steps(folder: Path) -> None:
    steps = [[row["step"] for row in trained] for trained in train_rows(folder).values()]
    assert steps == [list(range(1, NUM_STEPS + 1))] * 4, "no step twice, none missing"
    numbers = [json.loads(line)["number"] for line in (folder / "s/trials.jsonl").read_text().splitlines()]
    assert numbers == [1, 2, 3, 4]


# What is being written as the kill comes: a save twice as often, the trials' own files, the sweep's record.
INSIDE = (r"/state/step-", r"/state/step-", r"metrics\.jsonl$", r"/checkpoints/", r"status\.json$", r"packs\.jsonl$",
          r"/scores/", r"/cache/", r"s/trials\.jsonl$", r"s/study\.log$", r"s/(views\.json|trials\.csv|diary\.md)$",
          r"s/report\.html$")


def random_kills(whole_s: float) -> Iterator[Kill]:
    """Every second one at any time, the others inside a write."""
    draw = random.Random(0)
    while True:
        inside = list(INSIDE)
        draw.shuffle(inside)
        for at in inside:
            yield Kill(after_s=draw.uniform(0.1, 0.8) * whole_s)
            yield Kill(at=at, number=draw.randint(1, 4) if at.startswith("/") or "metrics" in at else 1)


@posix
@pytest.mark.slow
def test_killed_inside_a_save_and_inside_the_record(tmp_path: Path) -> None:
    assert train(tmp_path / "whole", *UNSCORED).returncode == 0
    kills = [Kill(at=r"/state/step-", number=3), Kill(at=r"metrics\.jsonl$", number=5), Kill(at=r"s/report\.html$")]
    fuzz(tmp_path, iter(kills), 3, *UNSCORED)


@posix
@pytest.mark.slow
def test_killed_at_thirty_moments(tmp_path: Path) -> None:
    own = yaml.safe_load((ROOT / "conf/scoring/pocket.yaml").read_text(encoding="utf-8"))
    (tmp_path / "prompts.yaml").write_text(yaml.safe_dump({
        "version": 1, "prompts": own["prompts"][:4], "class_prompts": [], "attributes": own["attributes"]}))
    arguments = (*SCORED, f"scoring.prompt_file={tmp_path / 'prompts.yaml'}")
    began_s = time.monotonic()
    whole = train(tmp_path / "whole", *arguments)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    fuzz(tmp_path, random_kills(time.monotonic() - began_s), int(os.environ.get("NUM_KILLS", "30")), *arguments)


@posix
@pytest.mark.slow
def test_a_corrupt_state_and_a_truncated_cache(tmp_path: Path) -> None:
    """Of two whole saves the newer is damaged in one trial: both go on from the older one, to the same bits."""
    assert train(tmp_path / "whole", *UNSCORED).returncode == 0
    folder = tmp_path / "killed"
    assert killed(Kill(at=r"/state/step-", number=5), folder, *UNSCORED)  # inside the third save of the first pack
    states = sorted(folder.glob("trials/*/state/*.safetensors"))
    assert len(states) == 4 and sorted(kept_steps(folder).values()) == [0, 0, 2 * STATE_EVERY, 2 * STATE_EVERY]
    states[-1].write_bytes(states[-1].read_bytes()[:100])
    assert sorted(kept_steps(folder).values()) == [0, 0, STATE_EVERY, STATE_EVERY]
    latents = sorted((folder / "cache").rglob("*.safetensors"))
    assert latents
    for path in latents:
        path.write_bytes(path.read_bytes()[:50])
    (folder / "cache" / "file_hashes.json").write_text('{"half')
    kept = {name: some[:kept_steps(folder)[name]] for name, some in train_rows(folder).items()}
    damaged = sorted(folder.glob("trials/*/status.json"))
    damaged[0].write_bytes(b"\0" * 200)
    damaged[-1].write_bytes(b'{"status": "runn')
    check(tmp_path, UNSCORED)
    check_kept(folder, kept)


@posix
@pytest.mark.slow
def test_a_worker_that_is_killed_alone_is_started_again(tmp_path: Path) -> None:
    """Its conductor lives; once in each pack, between two saves."""
    assert train(tmp_path / "whole", *UNSCORED).returncode == 0
    folder = tmp_path / "killed"
    kept: dict[str, list[dict[str, Any]]] = {}
    with started(folder, *UNSCORED) as process:
        conductor = psutil.Process(process.pid)
        for num_packs in (1, 2):
            while sum(len(some) > STATE_EVERY for some in train_rows(folder).values()) < 2 * num_packs:
                assert process.poll() is None
                time.sleep(0.02)
            conductor.suspend()  # what is kept is read before the next worker starts
            worker, = (child for child in conductor.children() if "sweep.worker" in child.cmdline())
            worker.kill()
            while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.01)
            steps = kept_steps(folder)
            kept |= {name: some[:steps[name]] for name, some in train_rows(folder).items()}
            conductor.resume()
        assert process.wait(600) == 0
    assert sorted(map(len, kept.values()))[0] >= STATE_EVERY
    log = (folder / "s" / "sweep.log").read_text()
    assert log.count("are tried again: the worker process ended with exit code -9") == 2, log
    check_kept(folder, kept)
    check(tmp_path, UNSCORED)
    check_kept(folder, kept)


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a small disk")
@pytest.mark.slow
def test_a_full_disk_is_named_and_nothing_is_lost(tmp_path: Path) -> None:
    assert train(tmp_path / "whole", *UNSCORED).returncode == 0
    disk = tmp_path / "killed"
    disk.mkdir()
    # room for a pack's first save, not for the second beside it
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("may not mount")
    try:
        run = train(disk, *UNSCORED)
        assert run.returncode == 2, run.stdout + run.stderr
        assert re.search(r"^error: \[Errno 28\] No space left on device.* the same command goes on", run.stderr, re.M)
        assert "Traceback" not in run.stdout + run.stderr
        steps = kept_steps(disk)
        assert max(steps.values()) == STATE_EVERY, steps
        kept = {name: some[:steps[name]] for name, some in train_rows(disk).items()}
        subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
        check(tmp_path, UNSCORED)
        check_kept(disk, kept)
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


# The clock jumps a year forth and back, as often as it is read: what Python and psutil say of it. The first reading of
# each process leaves a file.
JUMPING_CLOCK = """
import os, time
from pathlib import Path
import psutil

def jumping(name, real):
    calls = [0]
    def read(*arguments):
        calls[0] += 1
        if calls[0] == 1:
            (Path(__file__).parent / f"{name}-{os.getpid()}").touch()
        return real(*arguments) + (-1) ** calls[0] * 3e7
    return read

time.time = jumping("time", time.time)
psutil._pslinux.boot_time = jumping("boot", psutil._pslinux.boot_time)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process's time of start is noted as it starts")
def test_a_clock_that_jumps_ends_no_search_and_takes_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Budgets and waits count by the monotonic clock, locks by what does not change as a clock is set."""
    jump = tmp_path / "jump"
    jump.mkdir()
    (jump / "sitecustomize.py").write_text(JUMPING_CLOCK)
    monkeypatch.setenv("PYTHONPATH", f"{jump}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    search = (*SCORED, "search=random", "search.num_trials=4", "search.wall_hours=1")
    with conductor_lock(tmp_path / "r" / "s"):
        refused = train(tmp_path / "r", *search)
    assert refused.returncode == 2 and f"is being run by process {os.getpid()} on " in refused.stderr, refused.stderr
    run = train(tmp_path / "r", *search)
    assert run.returncode == 0, run.stderr
    check_steps(tmp_path / "r")
    readings = {name: len(list(jump.glob(f"{name}-*"))) for name in ("time", "boot")}
    assert min(readings.values()) >= 3, "two conductors and a worker have read it"
