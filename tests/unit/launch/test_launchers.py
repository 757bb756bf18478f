"""The contract of `Launcher`, for every launcher, with the real worker on a trial whose photos are missing: it is
recorded as failed and its pack ends without a model.

The local launcher by default; Ray's with `pytest -m ray -n 0`, SLURM's with `pytest -m slurm -n 0` after
tests/clusters/slurm.sh.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from hydra import compose, initialize_config_dir

from sweep.command_line import CONF_DIR
from sweep.config import load
from sweep.files import read_json, write_json
from sweep.launch import ray
from sweep.launch.launcher import Launcher
from sweep.launch.launcher import make_launcher as make_any_launcher
from sweep.launch.settings import LAUNCHERS, MAX_CPU_WORKERS, Local, count_gpus
from sweep.schema import to_tree
from sweep.stopping import STOP_ASKED
from sweep.trial import FAILED, PackSpec, Trial, to_json, trial_folder

ROOT = Path(__file__).parents[3]
TIMEOUT_S = 120

# A conductor that starts one pack, says its worker's process id, and goes on after Ctrl-C until the pack has ended.
CONDUCTOR = """
import sys, time
from pathlib import Path
import psutil
from sweep.launch.local import LocalLauncher
from sweep.launch.settings import Local

launcher = LocalLauncher(Local(name="local", devices=1, device="cpu", threads=1), Path(sys.argv[2]))
launcher.start(Path(sys.argv[1]))
try:
    print(psutil.Process().children()[0].pid, flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    while not (ended := launcher.poll()):
        time.sleep(0.05)
    print(ended[0][1], flush=True)
    launcher.close()
"""


CONFIGS: dict[str, dict[str, Any]] = {
    "local": {},
    "ray": {"address": None},
    "slurm": {"memory_gb": 2.0, "time_limit_min": 10, "grace_s": 20, "max_timeouts": 1, "partition": None,
              "account": None, "options": {}},
}


@pytest.fixture(params=["local", pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.slow]),
                        pytest.param("slurm", marks=[pytest.mark.slurm, pytest.mark.slow])])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_launcher(kind: str, tmp_path: Path) -> Iterator[Callable[[int], Launcher]]:
    made: list[Launcher] = []

    def make(num_slots: int) -> Launcher:
        config = LAUNCHERS[kind](name=kind, devices=num_slots, device="cpu", threads=1, **CONFIGS[kind])
        made.append(make_any_launcher(config, tmp_path / "logs"))
        return made[-1]

    yield make
    for launcher in made:
        launcher.close()


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    """A whole training config whose photos are missing."""
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        train = load(compose("config", ["dataset.dir=photos"])).train
    return to_tree(replace(train, dataset=replace(train.dataset, dir="/no/photos/here")))


def write_spec(folder: Path, config: dict[str, Any], train_id: str) -> Path:
    trial = Trial(number=1, train_id=train_id, settings={}, config=config, num_steps=10)
    spec = PackSpec(trials=(trial,), scoring={"name": "none"}, results_dir=str(folder / "results"), device="cpu:0",
                    threads=1, save_state_every_n_steps=100, control=str(folder / "control.json"))
    path = folder / "packs" / f"{train_id}.json"
    write_json(path, to_json(spec))
    return path


def assert_failed_for_its_photos(folder: Path, train_id: str) -> None:
    status = read_json(trial_folder(folder / "results", train_id).status)
    assert status["status"] == FAILED and "/no/photos/here" in status["reason"]


def ended_packs(launcher: Launcher, num_packs: int) -> list[tuple[Path, str | None]]:
    """What is reported until so many packs have ended, and a moment longer."""
    reports: list[tuple[Path, str | None]] = []
    deadline_s = time.monotonic() + TIMEOUT_S
    while len(reports) < num_packs:
        assert time.monotonic() < deadline_s, f"only {reports}"
        time.sleep(0.02)
        reports += launcher.poll()
    time.sleep(0.1)
    return reports + list(launcher.poll())


def workers(kind: str) -> list[psutil.Process]:
    """The workers that this process has started and that run; Ray's and SLURM's are children of their daemons."""
    if kind == "local":
        return [child for child in psutil.Process().children() if "sweep.worker" in " ".join(child.cmdline())]
    named = {"ray": "ray::_run_pack", "slurm": "-m sweep.worker /"}[kind]
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if named in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def wait_for_workers(kind: str, number: int) -> list[psutil.Process]:
    deadline_s = time.monotonic() + TIMEOUT_S
    while len(found := workers(kind)) != number:
        assert time.monotonic() < deadline_s, found
        time.sleep(0.01)
    return found


def test_each_pack_is_reported_once_and_leaves_its_slot_free(
        tmp_path: Path, config: dict[str, Any], kind: str, make_launcher: Callable[[int], Launcher]) -> None:
    launcher = make_launcher(2)
    one, two, three = (write_spec(tmp_path, config, f"id{n}") for n in range(3))
    assert launcher.poll() == [] and launcher.num_free == 2
    devices = []
    for spec in (one, two):
        devices.append(launcher.device_of_next())
        launcher.start(spec)
    assert launcher.num_free == 0
    assert devices == [("cpu:0", 1), ("cpu:1" if kind == "local" else "cpu:0", 1)]
    assert sorted(ended_packs(launcher, 2)) == [(one, None), (two, None)]
    assert launcher.num_free == 2
    before = workers(kind)
    launcher.start(three)
    assert ended_packs(launcher, 1) == [(three, None)]
    assert workers(kind) == before, "a worker stays for the next pack, or ends with its own"
    for number in range(3):
        assert_failed_for_its_photos(tmp_path, f"id{number}")
    assert not list(tmp_path.rglob("*.began")), "signs of packs that have ended are cleared away"


def test_a_killed_worker_is_reported_once_with_the_reason_and_replaced(
        tmp_path: Path, config: dict[str, Any], kind: str, make_launcher: Callable[[int], Launcher]) -> None:
    launcher = make_launcher(1)
    spec = write_spec(tmp_path, config, "id0")
    launcher.start(spec)
    launcher.poll()
    wait_for_workers(kind, 1)[0].kill()
    [(ended, reason)] = ended_packs(launcher, 1)
    assert ended == spec and reason is not None and "ended " in reason
    assert launcher.num_free == 1

    launcher.start(spec)
    assert ended_packs(launcher, 1) == [(spec, None)]
    assert_failed_for_its_photos(tmp_path, "id0")

    if kind != "local":
        return
    [idle] = workers(kind)
    idle.kill()
    launcher.start(spec)  # at once: it may not be known as dead yet
    [(ended, reason)] = ended_packs(launcher, 1)
    assert ended == spec and (reason is None or "ended with exit code" in reason)


def test_after_close_no_worker_runs(tmp_path: Path, config: dict[str, Any], kind: str,
                                    make_launcher: Callable[[int], Launcher]) -> None:
    launcher = make_launcher(2)
    launcher.start(write_spec(tmp_path, config, "id0"))
    assert ended_packs(launcher, 1)
    launcher.start(write_spec(tmp_path, config, "id1"))
    launcher.start(write_spec(tmp_path, config, "id2"))  # in a worker that is just being started
    launcher.poll()
    if kind != "ray":  # there the first worker takes both, in no time
        wait_for_workers(kind, 2)
    launcher.close()
    assert workers(kind) == [] if kind == "local" else wait_for_workers(kind, 0) == []
    launcher.close()


def test_after_stop_no_pack_waits_in_a_queue(
        tmp_path: Path, config: dict[str, Any], kind: str, make_launcher: Callable[[int], Launcher],
        monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "slurm":
        monkeypatch.setitem(CONFIGS["slurm"], "options", {"hold": True})  # their turn never comes
    num_packs = 2 if kind == "local" else 2 + (os.cpu_count() or 1)  # more than Ray has CPUs for
    launcher = make_launcher(num_packs)
    specs = [write_spec(tmp_path, config, f"id{n}") for n in range(num_packs)]
    for spec in specs[:-1]:
        launcher.start(spec)
    launcher.poll()
    launcher.start(specs[-1])  # not even submitted
    launcher.stop()
    reports = ended_packs(launcher, num_packs)
    assert sorted(spec for spec, _ in reports) == sorted(specs)
    assert launcher.num_free == num_packs
    if kind == "slurm":
        assert all(reason for _, reason in reports)


@pytest.fixture
def slurm_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs that say what a SLURM would say: one job, 7, in the queue while `queue` lists it; each
    call of scancel is a line of `cancelled`."""
    pytest.importorskip("submitit")
    folder = tmp_path / "programs"
    folder.mkdir()
    (folder / "queue").touch()
    for name, line in (("squeue", f"cat {folder / 'queue'}"), ("scancel", f'echo "$@" >> {folder / "cancelled"}'),
                       ("sbatch", f"echo 7 > {folder / 'queue'}; echo Submitted batch job 7"), ("srun", "exit 1")):
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("sweep.launch.slurm._LOOK_S", 0.0)
    return folder


@pytest.mark.skipif(os.name == "nt", reason="the programs are shell scripts here")
def test_a_job_that_is_queued_again_after_a_stop_is_taken_back_too(
        tmp_path: Path, config: dict[str, Any], slurm_programs: Path) -> None:
    launcher = make_any_launcher(LAUNCHERS["slurm"](name="slurm", devices=1, device="cpu", threads=1,
                                                    **CONFIGS["slurm"]), tmp_path / "logs")
    spec = write_spec(tmp_path, config, "id0")
    launcher.start(spec)
    launcher.poll()
    cancelled = slurm_programs / "cancelled"
    assert not cancelled.exists()
    launcher.stop()  # it runs: only what waits is taken back
    assert launcher.poll() == []
    cancelled.unlink()
    assert launcher.poll() == [], "by now it may have been preempted"
    assert cancelled.read_text() == "--state=PENDING 7\n"
    (slurm_programs / "queue").write_text("")
    assert ended_packs(launcher, 1)[0][0] == spec
    launcher.close()


@pytest.mark.skipif(os.name == "nt", reason="the programs are shell scripts here")
def test_a_controller_that_does_not_answer_holds_up_no_ctrl_c(
        tmp_path: Path, config: dict[str, Any], slurm_programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweep.launch.slurm._ANSWER_S", 0.2)
    launcher = make_any_launcher(LAUNCHERS["slurm"](name="slurm", devices=1, device="cpu", threads=1,
                                                    **CONFIGS["slurm"]), tmp_path / "logs")
    launcher.start(write_spec(tmp_path, config, "id0"))
    launcher.poll()
    (slurm_programs / "scancel").write_text("#!/bin/sh\nexec sleep 20\n")
    began_s = time.monotonic()
    launcher.stop()
    assert time.monotonic() - began_s < 10
    (slurm_programs / "queue").write_text("")
    launcher.close()


def test_what_a_library_prints_is_no_answer(tmp_path: Path, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch,
                                            make_launcher: Callable[[int], Launcher]) -> None:
    stray = tmp_path / "stray"
    stray.mkdir()
    (stray / "sitecustomize.py").write_text(
        "import os; os.write(1, b'welcome to a library\\nnot utf-8: \\xff\\n\\n')\n")  # as native code does
    monkeypatch.setenv("PYTHONPATH", str(stray))
    launcher = make_launcher(1)
    spec = write_spec(tmp_path, config, "id0")
    launcher.start(spec)
    assert ended_packs(launcher, 1) == [(spec, None)]
    assert_failed_for_its_photos(tmp_path, "id0")


def test_ray_interrupts_no_training(tmp_path: Path, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """What Ray does to a task that it is asked to cancel and that runs already; the next pack is none the wiser."""
    asked: list[bool] = []

    class Worker:
        """Trains until it is interrupted, then until it is asked to stop."""

        def run(self, spec: PackSpec, path: Path) -> None:
            asked.append(STOP_ASKED.is_set())
            assert ray.began_file(path).exists()
            signal.raise_signal(signal.SIGINT)
            asked.append(STOP_ASKED.is_set())

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ray, "_worker", Worker())
    before = signal.getsignal(signal.SIGINT)
    spec = write_spec(tmp_path, config, "id0")
    try:
        for _ in range(2):
            ray._run_pack(str(spec), str(tmp_path))
    finally:
        STOP_ASKED.clear()
    assert asked == [False, True] * 2 and signal.getsignal(signal.SIGINT) == before


@pytest.fixture
def conductor(tmp_path: Path, config: dict[str, Any]) -> Iterator[tuple[subprocess.Popen[str], psutil.Process]]:
    """A conductor in a process group of its own, as in a terminal, and its worker."""
    spec = write_spec(tmp_path, config, "id0")
    started = subprocess.Popen([sys.executable, "-c", CONDUCTOR, str(spec), str(tmp_path / "logs")], cwd=ROOT,
                               stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert started.stdout is not None
    worker = psutil.Process(int(started.stdout.readline()))
    yield started, worker
    started.kill()
    started.communicate()
    if worker.is_running():
        worker.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="sends the signals of a POSIX terminal")
def test_ctrl_c_does_not_reach_a_local_worker(tmp_path: Path,
                                              conductor: tuple[subprocess.Popen[str], psutil.Process]) -> None:
    started, _ = conductor
    os.killpg(started.pid, signal.SIGINT)  # what a terminal does; the worker is still being started
    out, _ = started.communicate(timeout=TIMEOUT_S)
    assert out == "None\n"
    assert_failed_for_its_photos(tmp_path, "id0")


def test_a_killed_conductor_takes_its_local_worker_along(
        conductor: tuple[subprocess.Popen[str], psutil.Process]) -> None:
    started, worker = conductor
    started.kill()
    started.wait()
    _, alive = psutil.wait_procs([worker], timeout=TIMEOUT_S)
    assert not alive


@pytest.mark.skipif(os.name == "nt", reason="the driver's program is a shell script here")
def test_workers_are_counted_without_torch(tmp_path: Path, monkeypatch) -> None:
    auto = Local(name="local", devices=None, device="auto", threads=None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    count_gpus.cache_clear()
    assert auto.num_workers == 2 and Local(name="local", devices=5, device="auto", threads=None).num_workers == 5
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert Local(name="local", devices=None, device="cpu", threads=None).num_workers == MAX_CPU_WORKERS
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 'GPU 0: One (UUID: x)'\necho 'GPU 1: Two (UUID: y)'\necho 'GPU 2: Three'\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    count_gpus.cache_clear()
    assert auto.num_workers == 3
    driver.write_text("#!/bin/sh\necho 'no driver'\nexit 9\n")
    count_gpus.cache_clear()
    assert auto.num_workers == MAX_CPU_WORKERS
    count_gpus.cache_clear()
