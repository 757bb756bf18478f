"""Locks between real processes: a live holder keeps the folder, a dead one does not, and only one ever has it."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from sweep.errors import LockedError
from sweep.lock import conductor_lock, trial_lock, try_trial_lock

# Answers each folder on standard input with "won" or "lost", and holds what it won until the next line.
TAKER = """
import sys
from pathlib import Path
from sweep.lock import try_trial_lock
import psutil
print("ready", flush=True)
for line in sys.stdin:
    lock = try_trial_lock(Path(line.strip()))
    print("won" if lock else "lost", flush=True)
    sys.stdin.readline()
    if lock:
        lock.release()
    print("released", flush=True)
"""


def run_python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)


def die_holding(folder: Path) -> None:
    done = run_python("import os, sys; from pathlib import Path; from sweep.lock import trial_lock\n"
                      "with trial_lock(Path(sys.argv[1])): os._exit(9)", folder)
    assert done.returncode == 9, done.stderr


def change_holder(lock: Path, **changes: object) -> None:
    path = lock / "holder.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def takers() -> Iterator[list[subprocess.Popen[str]]]:
    started = [subprocess.Popen([sys.executable, "-c", TAKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
               for _ in range(4)]
    assert [answer(taker) for taker in started] == ["ready"] * 4
    yield started
    for taker in started:
        taker.kill()
        taker.communicate()


def tell(taker: subprocess.Popen[str], line: object) -> None:
    assert taker.stdin is not None
    taker.stdin.write(f"{line}\n")
    taker.stdin.flush()


def answer(taker: subprocess.Popen[str]) -> str:
    assert taker.stdout is not None
    return taker.stdout.readline().strip()


def test_a_second_conductor_is_told_who_runs_the_sweep(tmp_path: Path) -> None:
    with conductor_lock(tmp_path / "alex"):
        second = run_python("import sys; from pathlib import Path; from sweep.lock import conductor_lock\n"
                            "with conductor_lock(Path(sys.argv[1])): pass", tmp_path / "alex")
        assert second.returncode == 1
        me = psutil.Process().pid
        assert f"The sweep 'alex' is being run by process {me} on " in second.stderr
        assert "Wait for it, stop it, or choose another sweep.name." in second.stderr
    assert names_in(tmp_path / "alex") == []
    with conductor_lock(tmp_path / "alex"):
        pass


def test_a_second_worker_is_told_who_trains_the_trial(tmp_path: Path, takers: list[subprocess.Popen[str]]) -> None:
    tell(takers[0], tmp_path / "0123abcd")
    assert answer(takers[0]) == "won"
    with pytest.raises(LockedError, match=f"trial 0123abcd is being trained by process {takers[0].pid} on "):
        trial_lock(tmp_path / "0123abcd")
    assert try_trial_lock(tmp_path / "0123abcd") is None
    tell(takers[0], "release")
    assert answer(takers[0]) == "released"
    lock = try_trial_lock(tmp_path / "0123abcd")
    assert lock is not None
    lock.release()
    lock.release()  # twice is once


def test_a_dead_holders_lock_is_taken_over(tmp_path: Path) -> None:
    die_holding(tmp_path)
    assert names_in(tmp_path) == ["worker.lock"]
    with trial_lock(tmp_path):
        assert try_trial_lock(tmp_path) is None
    assert names_in(tmp_path) == []


def test_a_holder_that_was_killed_but_not_waited_for_is_dead(tmp_path: Path,
                                                            takers: list[subprocess.Popen[str]]) -> None:
    tell(takers[0], tmp_path)
    assert answer(takers[0]) == "won"
    takers[0].kill()
    process = psutil.Process(takers[0].pid)
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        pass
    with trial_lock(tmp_path):
        pass


def test_a_process_id_that_was_given_out_again_is_no_holder(tmp_path: Path) -> None:
    die_holding(tmp_path)
    change_holder(tmp_path / "worker.lock", pid=psutil.Process().pid)
    with trial_lock(tmp_path):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process's time of start is noted as it starts")
@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
def test_a_clock_that_was_set_since_takes_no_live_holders_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                               takers: list[subprocess.Popen[str]],
                                                               jump_s: float) -> None:
    tell(takers[0], tmp_path / "trial")
    assert answer(takers[0]) == "won"
    with conductor_lock(tmp_path / "alex"):
        before_s = psutil.Process(takers[0].pid).create_time()
        real = psutil._pslinux.boot_time
        monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: real() + jump_s)
        assert psutil.Process(takers[0].pid).create_time() == before_s + jump_s, "the clock has jumped"
        with pytest.raises(LockedError, match=f"by process {takers[0].pid} on "):
            trial_lock(tmp_path / "trial")
        with pytest.raises(LockedError, match=f"by process {psutil.Process().pid} on "):
            conductor_lock(tmp_path / "alex")
    takers[0].kill()
    takers[0].wait()
    trial_lock(tmp_path / "trial").release()


def test_a_process_of_an_earlier_boot_is_no_holder(tmp_path: Path) -> None:
    with trial_lock(tmp_path):
        before = json.loads((tmp_path / "worker.lock" / "holder.json").read_text())
        if not before["ticks"]:
            pytest.skip("told by its time of start here")
        change_holder(tmp_path / "worker.lock", ticks=f"another-boot {before['ticks'].split()[1]}")
        trial_lock(tmp_path).release()


def test_a_lock_of_before_the_ticks_is_known_by_its_time_of_start(tmp_path: Path) -> None:
    with trial_lock(tmp_path):
        path = tmp_path / "worker.lock" / "holder.json"
        old = json.loads(path.read_text())
        del old["ticks"]
        path.write_text(json.dumps(old))
        assert try_trial_lock(tmp_path) is None
        change_holder(tmp_path / "worker.lock", process_started=old["process_started"] - 5)
        trial_lock(tmp_path).release()


@pytest.mark.parametrize("with_dead_holder", [True, False])
def test_of_several_takers_one_wins(tmp_path: Path, takers: list[subprocess.Popen[str]],
                                    with_dead_holder: bool) -> None:
    die_holding(tmp_path / "dead")
    for number in range(20):
        folder = tmp_path / f"round-{number}"
        if with_dead_holder:
            shutil.copytree(tmp_path / "dead", folder)
        for taker in takers:
            tell(taker, folder)
        assert sorted(answer(taker) for taker in takers) == ["lost", "lost", "lost", "won"], number
        for taker in takers:
            tell(taker, "release")
        assert [answer(taker) for taker in takers] == ["released"] * 4
        assert names_in(folder) == []


def test_one_that_died_while_it_cleared_a_dead_holders_lock_keeps_nobody_out(tmp_path: Path) -> None:
    die_holding(tmp_path)
    shutil.copytree(tmp_path / "worker.lock", tmp_path / "worker.lock.clearing")
    with trial_lock(tmp_path):
        pass
    assert names_in(tmp_path) == []


def test_a_lock_of_another_machine_is_respected(tmp_path: Path) -> None:
    die_holding(tmp_path)
    change_holder(tmp_path / "worker.lock", host="elsewhere")
    with pytest.raises(LockedError, match=r"on elsewhere since .* delete the folder .*worker\.lock"):
        trial_lock(tmp_path)
    assert try_trial_lock(tmp_path) is None


def test_a_holder_that_may_not_be_asked_counts_as_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: psutil.Process) -> str:
        raise psutil.AccessDenied

    die_holding(tmp_path)
    change_holder(tmp_path / "worker.lock", pid=psutil.Process().pid)  # one that runs, but for another user
    monkeypatch.setattr(psutil.Process, "status", refuse)
    with pytest.raises(LockedError):
        trial_lock(tmp_path)


@pytest.mark.parametrize("content", ["", "{}", "not json"])
def test_a_lock_that_a_power_cut_spoilt_is_no_lock(tmp_path: Path, content: str) -> None:
    die_holding(tmp_path)
    (tmp_path / "worker.lock" / "holder.json").write_text(content)
    with trial_lock(tmp_path):
        pass


def test_a_lock_works_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("Operation not supported")

    monkeypatch.setattr("os.link", refuse)
    with trial_lock(tmp_path), pytest.raises(LockedError):
        trial_lock(tmp_path)


def test_a_lock_that_was_deleted_by_hand_and_taken_by_another_is_not_released(tmp_path: Path) -> None:
    mine = trial_lock(tmp_path)
    shutil.rmtree(tmp_path / "worker.lock")
    with trial_lock(tmp_path):
        mine.release()
        assert try_trial_lock(tmp_path) is None


def test_its_own_lock_left_on_another_machine_is_a_dead_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep starts a trial again only when it knows its worker's end; another sweep's worker may well be alive."""
    monkeypatch.setattr("socket.gethostname", lambda: "node-1")
    trial_lock(tmp_path, "results/one/control.json")
    monkeypatch.setattr("socket.gethostname", lambda: "node-2")
    with pytest.raises(LockedError, match="on node-1"):
        trial_lock(tmp_path, "results/two/control.json")
    with pytest.raises(LockedError):
        trial_lock(tmp_path)
    trial_lock(tmp_path, "results/one/control.json").release()
