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
from sweep.record.figures import FIGURES
from sweep.record.settings import TensorboardConfig, TrackersConfig, WandbConfig, trackers_from_tree
from sweep.record.sweep_log import SWEEP_LOG
from sweep.record.sync import sync
from sweep.record.tensorboard_sink import TensorboardSink
from sweep.record.tracker import make_tracker
from sweep.record.views import write_views
from sweep.schema import flat, to_tree
from sweep.trial import AXES, trial_folder

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
            "train/memory_gib", "validation/loss", "validation/buckets/0", "screen/likeness", "screen/usefulness_low",
            "screen/sheet.path", "refine/usefulness", "refine/strength", "refine/sheet.path", "confirm/likeness",
            "confirm/sheet.path", "scores.path", "samples.path"} <= keys
    config = next(r["run"] for r in records if r["type"] == "run")["config"]["update"]
    assert set(flat(to_tree(record.results[0].trial.config))) <= set(config)
    text = json.dumps([r for r in records if r["type"] == "summary"])
    assert all(f'"{key}"' in text for key in ("likeness", "bleed", "bleed_high", "usefulness_low", "file", "strength",
                                              "attributed_minutes"))
    [table] = part.glob("files/media/table/samples*.json")
    assert len(json.loads(table.read_text())["data"]) == 11

    [answer] = (record.dir / "wandb").glob("offline-run-*-sweep-*")
    records = records_of(answer)
    artifact = next(r["artifact"] for r in records if r["type"] == "artifact" and r["artifact"]["type"] == "model")
    assert "alexq man" in artifact["description"]
    assert {"README.md", "samples.png", "experiment.yaml"} <= {c["path"] for c in artifact["manifest"]["contents"]}
    assert next(iter(answer.glob("files/media/table/trials*.json")))

    for path in record.results_dir.rglob("*"):  # keys never stand in the record
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


def test_tensorboard_reads_back_scalars_images_and_settings(record: Record) -> None:
    for _ in range(2):  # started again, nothing doubles
        shown(record, TensorboardConfig(name="tensorboard"))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    [folder] = (record.dir / "tensorboard").glob("001-*")
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]
    assert {"validation/buckets/0", "screen/usefulness", "answer/likeness", "answer/bleed", "train/used_unet_lr",
            "train/steps_per_s", "train/memory_gib"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Images("screen/sheet")] == [2, 4, 6]
    assert {"refine/usefulness/at 0.6", "refine/usefulness/at 0.8", "confirm/likeness/at 0.8"} <= set(
        events.Tags()["scalars"])
    assert [event.step for event in events.Images("confirm/sheet/at 0.8")] == [6]
    assert "_hparams_/session_start_info" in events.summary_metadata


def test_tensorboard_holds_all_up_to_a_checkpoint_while_the_trial_trains(record: Record) -> None:
    """As a viewer sees it, or a kill leaves it: the run is neither ended nor closed."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sink, trial = TensorboardSink(record.entry, record.dir), record.results[0].trial
    run, folder = sink.open(trial), trial_folder(record.results_dir, trial.train_id)
    for step in (1, 2):
        run.log({"kind": "train", "step": step, "epoch": 1, "loss": 0.5}, folder)
    run.log({"kind": "checkpoint", "step": 2, "epoch": 1, "file": "a.safetensors"}, folder)
    [written] = (record.dir / "tensorboard").glob("001-*")
    events = EventAccumulator(str(written), size_guidance={"scalars": 0})
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2]
    run.finish()


def test_what_tensorboard_could_not_show_the_same_command_does(record: Record) -> None:
    in_the_way, chosen = record.dir / "tensorboard", TensorboardConfig(name="tensorboard")
    in_the_way.write_text("a file")
    with pytest.raises(AssertionError, match="switched off for this sweep.*; the same command shows the rest"):
        shown(record, chosen)
    in_the_way.unlink()
    (record.dir / SWEEP_LOG).unlink()
    shown(record, chosen)
    assert len(list((record.dir / "tensorboard").glob("*/events*"))) == 2


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


@pytest.fixture
def by_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
             capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs docs/wandb_sweep.yaml with given parameters by wandb's own agent, which makes the command line, the
    environment and the process; only its server, which proposes the values, is not there. -> (exit code, output)"""
    from wandb.wandb_agent import Agent

    sweep = yaml.safe_load((CONF_DIR.parent / "docs" / "wandb_sweep.yaml").read_text())
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"):
        monkeypatch.setenv(name, "")  # the agent sets them in this process
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")  # where python is
    monkeypatch.chdir(CONF_DIR.parent)

    def run(parameters: dict[str, Any], *more: str) -> tuple[int, str]:
        agent = Agent(None, None, sweep_id="sweep1")
        agent._sweep_command = [*sweep["command"], f"sweep.results_dir={tmp_path / 'results'}", *more]
        answer = agent._process_command({"type": "run", "run_id": "agentsrun", "program": sweep["program"],
                                         "args": {key: {"value": value} for key, value in parameters.items()}})
        assert "exception" not in answer, answer
        code = agent._run_processes["agentsrun"].wait()
        return code, "".join(capfd.readouterr())

    return run


def test_the_agents_command_line_is_one_of_train_py(by_agent: Callable[..., tuple[int, str]]) -> None:
    from wandb.apis.public.sweeps import _validate_config_and_fill_distribution

    sweep = yaml.safe_load((CONF_DIR.parent / "docs" / "wandb_sweep.yaml").read_text())
    parameters = _validate_config_and_fill_distribution(sweep)["parameters"]
    assert {key: given.get("distribution") for key, given in parameters.items() if "values" not in given} == {
        "unet_lr": "log_uniform_values", "text_encoder_lr": "log_uniform_values"}
    proposed = {key: given["values"][-1] if "values" in given else given["min"] for key, given in parameters.items()}
    code, said = by_agent(proposed, "plan=true")
    assert code == 0 and "1 trial" in said, said
    assert sweep["metric"] == {"name": "usefulness", "goal": "maximize"} and "usefulness" in AXES


def test_what_else_an_agent_may_propose_is_taken(by_agent: Callable[..., tuple[int, str]]) -> None:
    """A choice of a group, a key inside one, Python's True, and "null" in quotes as the file says."""
    code, said = by_agent({"optimizer": "prodigy", "optimizer.d_coef": 2, "gradient_checkpointing": True,
                           "conv_dim": "null", "unet_lr": 1}, "plan=true")
    assert code == 0 and "1 trial" in said, said
    code, said = by_agent({"conv_dim": None}, "plan=true")
    assert code == 2 and "conv_dim = 'None' must be a whole number" in said, said


@pytest.mark.slow
def test_a_trial_of_the_agents_is_its_run(by_agent: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    """From the command line to the figure that the agent is told, offline."""
    code, said = by_agent({"network_dim": 4, "unet_lr": 1e-4}, "max_train_steps=2", "dataset.num_images=4",
                          "launcher.devices=1", "launcher.threads=1", "tracker.wandb.mode=offline",
                          "scoring.sampler.num_steps=2", "scoring.choice.strengths=[1.0]")
    assert code == 0, said
    [part] = tmp_path.glob("results/*/wandb/offline-run-*-agentsrun")
    records = records_of(part)
    run = next(r["run"] for r in records if r["type"] == "run")
    assert run["run_id"] == "agentsrun" and "network_dim" in run["config"]["update"]
    assert '"usefulness"' in json.dumps([r for r in records if r["type"] == "summary"])


def test_the_workspace_shows_the_sweeps_trials_and_only_them(record: Record) -> None:
    from sweep.record.workspace import build_workspace

    spec = build_workspace("me", "p", record.entry)._to_model().model_dump(by_alias=True)["spec"]
    filters = [(each["key"]["name"], each["op"], each["value"])
               for each in spec["section"]["runSets"][0]["filters"]["filters"]]
    assert filters == [("tags", "IN", ["sweep:alex"]), ("jobType", "=", "trial")]
    assert spec["section"]["settings"]["maxRuns"] >= 100
    panels = {panel["viewType"]: panel["config"]
              for section in spec["section"]["panelBankConfig"]["sections"] for panel in section["panels"]}
    columns = [column["accessor"] for column in panels["Parallel Coordinates Plot"]["columns"]]
    assert columns == [*(f"config:{key}.value" for key in record.entry.swept_keys), *(f"summary:{n}" for n in FIGURES)]
    assert [panels["Scatter Plot"][f"{axis}Axis"] for axis in "xyz"] == [
        "summary:adherence", "summary:likeness", "summary:memorisation"]
    assert panels["Media Browser"]["mediaKeys"] == ["screen/sheet", "refine/sheet", "confirm/sheet"]
