"""Scoring a sweep again: what is trained is found, whichever command or search asked for it, and nothing is trained."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import initialize_config_dir

from sweep.command_line import CONF_DIR
from sweep.conductor.rescore import rescore
from sweep.errors import ConfigError, SweepExistsError, TrialsFailedError
from sweep.trial import DONE, FAILED, PRUNED, Trial, TrialResult
from tests.stand_in import StandIn, peak
from tests.unit.conductor.conductor_examples import SEARCH, Sweeper, log_of, study_of

OTHER = "scoring.confirm.first_seed=2000"


def half(trial: Trial, done: float) -> float:
    return peak(trial, done) / 2


def again(folder: Path, *overrides: str, stand_in: StandIn | None = None) -> list[TrialResult]:
    """`evaluate.py sweep=s results_dir=folder overrides`, with a stand-in for what scores."""
    launcher = stand_in or StandIn(curve=half)
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return rescore("s", str(folder), ["sweep=s", f"results_dir='{folder}'", *overrides],
                       lambda config, sweep_dir: launcher)


def change_command(folder: Path, old: str | None, new: str) -> None:
    """In sweep.yaml; old: None = all of it."""
    path = folder / "s" / "sweep.yaml"
    tree = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**tree, "command": new if old is None else tree["command"].replace(old, new)}))


def usefulness(results: Sequence[TrialResult]) -> list[float | None]:
    return [result.answer.score.axes["usefulness"].value if result.answer else None for result in results]


def test_trials_of_every_command_are_scored_as_asked_now(tmp_path: Path, sweep: Sweeper) -> None:
    sweep("network_dim=4,8")
    before = usefulness(sweep("network_dim=4,16"))
    found = again(tmp_path, OTHER)
    assert [result.trial.settings["network_dim"] for result in found] == [4, 8, 16]
    assert usefulness(found) == [value / 2 for value in before if value is not None]
    stand_in = StandIn()
    assert again(tmp_path, OTHER, stand_in=stand_in) == found and not stand_in.started, "there is nothing left to do"
    assert [trial.value for trial in study_of(tmp_path).trials] == usefulness(found)
    assert "scored otherwise now" in log_of(tmp_path)


def test_its_command_asks_for_both_from_then_on(tmp_path: Path, sweep: Sweeper) -> None:
    sweep("network_dim=4,8", "unet_lr=1e-5")
    again(tmp_path, OTHER)
    command = shlex.split(yaml.safe_load((tmp_path / "s" / "sweep.yaml").read_text())["command"])
    assert {"network_dim=4,8", "unet_lr=1e-5", OTHER, "sweep.name=s"} <= {*command}
    stand_in = StandIn()
    sweep(*[line for line in command[3:] if not line.startswith("sweep.")], stand_in=stand_in)
    assert not stand_in.started
    with pytest.raises(SweepExistsError, match="scoring: pocket"):
        sweep("network_dim=4,8", "unet_lr=1e-5")
    again(tmp_path, "scoring.confirm.first_seed=3000")
    assert OTHER not in (tmp_path / "s" / "sweep.yaml").read_text(), "the newer seed stands in its place"


def test_a_search_proposes_nothing(tmp_path: Path, sweep: Sweeper) -> None:
    before = sweep(*SEARCH, "search.num_trials=5")
    change_command(tmp_path, "search.num_trials=5", "search.num_trials=50")
    found = again(tmp_path, OTHER, "scoring.choice.confirm=2")
    assert [result.trial.train_id for result in found] == [result.trial.train_id for result in before]
    told = {trial.user_attrs["trial"]: trial.value for trial in study_of(tmp_path).trials}
    assert told == {result.trial.number: value for result, value in zip(found, usefulness(found), strict=True)}


def test_what_a_search_has_pruned_is_scored_as_far_as_it_is_trained(tmp_path: Path, sweep: Sweeper) -> None:
    before = sweep(*SEARCH, "search.num_trials=8", "search.pruning.rule=median", stand_in=StandIn(is_gradual=True))
    pruned = [result.trial.number for result in before if result.status == PRUNED]
    assert pruned, "the test needs one"
    change_command(tmp_path, "search.pruning.rule=median", "search.pruning.rule=none")
    stand_in = StandIn(curve=half)
    again(tmp_path, OTHER, stand_in=stand_in)
    assert {*pruned} <= {number for pack in stand_in.started for number in pack}
    kept = [tmp_path / "trials" / before[number - 1].trial.train_id / "prune.json" for number in pruned]
    assert all(path.exists() for path in kept), "without it, a worker would train the trial to its end"


def test_a_category_that_the_newest_command_lacks_is_in_no_way_of_the_study(tmp_path: Path, sweep: Sweeper) -> None:
    sweep("optimizer=adamw,lion", "conv_dim=null,4")
    sweep("optimizer=adamw,adamw_schedulefree", "conv_dim=4,8")
    found = again(tmp_path, OTHER)
    assert [result.trial.settings["conv_dim"] for result in found].count(None) == 2
    known = {trial.user_attrs["trial"]: trial.value for trial in study_of(tmp_path).trials}
    assert known == {result.trial.number: value for result, value in zip(found, usefulness(found), strict=True)}


def test_what_is_not_trained_stays_so(tmp_path: Path, sweep: Sweeper, capsys: Any) -> None:
    with pytest.raises(TrialsFailedError):
        sweep("network_dim=4,8", stand_in=StandIn(fails={2: "No space left on device"}))
    stand_in = StandIn(curve=half)
    with pytest.raises(TrialsFailedError, match="1 of 2 trials failed: 2"):
        again(tmp_path, OTHER, stand_in=stand_in)
    assert stand_in.started == [(1,)]
    assert "not trained, and left as they are: 2\n" in capsys.readouterr().out
    assert [result.status for result in sweep("network_dim=4,8", OTHER)] == [DONE, DONE]
    assert FAILED not in (tmp_path / "s" / "trials.csv").read_text()


def test_a_trial_without_its_files_is_not_trained_again(tmp_path: Path, sweep: Sweeper) -> None:
    first = sweep("network_dim=4,8")[0]
    for path in (tmp_path / "trials" / first.trial.train_id / "checkpoints").iterdir():
        path.unlink()
    stand_in = StandIn(curve=half)
    again(tmp_path, OTHER, stand_in=stand_in)
    assert stand_in.started == [(2,)]


def test_a_whole_group_takes_the_place_of_its_parts(tmp_path: Path, sweep: Sweeper) -> None:
    sweep("network_dim=4,8", OTHER)
    again(tmp_path, "scoring.confirm={first_seed:4000}")
    command = shlex.split(yaml.safe_load((tmp_path / "s" / "sweep.yaml").read_text())["command"])
    assert OTHER not in command and "scoring.confirm={first_seed:4000}" in command


def test_a_folder_with_signs_that_hydra_reads_is_said_as_it_was_typed(tmp_path: Path, sweep: Sweeper) -> None:
    sweep("network_dim=4,8")
    odd = tmp_path / "a, b (x86)"
    odd.mkdir()
    for name in ("s", "trials"):
        (tmp_path / name).rename(odd / name)
    stand_in = StandIn(curve=half)
    again(odd, OTHER, stand_in=stand_in)
    assert sorted(stand_in.started) == [(1, 2)]


def test_a_sweep_of_before_the_class_images_own_guidance_is_the_same_sweep(tmp_path: Path, sweep: Sweeper) -> None:
    sweep("network_dim=4,8")
    path = tmp_path / "s" / "sweep.yaml"
    tree = yaml.safe_load(path.read_text())
    assert tree["question"]["dataset.reg_guidance_scale"] == 3.0
    tree["question"]["dataset.reg_guidance_scale"] = 7.0
    path.write_text(yaml.safe_dump(tree))
    stand_in = StandIn()
    sweep("network_dim=4,8", stand_in=stand_in)
    assert not stand_in.started
    tree["question"]["dataset.generate_reg"] = 40
    path.write_text(yaml.safe_dump(tree))
    with pytest.raises(SweepExistsError, match=r"dataset\.reg_guidance_scale: 7\.0 there, 3\.0 here"):
        sweep("network_dim=4,8")


@pytest.mark.parametrize(("overrides", "message"), [
    (("scoring=none",), "scoring=none measures nothing"),
    (("scoring='none'",), "scoring=none measures nothing"),
    (("base_model=sd15",), "'base_model=sd15' can't stand beside sweep=NAME"),
    (("device=cpu",), "give scoring=..., scoring.KEY=... or results_dir=FOLDER"),
])
def test_what_cannot_be_asked(tmp_path: Path, sweep: Sweeper, overrides: tuple[str, ...], message: str) -> None:
    sweep("network_dim=4,8")
    with pytest.raises(ConfigError, match=message):
        again(tmp_path, *overrides)


def test_a_sweep_without_a_trial(tmp_path: Path, sweep: Sweeper) -> None:
    sweep("network_dim=4,8")
    (tmp_path / "s" / "trials.jsonl").write_text("")
    with pytest.raises(ConfigError, match="no trial that can be scored"):
        again(tmp_path)


def test_a_sweep_that_is_not_there(tmp_path: Path, sweep: Sweeper) -> None:
    sweep("network_dim=4,8")
    with pytest.raises(ConfigError, match=r"no sweep of this name in .* There are: s\."):
        rescore("alex", str(tmp_path), ["sweep=alex"])


@pytest.mark.parametrize(("command", "message"), [
    ("python studies/own.py", "because of it"),
    ("python studies/retrain.py network_dim=4", "because of it"),
    ("python train.py -m network_dim=4,8 note=it's", "because of No closing quotation"),
    ("python train.py -m --config-dir mine network_dim=4,8", "because of '--config-dir' in it"),
    ("python train.py -m network_dim=4,8 'note=token=***'", r"because of 'note=token=\*\*\*' in it"),
])
def test_a_command_that_cannot_be_repeated(tmp_path: Path, sweep: Sweeper, command: str, message: str) -> None:
    sweep("network_dim=4,8")
    change_command(tmp_path, None, command)
    with pytest.raises(ConfigError, match=message):
        again(tmp_path)


def test_trials_that_would_be_trained_otherwise_now(tmp_path: Path, sweep: Sweeper, monkeypatch: Any) -> None:
    sweep("network_dim=4,8")
    monkeypatch.setattr("sweep.identity.TRAINING_VERSION", 1000)
    with pytest.raises(ConfigError, match="2 of the sweep's 2 trials would be trained otherwise now"):
        again(tmp_path)
