"""Searches that share a real PostgreSQL, which is restarted under them. `pytest -m postgres -n 0`; see postgres.sh."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from sweep.files import read_jsonl
from tests.conftest import ROOT

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

# Runs a search of argv[3] trials named argv[2] in argv[1] with a stand-in for training.
SEARCH = """
import sys
from tests.stand_in import StandIn, run_sweep

lines = [f"sweep.results_dir={sys.argv[1]}", f"sweep.name={sys.argv[2]}", "tracker=none", "dataset.num_images=4",
         "launcher.devices=1", "search=tpe", "unet_lr=tag(log,interval(1e-6,1e-2))", "network_dim=choice(8,32,128)",
         f"search.num_trials={sys.argv[3]}", "pack.max_trials=2", "search.pruning.rule=none", *sys.argv[4:]]
launcher = StandIn(pause_s=0.05)
run_sweep(lines, lambda config, folder: launcher)
"""


class Server:
    def __init__(self, folder: Path):
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"postgresql+psycopg://test:test@127.0.0.1:{self.port}/test"

    def do(self, what: str) -> None:
        subprocess.run([str(ROOT / "tests/clusters/postgres.sh"), what, str(self.folder), str(self.port)], check=True,
                       timeout=120)


@pytest.fixture
def server() -> Iterator[Server]:
    if not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        pytest.skip("no PostgreSQL: apt-get install postgresql")
    with tempfile.TemporaryDirectory() as folder:  # not pytest's: the server's user must be able to enter it
        Path(folder).chmod(0o755)
        made = Server(Path(folder) / "server")
        made.do("start")
        yield made
        made.do("stop")


def start(folder: Path, name: str, num_trials: int, url: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", SEARCH, str(folder), name, str(num_trials), *arguments], cwd=ROOT,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            env={**os.environ, "LORA_SWEEP_STORAGE": url})


def num_finished(url: str) -> int:
    try:
        storage = optuna.storages.RDBStorage(url)
        return sum(trial.state.is_finished() for name in ("one", "two") if name in optuna.get_all_study_names(storage)
                   for trial in optuna.load_study(study_name=name, storage=storage).trials)
    except Exception:  # its schema is just being made
        return 0


def test_two_searches_share_a_server_that_is_restarted(tmp_path: Path, server: Server) -> None:
    """Both start at once, on a database without tables."""
    searches = {name: start(tmp_path, name, 40, server.url) for name in ("one", "two")}
    outputs: dict[str, str] = {}
    readers = [threading.Thread(target=lambda name=name: outputs.update({name: searches[name].communicate()[0]}))
               for name in searches]
    for reader in readers:
        reader.start()
    deadline_s = time.monotonic() + 300
    while num_finished(server.url) < 20:
        assert time.monotonic() < deadline_s and any(search.poll() is None for search in searches.values()), outputs
        time.sleep(0.2)
    running = [name for name, search in searches.items() if search.poll() is None]
    server.do("restart")
    for reader in readers:
        reader.join(300)
    assert running, "the restart came too late"
    for name, search in searches.items():
        assert search.returncode == 0, outputs[name]
        assert "test:test" not in outputs[name]
        trained = [row["train_id"] for row in read_jsonl(tmp_path / name / "trials.jsonl")]
        assert len(trained) == len(set(trained)) == 40
        study = optuna.load_study(study_name=name, storage=server.url)
        assert all(trial.state.is_finished() for trial in study.trials), "none is left running"
        told = [trial.user_attrs["train_id"] for trial in study.trials
                if trial.state == optuna.trial.TrialState.COMPLETE and "train_id" in trial.user_attrs]
        assert sorted(told) == sorted(trained), "none lost, none double"
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert b"test:test" not in path.read_bytes(), path


def test_a_start_waits_for_a_server_that_is_away(tmp_path: Path, server: Server) -> None:
    server.do("stop")
    search = start(tmp_path, "one", 3, server.url)
    assert search.stdout is not None
    said = ""
    while "can't be opened yet" not in said:
        line = search.stdout.readline()
        assert line, said
        said += line
    server.do("restart")
    rest, _ = search.communicate(timeout=200)
    assert search.returncode == 0, said + rest
    assert f"port {server.port} failed: Connection refused" in said and "test:test" not in said + rest


def test_a_wrong_password_is_named_and_not_shown(tmp_path: Path, server: Server) -> None:
    search = start(tmp_path, "one", 3, server.url.replace("test:test", "test:not-this-one"))
    said, _ = search.communicate(timeout=200)
    assert search.returncode and "ConfigError: The search's database can't be opened (" in said, said
    assert 'password authentication failed for user "test"' in said and "not-this-one" not in said


def test_a_second_conductor_is_refused_by_name_and_a_dead_ones_place_is_taken(tmp_path: Path, server: Server) -> None:
    first = start(tmp_path, "one", 400, server.url)
    deadline_s = time.monotonic() + 120
    while not (tmp_path / "one" / "conductor.lock" / "holder.json").exists():
        assert time.monotonic() < deadline_s and first.poll() is None
        time.sleep(0.05)
    second = start(tmp_path, "one", 400, server.url)
    said, _ = second.communicate(timeout=120)
    assert second.returncode and f"is being run by process {first.pid} on {socket.gethostname()}" in said
    first.kill()
    first.communicate()
    third = start(tmp_path, "one", 5, server.url)
    said, _ = third.communicate(timeout=200)
    assert third.returncode == 0, said
