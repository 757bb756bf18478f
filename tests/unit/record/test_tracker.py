import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from record_examples import entry, result, score

from sweep.errors import ConfigError
from sweep.files import append_jsonl
from sweep.record.sweep_log import SWEEP_LOG
from sweep.record.tracker import TRACKERS, NoTracker, Tracker, WandbConfig, make_tracker, wandb_mode
from sweep.record.wandb_tracker import Follower, Marks, flat, payload, summary_of, tag_of
from sweep.schema import build
from sweep.trial import FAILED, to_json, trial_folder

CONF = Path(__file__).parents[3] / "conf" / "tracker"


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def _config(mode: str = "auto") -> WandbConfig:
    return WandbConfig(name="wandb", project="p", entity=None, mode=mode)


@pytest.mark.parametrize("name", sorted(TRACKERS))
def test_each_tracker_has_its_defaults_in_conf(name: str) -> None:
    import yaml

    built = build(TRACKERS[name], yaml.safe_load((CONF / f"{name}.yaml").read_text()))
    assert built.name == name  # type: ignore[attr-defined]


def test_mode_follows_the_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert wandb_mode(_config()) == "offline"
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    assert wandb_mode(_config()) == "online"
    assert wandb_mode(_config("offline")) == "offline"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert wandb_mode(_config()) == "offline"


def test_a_key_for_another_host_does_not_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine github.com login user password secret\n")
    assert wandb_mode(_config()) == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert wandb_mode(_config()) == "online"


def test_online_without_a_key_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tracker\.mode=online needs an API key.*tracker=none"):
        make_tracker(_config("online"), entry(), tmp_path / "alex", tmp_path)


def test_a_follower_reads_each_whole_row_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    follower = Follower(path)
    assert follower.new_rows() == []
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert [row["step"] for row in follower.new_rows()] == [1, 2]
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n')
    assert [row["step"] for row in follower.new_rows()] == [3]
    assert follower.new_rows() == []


def test_a_follower_notices_a_file_that_was_cut_back_and_grew_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "t": 1}\n{"step": 2, "t": 2}\n')
    follower = Follower(path)
    follower.new_rows()
    path.write_text('{"step": 1, "t": 1}\n{"step": 2, "t": 22}\n{"step": 3, "t": 3}\n{"step": 4, "t": 4}\n')
    assert {3, 4} <= {row["step"] for row in follower.new_rows()}


def test_rows_of_a_rewound_trial_are_new_only_beyond_what_was_shown() -> None:
    marks = Marks()
    train = [{"kind": "train", "step": step} for step in (1, 2, 3, 2, 3, 4)]
    assert [marks.take(row) for row in train] == [True, True, True, False, False, True]
    first = {"kind": "score", "step": 2, "score": {"score_id": "a"}}
    other_strength = {"kind": "score", "step": 2, "score": {"score_id": "b"}}
    assert [marks.take(row) for row in (first, other_strength, first)] == [True, True, False]


def test_score_rows_are_named_by_stage_and_leave_out_the_unknown() -> None:
    row = {"kind": "score", "step": 30, "epoch": 3, "score": to_json(score(None, stage="screen"))}
    shown = payload(row)
    assert shown["screen/likeness"] == 0.8 and shown["screen/likeness_low"] == pytest.approx(0.75)
    assert shown["step"] == 30 and shown["screen/details/detect_rate"] == 0.9
    assert not any("usefulness" in key or "hair" in key for key in shown)


def test_the_summary_has_scores_or_the_reason() -> None:
    done = summary_of(result(1, (0.8, 0.7, 0.9)))
    assert (done["usefulness"], done["usefulness_low"], done["file"]) == (0.8, 0.7, "alexq-000003.safetensors")
    failed = result(1, status=FAILED, reason="out of memory")
    assert summary_of(failed)["reason"] == "out of memory"
    assert tag_of(failed) == "failed"


def test_config_is_flat_and_whole() -> None:
    assert flat({"a": {"b": {"c": 1}}, "d": [1, 2], "e": {}}) == {"a.b.c": 1, "d": [1, 2], "e": {}}


def _train_row(step: int) -> dict[str, Any]:
    return {"kind": "train", "step": step, "epoch": 1, "loss": 1 / step, "grad_norm": None}


def _records(sweep_dir: Path, train_id: str) -> list[dict[str, Any]]:
    """A run's records, read by wandb's own reader; several parts of a run in the order of their start."""
    records = []
    for folder in sorted((sweep_dir / "wandb").glob(f"offline-run-*-{train_id}")):
        done = subprocess.run([sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)], check=True,
                              capture_output=True, text=True, env={**os.environ, "WANDB_ERROR_REPORTING": "false"})
        records += [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return records


def _steps(records: list[dict[str, Any]], key: str) -> list[int]:
    return [r["history"]["item"]["step"] for r in records if r["type"] == "history" and key in r["history"]["item"]]


def _follow_and_end(tmp_path: Path, sweep_dir: Path, is_end: bool) -> None:
    tracker = make_tracker(_config(), entry(), sweep_dir, tmp_path)
    results = [result(1, (0.8, 0.7, 0.9)), result(2, status=FAILED, reason="out of memory")]
    for each in results:
        tracker.follow(each.trial)
    for each in results if is_end else []:
        tracker.end(each)
    tracker.close()


def test_offline_runs_hold_each_row_once_over_a_kill_and_a_rewind(tmp_path: Path) -> None:
    sweep_dir = tmp_path / "alex"
    metrics = [trial_folder(tmp_path, f"id{n:04d}").metrics for n in (1, 2)]
    for path in metrics:
        for step in (1, 2, 3):
            append_jsonl(path, _train_row(step))
    _follow_and_end(tmp_path, sweep_dir, is_end=False)
    lines = metrics[0].read_text().splitlines(keepends=True)
    metrics[0].write_text("".join(lines[:2]))  # what a resume does
    for step in (3, 4):
        append_jsonl(metrics[0], {**_train_row(step), "loss": 9.0})
    append_jsonl(metrics[0], {"kind": "score", "step": 4, "epoch": 1, "score": to_json(score((0.8, 0.7, 0.9)))})
    _follow_and_end(tmp_path, sweep_dir, is_end=True)

    assert not (sweep_dir / SWEEP_LOG).exists()
    records = _records(sweep_dir, "id0001")
    assert _steps(records, "train/loss") == [1, 2, 3, 4]
    assert _steps(records, "confirm/usefulness") == [4]
    run = next(r["run"] for r in records if r["type"] == "run")
    assert (run["run_id"], run["run_group"]) == ("id0001", "alex")
    assert run["config"]["update"]["optimizer.name"] == "adamw"
    text = json.dumps(records)
    assert '"verdict": "good"' in text and '"tags": ["good"]' in text
    assert _steps(_records(sweep_dir, "id0002"), "train/loss") == [1, 2, 3]

    num_runs = len(list((sweep_dir / "wandb").glob("offline-run-*")))
    _follow_and_end(tmp_path, sweep_dir, is_end=True)  # all is shown: nothing more to open
    assert len(list((sweep_dir / "wandb").glob("offline-run-*"))) == num_runs == 4


def test_a_failing_wandb_is_said_once_and_harms_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    def fail(**_: object) -> None:
        raise wandb.errors.CommError("no network")

    monkeypatch.setattr(wandb, "init", fail)
    _follow_and_end(tmp_path, tmp_path / "alex", is_end=True)
    said = (tmp_path / "alex" / SWEEP_LOG).read_text().splitlines()
    assert len(said) == 1
    assert "wandb is switched off" in said[0] and "no network" in said[0]


def test_without_a_tracker_nothing_is_written(tmp_path: Path) -> None:
    tracker: Tracker = make_tracker(NoTracker(name="none"), entry(), tmp_path / "alex", tmp_path)
    tracker.follow(result(1).trial)
    tracker.end(result(1))
    tracker.close()
    assert list(tmp_path.iterdir()) == []


def test_the_record_imports_nothing_heavy() -> None:
    code = ("import sys, sweep.record.diary, sweep.record.table, sweep.record.terminal, sweep.record.wandb_tracker\n"
            "print([m for m in ('torch', 'wandb', 'rich', 'matplotlib', 'yaml') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
