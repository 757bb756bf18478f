import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from record_examples import entry, result, score

from sweep.errors import ConfigError
from sweep.files import append_jsonl
from sweep.record.exporter import Follower
from sweep.record.payload import Speed, payload, summary_of, tag_of
from sweep.record.settings import TRACKERS, NoTracker, TrackersConfig, WandbConfig
from sweep.record.shown import Shown, key_of
from sweep.record.sweep_log import SWEEP_LOG
from sweep.record.tracker import Tracker, make_tracker, wandb_mode
from sweep.schema import build
from sweep.trial import DIVERGED, FAILED, TrialResult, to_json, trial_folder

CONF = Path(__file__).parents[3] / "conf" / "tracker"


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def _config(mode: str = "auto") -> WandbConfig:
    return WandbConfig(name="wandb", project="p", entity=None, mode=mode, wait_s=60)


def _only(mode: str = "auto") -> TrackersConfig:
    return TrackersConfig(chosen=(_config(mode),))


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


def test_the_host_that_wandb_login_was_told_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    (tmp_path / "netrc").write_text("machine wandb.example.org:8080 login user password secret\n")
    assert wandb_mode(_config()) == "offline"
    (tmp_path / "settings").write_text("[default]\nbase_url = https://wandb.example.org:8080\n")
    assert wandb_mode(_config()) == "online"


def test_online_without_a_key_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tracker\.wandb\.mode=online needs an API key.*tracker=none"):
        make_tracker(_only("online"), entry(), tmp_path / "alex", tmp_path)


def test_a_follower_reads_each_whole_row_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    follower = Follower(path)
    assert follower.new_rows() == []
    path.write_text('{"kind": "train", "step": 1}\n{"kind": "train", "step": 2}\n{"st')
    assert [row["step"] for row in follower.new_rows()] == [1, 2]
    path.write_text('{"kind": "train", "step": 1}\n{"kind": "train", "step": 2}\n{"kind": "train", "step": 3}\n')
    assert [row["step"] for row in follower.new_rows()] == [3]
    assert follower.new_rows() == []


def test_a_follower_notices_a_file_that_was_cut_back_and_grew_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f'{{"kind": "train", "step": {step}, "t": {step}}}\n' for step in (1, 2)))
    follower = Follower(path)
    follower.new_rows()
    path.write_text("".join(f'{{"kind": "train", "step": {step}, "t": {step * 11}}}\n' for step in (1, 2, 3, 4)))
    assert {3, 4} <= {row["step"] for row in follower.new_rows()}


def test_rows_of_a_rewound_trial_are_new_only_beyond_what_was_shown(tmp_path: Path) -> None:
    shown = Shown(tmp_path / "shown.jsonl")
    shown.add([key_of({"kind": "train", "step": step}) for step in (1, 2, 3)])
    assert key_of({"kind": "train", "step": 3}) in shown and key_of({"kind": "train", "step": 4}) not in shown
    shown.add([key_of({"kind": "score", "step": 2, "score": {"score_id": "a"}})])
    assert key_of({"kind": "score", "step": 2, "score": {"score_id": "b"}}) not in shown, "another strength"


def test_what_never_came_is_forgotten_and_the_list_outlives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "shown.jsonl"
    shown = Shown(path)
    shown.add(["train:1", "train:2", "train:3"])
    shown.end("alex", is_final=True)
    with path.open("a") as file:
        file.write('{"row": "trai')  # killed while writing
    again = Shown(path)
    assert again.keys == ["train:1", "train:2", "train:3"] and again.is_final
    again.keep(2)
    again.add(["train:3"])
    again.confirm(3)
    for read in (again, Shown(path)):
        assert (read.keys, read.sweeps, read.is_final) == (["train:1", "train:2", "train:3"], ["alex"], False)
        assert read.num_confirmed == 3 and "train:3" in read and "train:4" not in read


def test_score_rows_are_named_by_stage_and_leave_out_the_unknown() -> None:
    row = {"kind": "score", "step": 30, "epoch": 3, "score": to_json(score(None, stage="screen"))}
    shown = payload(row)
    assert shown["screen/likeness"] == 0.8 and shown["screen/likeness_low"] == pytest.approx(0.75)
    assert shown["step"] == 30 and shown["screen/details/detect_rate"] == 0.9
    assert not any("usefulness" in key or "hair" in key for key in shown)


def test_steps_per_second_count_neither_validation_nor_scores() -> None:
    speed = Speed()
    rows = [("train", 9, 99.5), ("train", 10, 100.0), ("checkpoint", 10, None), ("validation", 10, 130.0),
            ("score", 10, 160.0), ("train", 11, 160.5)]
    found = [speed.of({"kind": kind, "step": step, **({"attributed_s": s} if s else {})}) for kind, step, s in rows]
    assert found == [{}, {"train/steps_per_s": 2.0}, {}, {}, {}, {"train/steps_per_s": 2.0}]


def test_the_summary_has_scores_or_the_reason() -> None:
    done = summary_of(result(1, (0.8, 0.7, 0.9)))
    assert (done["usefulness"], done["usefulness_low"], done["file"]) == (0.8, 0.7, "alexq-000003.safetensors")
    failed = result(1, status=FAILED, reason="out of memory")
    assert summary_of(failed)["reason"] == "out of memory"
    assert tag_of(failed) == "failed"
    assert done["reason"] == "", "or that of an earlier try would stay"


def _train_row(step: int) -> dict[str, Any]:
    return {"kind": "train", "step": step, "epoch": 1, "loss": 1 / step, "grad_norm": None}


def _parts(sweep_dir: Path, train_id: str) -> list[Path]:
    """The folders of a run, in the order of their start; wandb adds "-1" to the second of one second."""
    return sorted((sweep_dir / "wandb").glob(f"offline-run-*-{train_id}*"))


def _records(part: Path) -> list[dict[str, Any]]:
    """What a part of a run holds, read by wandb's own reader."""
    done = subprocess.run([sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(part)], check=True,
                          capture_output=True, text=True, env={**os.environ, "WANDB_ERROR_REPORTING": "false"})
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def _steps(parts: list[Path], key: str) -> list[int]:
    records = [record for part in parts for record in _records(part)]
    return [r["history"]["item"]["step"] for r in records if r["type"] == "history" and key in r["history"]["item"]]


def _summary(part: Path) -> dict[str, Any]:
    """What a part of a run ends with."""
    summary: dict[str, Any] = {}
    for record in _records(part):
        if record["type"] == "summary":
            summary |= record["summary"].get("update", {})
    return summary


def _start(tmp_path: Path, sweep_dir: Path, *ended: TrialResult) -> None:
    """One start of a sweep of two trials, of which some end."""
    tracker = make_tracker(_only(), entry(name=sweep_dir.name), sweep_dir, tmp_path)
    for number in (1, 2):
        tracker.follow(result(number).trial)
    for each in ended:
        tracker.end(each)
    tracker.close()
    assert not (sweep_dir / SWEEP_LOG).exists(), (sweep_dir / SWEEP_LOG).read_text()


@pytest.fixture
def metrics(tmp_path: Path) -> list[Path]:
    """metrics.jsonl of two trials, with three steps each."""
    paths = [trial_folder(tmp_path, f"id{n:04d}").metrics for n in (1, 2)]
    for path in paths:
        for step in (1, 2, 3):
            append_jsonl(path, _train_row(step))
    return paths


def test_offline_runs_hold_each_row_once_over_a_kill_and_a_rewind(tmp_path: Path, metrics: list[Path]) -> None:
    sweep_dir = tmp_path / "alex"
    _start(tmp_path, sweep_dir)
    lines = metrics[0].read_text().splitlines(keepends=True)
    metrics[0].write_text("".join(lines[:2]))  # what a resume does
    for step in (3, 4):
        append_jsonl(metrics[0], {**_train_row(step), "loss": 9.0})
    screened = score((0.7, 0.6, 0.8), stage="screen", score_id="x0")
    append_jsonl(metrics[0], {"kind": "score", "step": 4, "epoch": 1, "score": to_json(screened)})
    later = [replace(score((0.8, 0.7, 0.9), stage=stage, score_id=f"{stage}{strength:g}"), strength=strength)
             for stage, strength in (("refine", 0.6), ("refine", 0.8), ("confirm", 0.8))]
    ends = (replace(result(1, (0.8, 0.7, 0.9)), scores=(screened, *later)),
            result(2, status=DIVERGED, reason="loss is NaN"))
    _start(tmp_path, sweep_dir, *ends)

    parts = _parts(sweep_dir, "id0001")
    assert len(parts) == 2
    assert _steps(parts, "train/loss") == [1, 2, 3, 4]
    assert _steps(parts, "screen/usefulness") == [4]
    assert _steps(parts, "refine/usefulness") == [30, 30], "each strength is a row"
    assert _steps(parts, "confirm/usefulness") == _steps(parts, "confirm/strength") == [30]
    records = _records(parts[0])
    run = next(r["run"] for r in records if r["type"] == "run")
    assert (run["run_id"], run["run_group"]) == ("id0001", "alex")
    assert run["config"]["update"]["optimizer.name"] == "adamw"
    text = json.dumps(_records(parts[1]))
    assert '"verdict": "good"' in text and '"tags": ["good", "sweep:alex"]' in text
    assert _steps(_parts(sweep_dir, "id0002"), "train/loss") == [1, 2, 3]

    _start(tmp_path, sweep_dir, *ends)  # all is shown: nothing more to open
    assert [len(_parts(sweep_dir, train_id)) for train_id in ("id0001", "id0002")] == [2, 2]


def test_a_failed_trial_that_succeeds_later_is_shown_to_its_end(tmp_path: Path, metrics: list[Path]) -> None:
    sweep_dir = tmp_path / "alex"
    _start(tmp_path, sweep_dir, result(1, status=FAILED, reason="out of memory"))
    append_jsonl(metrics[0], _train_row(4))
    _start(tmp_path, sweep_dir, result(1, (0.8, 0.7, 0.9)))
    parts = _parts(sweep_dir, "id0001")
    assert _steps(parts, "train/loss") == [1, 2, 3, 4]
    first, last = (_summary(part) for part in parts)
    assert (first["status"], first["reason"]) == ("failed", "out of memory")
    assert (last["status"], last["reason"], last["verdict"]) == ("done", "", "good")


def test_a_trial_of_two_sweeps_is_one_run_whose_rows_are_shown_once(tmp_path: Path, metrics: list[Path]) -> None:
    for name in ("alex", "again", "again"):
        _start(tmp_path, tmp_path / name, result(1, (0.8, 0.7, 0.9)))
    [first], [second] = (_parts(tmp_path / name, "id0001") for name in ("alex", "again"))
    assert _steps([first, second], "train/loss") == [1, 2, 3]
    assert "sweep:again" in json.dumps(_records(second))


def test_a_score_is_shown_with_its_contact_sheet(tmp_path: Path, metrics: list[Path]) -> None:
    from PIL import Image

    images = trial_folder(tmp_path, "id0001").images
    images.mkdir(parents=True)
    Image.new("RGB", (8, 8), "red").save(images / "pictured.png")
    for step, score_id in ((3, "pictured"), (6, "bare")):
        measured = to_json(score(None, stage="screen", score_id=score_id))
        append_jsonl(metrics[0], {"kind": "score", "step": step, "epoch": 1, "score": measured})
    _start(tmp_path, tmp_path / "alex", result(1))
    parts = _parts(tmp_path / "alex", "id0001")
    assert _steps(parts, "screen/likeness") == [3, 6]
    assert _steps(parts, "screen/sheet.path") == [3]
    [picture] = parts[0].glob("files/media/images/screen/sheet*.png")
    assert Image.open(picture).getpixel((0, 0)) == (255, 0, 0)


def test_a_failing_wandb_is_said_once_and_harms_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    def fail(**_: object) -> None:
        raise wandb.errors.CommError("no network")

    monkeypatch.setattr(wandb, "init", fail)
    tracker = make_tracker(_only(), entry(), tmp_path / "alex", tmp_path)
    tracker.follow(result(1).trial)
    tracker.end(result(1))
    tracker.close()
    said = (tmp_path / "alex" / SWEEP_LOG).read_text().splitlines()
    assert len(said) == 1
    assert "wandb is switched off" in said[0] and "no network" in said[0]


def test_without_a_tracker_nothing_is_written(tmp_path: Path) -> None:
    nothing = TrackersConfig(chosen=(NoTracker(name="none"),))
    tracker: Tracker = make_tracker(nothing, entry(), tmp_path / "alex", tmp_path)
    tracker.follow(result(1).trial)
    tracker.end(result(1))
    tracker.close()
    assert list(tmp_path.iterdir()) == []


def test_the_record_imports_nothing_heavy() -> None:
    code = ("import sys, sweep.record.diary, sweep.record.table, sweep.record.terminal, sweep.record.wandb_sink\n"
            "print([m for m in ('torch', 'wandb', 'rich', 'matplotlib', 'yaml') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
