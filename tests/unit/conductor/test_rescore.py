"""Scoring a sweep again: what is trained is found, whichever command or search asked for it, and nothing is trained."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweep.conductor.rescore import rescore
from sweep.errors import ConfigError, SweepExistsError, TrialsFailedError
from sweep.trial import DONE, FAILED, Trial, TrialResult
from tests.stand_in import StandIn, peak
from tests.unit.conductor.test_conduct import SEARCH, Sweeper, hydra, impatient, log_of, study_of, sweep

__all__ = ["hydra", "impatient", "sweep"]
OTHER = "scoring.confirm.first_seed=2000"


def half(trial: Trial, done: float) -> float:
    return peak(trial, done) / 2


def again(folder: Path, *overrides: str, stand_in: StandIn | None = None) -> list[TrialResult]:
    launcher = stand_in or StandIn(curve=half)
    return rescore("s", str(folder), ["sweep=s", f"results_dir={folder}", *overrides],
                   lambda config, sweep_dir: launcher)


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
    found = again(tmp_path, OTHER, "scoring.choice.confirm=2")
    assert [result.trial.train_id for result in found] == [result.trial.train_id for result in before]
    told = {trial.user_attrs["trial"]: trial.value for trial in study_of(tmp_path).trials}
    assert told == {result.trial.number: value for result, value in zip(found, usefulness(found), strict=True)}


def test_what_is_not_trained_stays_so(tmp_path: Path, sweep: Sweeper) -> None:
    with pytest.raises(TrialsFailedError):
        sweep("network_dim=4,8", stand_in=StandIn(fails={2: "No space left on device"}))
    stand_in = StandIn(curve=half)
    with pytest.raises(TrialsFailedError, match="1 of 2 trials failed: 2"):
        again(tmp_path, OTHER, stand_in=stand_in)
    assert stand_in.started == [(1,)]
    assert [result.status for result in sweep("network_dim=4,8", OTHER)] == [DONE, DONE]
    assert FAILED not in (tmp_path / "s" / "trials.csv").read_text()


@pytest.mark.parametrize(("overrides", "message"), [
    (("scoring=none",), "scoring=none measures nothing"),
    (("base_model=sd15",), "'base_model=sd15' can't stand beside sweep=NAME"),
    (("device=cpu",), "give scoring=..., scoring.KEY=... or results_dir=FOLDER"),
])
def test_what_cannot_be_asked(tmp_path: Path, sweep: Sweeper, overrides: tuple[str, ...], message: str) -> None:
    sweep("network_dim=4,8")
    with pytest.raises(ConfigError, match=message):
        again(tmp_path, *overrides)


def test_a_sweep_that_is_not_there(tmp_path: Path, sweep: Sweeper) -> None:
    sweep("network_dim=4,8")
    with pytest.raises(ConfigError, match=r"no sweep of this name in .* There are: s\."):
        rescore("alex", str(tmp_path), ["sweep=alex"])


@pytest.mark.parametrize(("command", "message"), [
    ("python studies/own.py", "because of it"),
    ("python train.py -m --config-dir mine network_dim=4,8", "because of '--config-dir' in it"),
    ("python train.py -m network_dim=4,8 'note=token=***'", r"because of 'note=token=\*\*\*' in it"),
])
def test_a_command_that_cannot_be_repeated(tmp_path: Path, sweep: Sweeper, command: str, message: str) -> None:
    sweep("network_dim=4,8")
    path = tmp_path / "s" / "sweep.yaml"
    tree = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**tree, "command": command}))
    with pytest.raises(ConfigError, match=message):
        again(tmp_path)


def test_trials_that_would_be_trained_otherwise_now(tmp_path: Path, sweep: Sweeper, monkeypatch: Any) -> None:
    sweep("network_dim=4,8")
    monkeypatch.setattr("sweep.identity.TRAINING_VERSION", 1000)
    with pytest.raises(ConfigError, match="2 of the sweep's 2 trials would be trained otherwise now"):
        again(tmp_path)
