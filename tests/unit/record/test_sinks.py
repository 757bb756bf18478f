"""A whole sweep on the dashboards, read back with their own readers; and no secret in any file of the results."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from record_on_disk import make_sweep

from sweep.command_line import CONF_DIR, Known
from sweep.errors import ConfigError
from sweep.record.facts import Record
from sweep.record.redact import without_secrets
from sweep.record.settings import TensorboardConfig, TrackersConfig, WandbConfig, trackers_from_tree
from sweep.record.sweep_log import SWEEP_LOG, note
from sweep.record.sync import sync
from sweep.record.tracker import make_tracker
from sweep.record.views import write_views

SECRET = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return write_views(make_sweep(tmp_path / "results", num_trials=2, num_steps=6, real_configs=True))


def shown(record: Record, *chosen: Any) -> None:
    tracker = make_tracker(TrackersConfig(chosen=chosen), record.entry, record.dir, record.results_dir)
    for result in record.results:
        tracker.follow(result.trial)
        tracker.end(result)
    tracker.conclude(record)
    tracker.close()
    assert not (record.dir / SWEEP_LOG).exists(), (record.dir / SWEEP_LOG).read_text()


def records_of(part: Path) -> list[dict[str, Any]]:
    done = subprocess.run([sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(part)], check=True,
                          capture_output=True, text=True, env={**os.environ, "WANDB_ERROR_REPORTING": "false"})
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_an_offline_sweep_holds_every_metric_table_image_and_key(record: Record,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    shown(record, WandbConfig(name="wandb", project="p", entity=None, mode="offline", wait_s=60))
    [part] = (record.dir / "wandb").glob(f"offline-run-*-{record.results[0].trial.train_id}")
    records = records_of(part)
    keys = {key for r in records if r["type"] == "history" for key in r["history"]["item"]}
    assert {"train/loss", "train/unet_lr", "train/used_unet_lr", "train/grad_norm", "train/steps_per_s",
            "validation/loss", "validation/buckets/0", "screen/likeness", "screen/usefulness_low", "screen/sheet.path",
            "scores.path", "samples.path"} <= keys
    config = next(r["run"] for r in records if r["type"] == "run")["config"]["update"]
    assert {"network_dim", "optimizer.name", "dataset.caption_extension", "base_model.resolution"} <= set(config)
    text = json.dumps([r for r in records if r["type"] == "summary"])
    assert all(f'"{key}"' in text for key in ("likeness", "usefulness_low", "file", "strength", "attributed_minutes"))
    [table] = part.glob("files/media/table/samples*.json")
    assert len(json.loads(table.read_text())["data"]) == 9

    [answer] = (record.dir / "wandb").glob("offline-run-*-sweep-*")
    records = records_of(answer)
    artifact = next(r["artifact"] for r in records if r["type"] == "artifact" and r["artifact"]["type"] == "model")
    assert "alexq man" in artifact["description"]
    assert {"README.md", "samples.png", "experiment.yaml"} <= {c["path"] for c in artifact["manifest"]["contents"]}
    assert next(iter(answer.glob("files/media/table/trials*.json")))

    for path in record.results_dir.rglob("*"):  # keys never stand in the record
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


def test_passwords_and_keys_are_blacked_out_before_they_are_kept(tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    command = ("python train.py -m search.storage=postgresql+psycopg://user:pa55word@host/db hf_token=hf_abcdef "
               f"dataset.keep_tokens=2 max_token_length=150 {SECRET}")
    kept = without_secrets(command)
    assert not any(secret in kept for secret in ("pa55word", "hf_abcdef", SECRET))
    assert "postgresql+psycopg://user:***@host/db" in kept
    assert "dataset.keep_tokens=2 max_token_length=150" in kept
    note(tmp_path, f"could not reach postgresql://user:pa55word@host: {SECRET}")
    assert "pa55word" not in (tmp_path / SWEEP_LOG).read_text() and SECRET not in (tmp_path / SWEEP_LOG).read_text()


def test_tensorboard_reads_back_scalars_images_and_settings(record: Record) -> None:
    for _ in range(2):  # started again, nothing doubles
        shown(record, TensorboardConfig(name="tensorboard"))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    [folder] = (record.dir / "tensorboard").glob("001-*")
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]
    assert {"validation/buckets/0", "screen/usefulness", "answer/likeness", "train/used_unet_lr"} <= set(
        events.Tags()["scalars"])
    assert [event.step for event in events.Images("screen/sheet")] == [2, 4, 6]
    assert "_hparams_/session_start_info" in events.summary_metadata


def test_both_trackers_at_once(record: Record) -> None:
    shown(record, WandbConfig(name="wandb", project="p", entity=None, mode="offline", wait_s=60),
          TensorboardConfig(name="tensorboard"))
    assert len(list((record.dir / "wandb").glob("offline-run-*"))) == 3
    assert len(list((record.dir / "tensorboard").iterdir())) == 2


@pytest.mark.parametrize(("override", "names"), [
    ([], ["wandb"]), (["tracker=none"], ["none"]), (["tracker=[wandb,tensorboard]"], ["wandb", "tensorboard"]),
    (["tracker=tensorboard"], ["tensorboard"])])
def test_trackers_are_chosen_as_a_word_or_a_list(override: list[str], names: list[str]) -> None:
    from hydra import compose, initialize_config_dir

    from sweep.config import load

    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = load(compose("config", [*override]))
    assert [chosen.name for chosen in config.tracker.chosen] == names


def test_keys_of_a_tracker_are_known_under_its_name() -> None:
    assert "tracker.wandb.project" in Known("config").keys and "tracker.project" not in Known("config").keys
    with pytest.raises(ConfigError, match='Unknown key "tracker.wandbb".*"wandb"'):
        trackers_from_tree({"wandbb": {}})
    with pytest.raises(ConfigError, match=r"tracker\.wandb\.mode = 'on' is not one of"):
        trackers_from_tree({"wandb": {"name": "wandb", "project": "p", "entity": None, "mode": "on", "wait_s": 60}})


def test_sync_without_a_key_says_what_to_do(record: Record) -> None:
    with pytest.raises(ConfigError, match="wandb login"):
        sync(record.dir)


def test_the_command_of_wandbs_own_agent_is_one_of_train_py(command: Callable[..., subprocess.CompletedProcess[str]],
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line as the agent fills it in: `${args_no_hyphens}` becomes one `key=value` for each parameter."""
    sweep = yaml.safe_load((CONF_DIR.parent / "docs" / "wandb_sweep.yaml").read_text())
    asked = {key: str(given["values"][-1] if "values" in given else given["max"])
             for key, given in sweep["parameters"].items()}
    filled = {"${env}": [], "${program}": [sweep["program"]], "python": [],
              "${args_no_hyphens}": [f"{key}={value}" for key, value in asked.items()]}
    line = [word for part in sweep["command"] for word in filled[part]]
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    done = command(*line, "plan=true")
    assert done.returncode == 0, done.stderr
    assert "1 trial" in done.stdout, done.stdout


def test_the_workspace_names_settings_and_scores(record: Record) -> None:
    from sweep.record.workspace import build_workspace

    tree = json.dumps(build_workspace("me", "p", record.entry)._to_model().model_dump(by_alias=True), default=str)
    assert "network_dim" in tree and "usefulness" in tree and "screen/sheet" in tree and record.entry.name in tree
