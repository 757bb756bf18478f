"""An online sweep against a stand-in of W&B's API that drops, delays and refuses."""

import dataclasses
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from record_on_disk import make_sweep
from wandb_stand_in import StandIn

from sweep.files import read_jsonl, sha256_of
from sweep.record.entry import write_entry
from sweep.record.facts import Record, read_record
from sweep.record.settings import TrackersConfig, WandbConfig
from sweep.record.sweep_log import SWEEP_LOG, note
from sweep.record.sync import main as sync_main
from sweep.record.tracker import Tracker, make_tracker
from sweep.record.views import write_views
from sweep.redact import without_secrets
from sweep.trial import trial_folder

ROOT = Path(__file__).parents[3]
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
    monkeypatch.setattr("sweep.record.wandb_sink._ASK_TIMEOUT_S", 4)
    wandb.teardown()  # a service that an earlier test of this process started would keep its address and key
    yield server
    wandb.teardown()
    server.is_closing.set()
    server.shutdown()
    server.server_close()


def tracker_of(record: Record, mode: str, wait_s: int = 60) -> Tracker:
    config = TrackersConfig(chosen=(WandbConfig(name="wandb", project="p", entity=None, mode=mode, wait_s=wait_s),))
    return make_tracker(config, record.entry, record.dir, record.results_dir)


def show(record: Record, mode: str, wait_s: int = 60) -> None:
    tracker = tracker_of(record, mode, wait_s)
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
            if path.is_file() and "wandb" not in str(path.relative_to(record.results_dir)) and path.name != SWEEP_LOG}


def test_an_online_sweep_arrives_whole_and_leaves_the_same_files(record: Record, stand_in: StandIn) -> None:
    before = results_of(record)
    show(record, "online")
    assert results_of(record) == before
    assert not (record.dir / SWEEP_LOG).exists(), (record.dir / SWEEP_LOG).read_text()
    assert_whole(record, stand_in)  # several live runs in one process
    assert any("model" in json.dumps(artifact) for artifact in stand_in.seen.artifacts)
    assert stand_in.seen.views and "parallel" in json.dumps(stand_in.seen.views).lower()


@pytest.mark.slow
def test_a_storm_changes_no_file_and_what_it_took_is_sent_later(record: Record, stand_in: StandIn,
                                                                capsys: pytest.CaptureFixture[str]) -> None:
    before, begun_s = results_of(record), time.monotonic()
    stand_in.faults = {"drop": 1 / 7, "refuse": 1 / 5, "delay": 1 / 3}
    show(record, "online", wait_s=120)
    assert time.monotonic() - begun_s < 120 + 10
    assert results_of(record) == before
    assert {"drop", "refuse", "delay"} == set(stand_in.seen.faults)
    wandb.teardown()
    stand_in.faults = {}
    assert "left" not in synced(record, capsys)
    assert_whole(record, stand_in)
    assert any("model" in json.dumps(artifact) for artifact in stand_in.seen.artifacts)
    assert stand_in.seen.views


@pytest.mark.slow
def test_a_sweep_that_trains_in_a_storm_leaves_the_files_of_one_without_a_tracker(stand_in: StandIn, tmp_path: Path
                                                                                 ) -> None:
    stand_in.faults = {"drop": 1 / 7, "refuse": 1 / 5, "delay": 1 / 3}
    files: dict[str, dict[str, str]] = {}
    trackers = {"storm": ["tracker.wandb.mode=online", "tracker.wandb.wait_s=20"], "none": ["tracker=none"]}
    for name, tracker in trackers.items():
        results = tmp_path / name
        subprocess.run([sys.executable, str(ROOT / "train.py"), "-m", "network_dim=2,4", "max_train_steps=6",
                        "scoring=none", f"sweep.results_dir={results}", *tracker], cwd=ROOT, check=True, timeout=300)
        files[name] = {str(path.relative_to(results)): sha256_of(path)
                       for path in results.glob("trials/*/checkpoints/*")}
        document = (ROOT / "docs" / "records.md").read_text(encoding="utf-8")
        for path in results.glob("trials/*/metrics.jsonl"):
            keys = {key for row in read_jsonl(path) for key in row}
            assert keys and all(f"`{key}`" in document for key in keys), "every key of a real row is documented"
    assert len(files["none"]) >= 2 and files["storm"] == files["none"]
    assert {"drop", "refuse", "delay"} == set(stand_in.seen.faults) and stand_in.seen.history


def test_the_run_that_wandbs_agent_began_gets_a_trial_that_was_shown_before(record: Record, stand_in: StandIn,
                                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    show(record, "online")
    wandb.teardown()
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    monkeypatch.setenv("WANDB_RUN_ID", "ofagent")
    tracker = tracker_of(record, "online")
    tracker.end(record.results[0])
    tracker.conclude(record)
    tracker.close()
    assert rows_of(stand_in, "ofagent", "train/loss") == [1, 2, 3, 4, 5, 6]
    assert stand_in.seen.summary["ofagent"]["usefulness"] is not None  # what the agent's search is told
    assert_whole(record, stand_in)


PASSWORD = "pa55word-of-the-study"


def files_with(results_dir: Path, secret: str) -> list[Path]:
    return [path for path in results_dir.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_no_secret_stands_in_any_file_of_the_results(mode: str, record: Record, stand_in: StandIn, tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """The dashboard's own files; tests/unit/test_redact.py has a whole sweep's."""
    monkeypatch.delenv("WANDB_API_KEY")
    (tmp_path / "netrc").write_text(f"machine {stand_in.address.removeprefix('http://')} login user password {KEY}\n")
    monkeypatch.setenv("HF_TOKEN", TOKEN := "hf_0123456789abcdefghij")
    storage = f"postgresql+psycopg://user:{PASSWORD}@host/db"
    command = without_secrets(f"python train.py -m search.storage={storage} hf_token={TOKEN}")
    entry = dataclasses.replace(record.entry, command=command)
    write_entry(record.dir / "sweep.yaml", entry)
    show(write_views(record.dir), mode)
    note(record.dir, f"could not reach {storage} with {TOKEN}")
    for secret in (KEY, PASSWORD, TOKEN):
        assert files_with(record.results_dir, secret) == []
    assert "search.storage" in (record.dir / "sweep.yaml").read_text()
    planted = next((record.dir / "wandb").glob("*run-*")) / "logs" / "planted.log"
    planted.write_bytes(b"\x00" + KEY.encode())
    assert files_with(record.results_dir, KEY) == [planted], "the search would not find one"


def test_without_a_network_the_runs_are_kept_offline(record: Record, stand_in: StandIn,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweep.record.wandb_sink._INIT_TIMEOUT_S", 3)
    stand_in.faults = {"drop": 1}
    show(record, "online")
    said = (record.dir / SWEEP_LOG).read_text().splitlines()
    assert len(said) == 1 and "kept offline" in said[0]
    assert f"sweep.record.sync {record.dir}" in said[0], "where it is found from here"
    assert len(list((record.dir / "wandb").glob("offline-run-*"))) == 3


def synced(record: Record, capsys: pytest.CaptureFixture[str], wait_s: int = 60) -> str:
    """What the command says; its exit code tells whether something is left."""
    capsys.readouterr()
    code = sync_main([str(record.dir), "--wait-s", str(wait_s)])
    said = capsys.readouterr().out
    assert code == (1 if "left" in said else 0)
    return said


def assert_whole(record: Record, server: StandIn) -> None:
    """Each run has every row of its trial's file once."""
    for result in record.results:
        path = trial_folder(record.results_dir, result.trial.train_id).metrics
        rows = list(read_jsonl(path))
        for kind, key in (("train", "train/loss"), ("validation", "validation/loss"), ("score", "screen/usefulness")):
            wanted = [row["step"] for row in rows if row["kind"] == kind]
            assert sorted(rows_of(server, result.trial.train_id, key)) == wanted, (result.trial.train_id, key)
        for stage in ("refine", "confirm"):  # rows of their own, not in that file
            assert rows_of(server, result.trial.train_id, f"{stage}/usefulness") == [
                score.step for score in result.scores if score.stage == stage]
        assert server.seen.summary[result.trial.train_id]["usefulness"] is not None


def test_what_was_kept_offline_is_sent_later(record: Record, stand_in: StandIn,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    show(record, "offline")
    assert not stand_in.seen.history
    assert synced(record, capsys) == "3 runs sent\n"
    assert_whole(record, stand_in)
    for part in (record.dir / "wandb").glob("offline-run-*"):  # wandb's own command would send it a second time
        assert list(part.glob("*.wandb.synced"))
    assert synced(record, capsys) == "0 runs sent\n"
    assert_whole(record, stand_in)


def test_a_sweep_that_ran_without_wandb_can_be_sent(record: Record, stand_in: StandIn,
                                                    capsys: pytest.CaptureFixture[str]) -> None:
    assert synced(record, capsys) == "3 runs sent\n"
    assert_whole(record, stand_in)


@pytest.mark.parametrize("fault", [pytest.param("drop", marks=pytest.mark.slow), "forbid"])
def test_what_a_run_lost_late_is_sent_later_and_nothing_twice(fault: str, record: Record, stand_in: StandIn,
                                                              capsys: pytest.CaptureFixture[str]) -> None:
    """The network goes, or the key is revoked, when a part of the rows has arrived."""
    path = trial_folder(record.results_dir, record.results[0].trial.train_id).metrics
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]))
    tracker = tracker_of(record, "online")
    tracker.follow(record.results[0].trial)
    tracker.close()
    assert rows_of(stand_in, record.results[0].trial.train_id, "train/loss") == [1, 2, 3]

    path.write_bytes(whole)
    tracker = tracker_of(record, "online", wait_s=4)
    tracker.follow(record.results[0].trial)
    begun = len(stand_in.seen.operations)
    while len(stand_in.seen.operations) < begun + 3:  # the run has begun again
        time.sleep(0.05)
    stand_in.faults = {fault: 1}
    for result in record.results:
        tracker.end(result)
    tracker.close()
    assert len(rows_of(stand_in, record.results[0].trial.train_id, "train/loss")) < 6

    assert "left:" in synced(record, capsys, wait_s=5), "still no network, or no right to write"
    wandb.teardown()
    stand_in.faults = {}
    assert "left" not in synced(record, capsys)
    assert_whole(record, stand_in)
    assert synced(record, capsys) == "0 runs sent\n"


def test_rows_that_a_kill_lost_are_shown_when_the_sweep_goes_on(record: Record, stand_in: StandIn) -> None:
    """A kill between the list of what is shown and the showing, and one while the last row is listed."""
    show(record, "online")
    run = record.results[0].trial.train_id
    for lost in [offset for offset in stand_in.seen.history[run] if offset > 4]:
        del stand_in.seen.history[run][lost]
    [shown] = trial_folder(record.results_dir, run).root.glob("shown-wandb-*.jsonl")
    shown.write_text(shown.read_text()[:-5])
    show(record, "online")
    assert_whole(record, stand_in)


def test_two_sweeps_that_show_one_trial_at_once_show_each_row_once(record: Record, stand_in: StandIn,
                                                                   tmp_path: Path) -> None:
    other_dir = record.results_dir / "again"
    shutil.copytree(record.dir, other_dir)
    other = read_record(other_dir)
    other = dataclasses.replace(other, entry=dataclasses.replace(other.entry, name="again"))
    trackers = [tracker_of(one, "online") for one in (record, other)]
    for _ in range(2):
        for tracker in trackers:
            for result in record.results:
                tracker.follow(result.trial)
    for tracker in trackers:
        for result in record.results:
            tracker.end(result)
    closing = [threading.Thread(target=tracker.close) for tracker in trackers]
    for each in closing:
        each.start()
    for each in closing:
        each.join()
    assert_whole(record, stand_in)
    for result in record.results:
        tags = stand_in.seen.buckets[result.trial.train_id]["tags"]
        assert sorted(tag for tag in tags if tag.startswith("sweep:")) == ["sweep:again", "sweep:alex"]
        assert not (record.dir / SWEEP_LOG).exists(), (record.dir / SWEEP_LOG).read_text()


_A_SWEEP = """
import sys, time
from pathlib import Path
from sweep.record.entry import write_entry
from sweep.record.facts import read_record
from sweep.record.settings import TrackersConfig, WandbConfig
from sweep.record.tracker import make_tracker
record = read_record(Path(sys.argv[1]))
tracker = make_tracker(TrackersConfig(chosen=(WandbConfig(name="wandb", project="p", entity=None, mode="online",
                                                          wait_s=5),)), record.entry, record.dir, record.results_dir)
for result in record.results:
    tracker.follow(result.trial)
print("following", flush=True)
sys.stdin.readline()
for result in record.results:
    tracker.end(result)
tracker.conclude(record)
tracker.close()
"""


@pytest.mark.parametrize("when", ["from the start", "in the middle"])
def test_a_service_that_never_answers_holds_no_sweep_up(when: str, record: Record, stand_in: StandIn) -> None:
    """The whole process, as wandb waits once more at its end."""
    before = results_of(record)
    stand_in.faults = {"hang": 1} if when == "from the start" else {}
    process = subprocess.Popen([sys.executable, "-c", _A_SWEEP, str(record.dir)], stdin=subprocess.PIPE, text=True,
                               stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == "following\n"
    while when == "in the middle" and len(stand_in.seen.buckets) < 2:
        time.sleep(0.05)
    stand_in.faults = {"hang": 1}
    begun_s = time.monotonic()
    process.communicate("go on\n", timeout=100)
    assert process.returncode == 0
    assert time.monotonic() - begun_s < 5 + 15  # wait_s, and the end of a process on a busy machine
    assert results_of(record) == before
    assert f"sweep.record.sync {record.dir}" in (record.dir / SWEEP_LOG).read_text()
