"""Sweeps whose studies lie in one database: whose a study is, and what happens as the database goes away. Over SQLite;
tests/clusters has a real server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy.exc import OperationalError

from sweep.errors import ConfigError
from sweep.search.ownership import claim
from sweep.search.storage import STORAGE_VARIABLE, open_storage
from sweep.trial import DONE
from tests.stand_in import run_sweep


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweep.search.ownership._CLAIM_S", 0.2)
    monkeypatch.setattr("sweep.search.storage._WAITS_S", (0.01, 0.02))


@pytest.fixture(autouse=True)
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    made = f"sqlite:///{tmp_path / 'shared.db'}"
    monkeypatch.setenv(STORAGE_VARIABLE, made)
    return made


def sweep(folder: Path, num_trials: int = 3, dims: str = "8,32,128", *more: str) -> None:
    lines = [f"sweep.results_dir={folder}", "sweep.name=s", "dataset.num_images=4", "launcher.devices=1",
             "tracker=none", "search=tpe", "unet_lr=tag(log,interval(1e-6,1e-2))", f"network_dim=choice({dims})",
             f"search.num_trials={num_trials}", "search.pruning.rule=none", *more]
    assert [result.status for result in run_sweep(lines)] == [DONE] * num_trials


def told(url: str, waiting: int = 0) -> dict[str, tuple[object, object]]:
    """Parameters and values of the sweep's trials, by train_id; none is left running."""
    trials = optuna.load_study(study_name="s", storage=url).trials
    assert [trial.state for trial in trials if not trial.state.is_finished()] == [TrialState.WAITING] * waiting
    return {trial.user_attrs["train_id"]: (trial.params, trial.values) for trial in trials
            if trial.state == TrialState.COMPLETE and "train_id" in trial.user_attrs}


def test_a_sweep_of_another_folder_is_refused_and_harms_nothing(tmp_path: Path, url: str) -> None:
    sweep(tmp_path / "one")
    before = told(url)
    assert len(before) == 3
    with pytest.raises(ConfigError, match=rf"'s' of the sweep in {tmp_path / 'one' / 's'} on .* another sweep.name"):
        sweep(tmp_path / "two", dims="4,16")
    with pytest.raises(ConfigError, match="another sweep.name"):
        sweep(tmp_path / "two", dims="8,32,128")
    assert told(url) == before
    sweep(tmp_path / "one", num_trials=4)
    assert before.items() <= told(url).items() and len(told(url)) == 4


def test_a_folder_that_was_moved_keeps_its_study(tmp_path: Path, url: str) -> None:
    sweep(tmp_path / "one")
    before = told(url)
    (tmp_path / "one").rename(tmp_path / "elsewhere")
    sweep(tmp_path / "elsewhere", num_trials=4)
    assert before.items() <= told(url).items() and len(told(url)) == 4
    with pytest.raises(ConfigError, match=f"in {tmp_path / 'elsewhere' / 's'} on "):
        sweep(tmp_path / "one")


def test_a_study_that_is_lost_or_of_other_choices_is_built_again(tmp_path: Path, url: str) -> None:
    sweep(tmp_path / "one")
    before = told(url)
    (tmp_path / "shared.db").unlink()
    sweep(tmp_path / "one")
    assert told(url) == before
    sweep(tmp_path / "one", num_trials=5, dims="8,32,64,128")
    assert "its choices are others now" in (tmp_path / "one" / "s" / "sweep.log").read_text()
    assert before.keys() <= told(url).keys() and len(told(url)) == 5


def test_a_study_without_an_owner_is_taken_only_while_it_is_empty(tmp_path: Path, url: str) -> None:
    study = optuna.create_study(study_name="s", storage=url, direction="maximize")  # as a kill before the claim leaves
    sweep(tmp_path / "one")
    optuna.delete_study(study_name="s", storage=url)
    study = optuna.create_study(study_name="s", storage=url, direction="maximize")
    study.add_trial(optuna.create_trial(value=1.0))
    with pytest.raises(ConfigError, match=r"study 's' that no sweep's folder owns\. Give .* another sweep.name"):
        sweep(tmp_path / "one")
    assert [trial.value for trial in optuna.load_study(study_name="s", storage=url).trials] == [1.0]


def test_of_two_that_claim_at_once_one_is_refused(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    optuna.create_study(study_name="s", storage=url)
    studies = [optuna.load_study(study_name="s", storage=url) for _ in range(2)]
    has_looked, refused = threading.Barrier(2), []
    for study in studies:  # both look before either claims
        monkeypatch.setattr(study, "get_trials", lambda deepcopy: has_looked.wait(10) and [])

    def start(study: optuna.Study, folder: Path) -> None:
        try:
            claim(study, folder)
        except ConfigError:
            refused.append(folder)

    threads = [threading.Thread(target=start, args=(study, tmp_path / str(number)))
               for number, study in enumerate(studies)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(refused) == 1
    claim(studies[0], tmp_path / ("1" if refused[0].name == "0" else "0"))


def away(said: str = "the database system is starting up") -> OperationalError:
    return OperationalError("SELECT 1", {}, Exception(said))


def lose_answers(monkeypatch: pytest.MonkeyPatch, method: str, is_lost: Callable[..., bool]) -> list[int]:
    """The database does what it is asked and goes away before it answers, where is_lost says so of a call's number and
    arguments. Returns a list with an entry for each such call."""
    real, lost, calls = getattr(RDBStorage, method), [], [0]

    def act(self: RDBStorage, *arguments: Any, **named: Any) -> Any:
        answer = real(self, *arguments, **named)
        calls[0] += 1
        if is_lost(calls[0], *arguments, *named.values()):
            lost.append(calls[0])
            raise away()
        return answer

    monkeypatch.setattr(RDBStorage, method, act)
    return lost


def test_a_database_that_is_away_at_the_start_is_waited_for(tmp_path: Path, url: str,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []

    def opened(*_: Any, **__: Any) -> Any:
        tries.append(len(tries))
        if len(tries) < 3:
            raise away()
        return "open"

    monkeypatch.setattr("optuna.storages.RDBStorage", opened)
    said: list[str] = []
    assert open_storage(tmp_path, url, said.append) == "open"
    assert len(said) == 1 and said[0].endswith("the database system is starting up"), said


def test_a_database_that_stays_away_is_named_without_its_password(tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise away('connection to "h" failed:\n password authentication failed for user "me" (hunter2-é)')

    monkeypatch.setattr("optuna.storages.RDBStorage", refused)
    said: list[str] = []
    with pytest.raises(ConfigError, match=r'opened \(connection to "h" failed: password authentication failed for user '
                                          r'"me" \(\*\*\*\)\)\. Check the URL in') as error:
        open_storage(tmp_path, "postgresql+psycopg://me:hunter2-%C3%A9@h/db", said.append)
    assert "hunter2" not in f"{said}{error.value}" and "password authentication failed" in said[0]


def test_a_url_that_cannot_work_is_not_tried_again(tmp_path: Path) -> None:
    said: list[str] = []
    for url in ("nosuch://me:hunter2@h/db", "me:hunter2@h"):
        with pytest.raises(ConfigError, match="can't be opened") as error:
            open_storage(tmp_path, url, said.append)
        assert "hunter2" not in str(error.value)
    assert said == []


def test_a_proposal_whose_answer_was_lost_leaves_no_trial_running(tmp_path: Path, url: str,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    lost = lose_answers(monkeypatch, "_create_new_trial", lambda number, *_: number in (2, 3, 6))
    sweep(tmp_path / "one", 5)
    assert lost == [2, 3, 6]
    assert len(told(url)) == 5
    assert [trial.state for trial in optuna.load_study(study_name="s", storage=url).trials].count(TrialState.FAIL) == 3


def test_a_trial_that_was_written_twice_leaves_none_running(tmp_path: Path, url: str,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    """As the database is lost, the trials' folders are told to it again."""
    sweep(tmp_path / "one")
    before = told(url)
    (tmp_path / "shared.db").unlink()
    lost = lose_answers(monkeypatch, "_create_new_trial", lambda number, *_: number == 1)
    sweep(tmp_path / "one")
    assert lost == [1] and told(url) == before


def test_a_starting_point_whose_answer_was_lost_is_still_tried(tmp_path: Path, url: str,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    points = [{"network_dim": 8, "unet_lr": 1e-3}, {"network_dim": 128, "unet_lr": 1e-4}]
    (tmp_path / "points.yaml").write_text(str(points))
    start = f"search.start_from={tmp_path / 'points.yaml'}"
    lost = lose_answers(monkeypatch, "set_trial_state_values",
                        lambda number, _, state, *rest: state == TrialState.RUNNING and not lost)
    sweep(tmp_path / "one", 2, "8,32,128", start)
    assert len(lost) == 1 and points[0] not in [params for params, _ in told(url, waiting=1).values()]
    sweep(tmp_path / "one", 4, "8,32,128", start)
    found = [params for params, _ in told(url).values()]
    assert all(point in found for point in points), found
