"""An online sweep against a stand-in of W&B's API that drops, delays and refuses."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from record_on_disk import make_sweep
from wandb_stand_in import StandIn

import wandb
from sweep.files import sha256_of
from sweep.record.facts import Record
from sweep.record.settings import TrackersConfig, WandbConfig
from sweep.record.sweep_log import SWEEP_LOG
from sweep.record.sync import main as sync_main
from sweep.record.tracker import make_tracker
from sweep.record.views import write_views

KEY = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return write_views(make_sweep(tmp_path / "results", num_trials=2, num_steps=6, real_configs=True))


@pytest.fixture
def stand_in(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StandIn]:
    server = StandIn(getattr(request, "param", {}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, value in (("WANDB_BASE_URL", server.address), ("WANDB_API_KEY", KEY), ("WANDB_ERROR_REPORTING", "false"),
                        ("NETRC", str(tmp_path / "netrc")), ("WANDB_CONFIG_DIR", str(tmp_path / "config")),
                        ("WANDB_CACHE_DIR", str(tmp_path / "cache")), ("WANDB_DATA_DIR", str(tmp_path / "data"))):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    wandb.teardown()  # a service that an earlier test of this process started would keep its address and key
    yield server
    wandb.teardown()
    server.shutdown()
    server.server_close()


def show(record: Record, mode: str) -> None:
    config = TrackersConfig(chosen=(WandbConfig(name="wandb", project="p", entity=None, mode=mode),))
    tracker = make_tracker(config, record.entry, record.dir, record.results_dir)
    for result in record.results:
        tracker.follow(result.trial)
    for result in record.results:
        tracker.end(result)
    tracker.conclude(record)
    tracker.close()


def rows_of(server: StandIn, run: str, key: str) -> list[Any]:
    rows = server.seen.history.get(run, {})
    return [row["step"] for _, row in sorted(rows.items()) if key in row]


def results_of(record: Record) -> dict[str, str]:
    """What the sweep itself left, without the dashboards' own files."""
    return {str(path.relative_to(record.results_dir)): sha256_of(path) for path in record.results_dir.rglob("*")
            if path.is_file() and "wandb" not in str(path.relative_to(record.results_dir))}


@pytest.mark.parametrize("stand_in", [
    {}, pytest.param({"drop": 17, "refuse": 9, "delay": 4}, marks=pytest.mark.slow)],
    indirect=True, ids=["calm", "stormy"])
def test_an_online_sweep_arrives_whole_and_leaves_the_same_files(record: Record, stand_in: StandIn) -> None:
    before = results_of(record)
    show(record, "online")
    assert results_of(record) == before
    assert not (record.dir / SWEEP_LOG).exists(), (record.dir / SWEEP_LOG).read_text()
    for result in record.results:  # several live runs in one process
        assert rows_of(stand_in, result.trial.train_id, "train/loss") == [1, 2, 3, 4, 5, 6]
        assert rows_of(stand_in, result.trial.train_id, "screen/usefulness") == [2, 4, 6]
    assert any("model" in json.dumps(artifact) for artifact in stand_in.seen.artifacts)
    assert stand_in.seen.views and "parallel" in json.dumps(stand_in.seen.views).lower()
    assert bool(stand_in.seen.faults) == bool(stand_in.faults)
    for path in record.results_dir.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def test_without_a_network_the_runs_are_kept_offline(record: Record, stand_in: StandIn,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweep.record.wandb_sink._INIT_TIMEOUT_S", 3)
    stand_in.faults = {"drop": 1}
    show(record, "online")
    said = (record.dir / SWEEP_LOG).read_text().splitlines()
    assert len(said) == 1 and "kept offline" in said[0] and "sweep.record.sync alex" in said[0]
    assert len(list((record.dir / "wandb").glob("offline-run-*"))) == 3


def test_what_was_kept_offline_is_sent_later(record: Record, stand_in: StandIn,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    show(record, "offline")
    assert not stand_in.seen.history
    assert sync_main([str(record.dir)]) == 0, capsys.readouterr().out
    assert "3 runs sent, 0 left" in capsys.readouterr().out
    assert rows_of(stand_in, record.results[0].trial.train_id, "train/loss") == [1, 2, 3, 4, 5, 6]
    assert sync_main([str(record.dir)]) == 0
    assert "0 runs sent" in capsys.readouterr().out
