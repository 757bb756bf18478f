"""What a conductor does with trials whose training takes no time: order, search, pruning, retries, the study."""

from __future__ import annotations

import csv
import shlex
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from sweep.command_line import CONF_DIR
from sweep.errors import ConfigError, SweepExistsError, TrialsFailedError
from sweep.files import read_json, write_json
from sweep.record.results import read_status
from sweep.trial import DONE, PRUNED, REFUSED, Estimate, PackSpec, Score, Status, Trial, trial_folder
from tests.stand_in import StandIn, run_sweep
from tests.unit.conductor.conductor_examples import SEARCH, Sweeper, log_of, study_of
from tests.unit.evaluation.evaluation_examples import TREE


def diary_of(folder: Path) -> str:
    return (folder / "s" / "diary.md").read_text()


def test_a_grid_is_a_study_and_covers_its_space_early(tmp_path: Path, sweep: Sweeper) -> None:
    stand_in = StandIn()
    results = sweep("network_dim=4,8,16", "unet_lr=1e-5,1e-4,1e-3", "pack.max_trials=3", stand_in=stand_in)
    assert [result.status for result in results] == [DONE] * 9
    first = {(results[n - 1].trial.settings["network_dim"], results[n - 1].trial.settings["unet_lr"])
             for n in stand_in.started[0]}
    assert {dim for dim, _ in first} == {4, 8, 16} and {rate for _, rate in first} == {1e-5, 1e-4, 1e-3}
    study = study_of(tmp_path)
    assert {trial.user_attrs["trial"] for trial in study.trials} == set(range(1, 10))
    assert study.best_params == {"network_dim": 16, "unet_lr": 1e-4}
    assert optuna.importance.get_param_importances(study)
    assert stand_in.is_closed


def test_a_search_asks_for_as_many_as_it_may_and_goes_on_from_there(tmp_path: Path, sweep: Sweeper) -> None:
    first = StandIn()
    results = sweep(*SEARCH, "search.num_trials=7", "search.pruning.rule=none", stand_in=first)
    assert len(results) == 7 and {result.status for result in results} == {DONE}
    assert max(map(len, first.started)) <= 2
    again = StandIn()
    results = sweep(*SEARCH, "search.num_trials=12", "search.pruning.rule=none", stand_in=again)
    assert len(results) == 12
    assert {n for pack in again.started for n in pack} <= set(range(8, 13)), "what is trained is not trained again"
    study = study_of(tmp_path)
    told = [trial for trial in study.trials if "train_id" in trial.user_attrs]
    assert len(told) == 12 and all(trial.state == optuna.trial.TrialState.COMPLETE for trial in told)
    assert len({trial.user_attrs["train_id"] for trial in told}) == 12


@pytest.mark.parametrize("harm", ["lost", "damaged"])
def test_a_study_is_built_again_from_the_folders(tmp_path: Path, sweep: Sweeper, harm: str) -> None:
    sweep(*SEARCH, "search.num_trials=6", "search.pruning.rule=none")
    before = {trial.user_attrs["train_id"]: (trial.params, trial.values) for trial in study_of(tmp_path).trials}
    path = tmp_path / "s" / "study.log"
    if harm == "lost":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:200] + b'{"op_code": 99}\n{"nonsense\n')
    sweep(*SEARCH, "search.num_trials=6", "search.pruning.rule=none", stand_in=StandIn())
    after = {trial.user_attrs["train_id"]: (trial.params, trial.values) for trial in study_of(tmp_path).trials
             if "train_id" in trial.user_attrs}
    assert after == before


def test_more_choices_extend_a_search(tmp_path: Path, sweep: Sweeper) -> None:
    sweep("search=tpe", "network_dim=choice(8,32)", "unet_lr=tag(log,interval(1e-5,1e-3))", "search.num_trials=4")
    results = sweep("search=tpe", "network_dim=choice(8,32,64)", "unet_lr=tag(log,interval(1e-6,1e-3))",
                    "search.num_trials=8")
    assert len(results) == 8 and "its choices are others now" in log_of(tmp_path)


def test_what_earlier_trials_cost_is_read_once(sweep: Sweeper, monkeypatch: pytest.MonkeyPatch) -> None:
    command = (*SEARCH, "search.gpu_hours=100", "search.pruning.rule=none")
    sweep(*command, "search.num_trials=6")
    reads: Counter[int] = Counter()

    def counting(results_dir: Path, trial: Trial) -> Status:
        reads[trial.number] += 1
        return read_status(results_dir, trial)

    monkeypatch.setattr("sweep.conductor.proposals.read_status", counting)
    assert len(sweep(*command, "search.num_trials=12")) == 12
    assert [reads[number] for number in range(1, 7)] == [1] * 6, "ten thousand of them at each look would be a stall"


@pytest.mark.parametrize("name", ["tpe", "random", "qmc", "gp", "cmaes", "nsga2"])
def test_every_sampler(sweep: Sweeper, name: str) -> None:
    results = sweep(f"search={name}", *SEARCH[1:], "search.num_trials=8", "search.num_startup_trials=3",
                    "search.population_size=3")
    assert len(results) == 8
    assert all(1e-6 <= result.trial.config["unet_lr"] <= 1e-2 for result in results)


def test_gpu_hours_end_a_search(sweep: Sweeper) -> None:
    """A trial of the stand-in costs 4 s: of 18 s, the fifth is the last that begins before they are spent."""
    command = (*SEARCH, "search.num_trials=null", "search.pruning.rule=none", "pack.max_trials=1")
    assert len(sweep(*command, f"search.gpu_hours={18 / 3600}")) == 5
    again = StandIn()
    assert len(sweep(*command, f"search.gpu_hours={18 / 3600}", stand_in=again)) == 5 and not again.started
    assert len(sweep(*command, f"search.gpu_hours={24 / 3600}")) == 6, "what the first start spent counts"


def test_wall_hours_end_a_search_and_count_from_each_start(sweep: Sweeper) -> None:
    command = (*SEARCH, "search.num_trials=null", "search.pruning.rule=none", "pack.max_trials=1")
    slow = StandIn(pause_s=0.5)
    started_s = time.monotonic()
    results = sweep(*command, f"search.wall_hours={1.2 / 3600}", stand_in=slow)
    assert time.monotonic() - started_s >= 1.2 and 1 <= len(results) <= 3, "one pause each, none begun after the time"
    assert {result.status for result in results} == {DONE}
    assert len(sweep(*command, f"search.wall_hours={0.5 / 3600}", stand_in=slow)) > len(results)


def test_a_space_of_the_config_is_searched_and_the_command_line_has_the_last_word(sweep: Sweeper) -> None:
    space = 'search.space={unet_lr:"tag(log,interval(1e-5,1e-4))",network_dim:"choice(4,8)",repeats:"range(1,4)"}'
    results = sweep("search=random", space, "network_dim=16", "search.num_trials=5")
    assert len(results) == 5 and len({result.trial.settings["unet_lr"] for result in results}) > 1
    assert all(1e-5 <= result.trial.config["unet_lr"] <= 1e-4 for result in results)
    assert {result.trial.config["repeats"] for result in results} <= {1, 2, 3}
    assert {result.trial.config["network_dim"] for result in results} == {16}
    assert all(set(result.trial.settings) == {"unet_lr", "repeats"} for result in results)


def test_a_condition_a_start_and_a_finite_space(tmp_path: Path, sweep: Sweeper) -> None:
    results = sweep("search=random", "optimizer=adamw,prodigy", "network_dim=8,32", "unet_lr=choice(1e-4,1e-3)",
                    "text_encoder_lr=choice(1e-4)", "search.when={unet_lr:{optimizer:[adamw]},"
                    "text_encoder_lr:{optimizer:[adamw]}}", "search.start_from=seeds", "network_alpha=16",
                    "scheduler=cosine_with_restarts", "search.num_trials=50")
    kinds = sorted((r.trial.settings["optimizer"], r.trial.settings["network_dim"], r.trial.settings.get("unet_lr"))
                   for r in results)
    assert len(kinds) == 6, "adamw 2 x 2, prodigy 2 without a rate of its own"
    assert all((rate is None) == (name == "prodigy") for name, _, rate in kinds)
    assert all(r.trial.config["unet_lr"] == 1.0 for r in results if r.trial.settings["optimizer"] == "prodigy")
    assert results[0].trial.settings == {"optimizer": "adamw", "network_dim": 32, "unet_lr": 1e-4,
                                         "text_encoder_lr": 1e-4}, "the seeds' own point comes first"
    log = log_of(tmp_path)
    assert "proposals in a row" in log and "tries 2 of 7 points of seeds first" in log
    assert all(f"seeds: leaves out point {n}: " in log for n in (3, 4, 5, 6, 7))
    assert "point 6: network=loha there, lora here" in log


def test_the_tutorials_point_is_tried_by_the_search_of_the_docs(tmp_path: Path, sweep: Sweeper) -> None:
    """Its adamw8bit gives way to the typed optimizer, its alpha and regularisation images to the typed ones."""
    command = (CONF_DIR.parent / "docs" / "alex.md").read_text().partition("sweep.name=alex-search-pocket ")[2]
    words = [word for word in shlex.split(command.partition("```")[0].replace("\\\n", " "))
             if not word.startswith("search.num_trials=")]
    results = sweep(*words, "search.num_trials=1", "pack.max_trials=1")
    assert "tries 1 of 1 points of tutorial_25 first" in log_of(tmp_path)
    assert results[0].trial.settings == {"unet_lr": 1e-4, "text_encoder_lr": 5e-5, "network_dim": 128,
                                         "max_train_epochs": 5, "dataset.num_images": 25}, "nothing is left to chance"
    config = results[0].trial.config
    assert (config["optimizer"]["name"], config["network_alpha"], config["dataset"]["generate_reg"]) == (
        "adamw", 128, 375)


def test_a_typo_in_a_starting_point_is_refused_before_anything_starts(tmp_path: Path, sweep: Sweeper) -> None:
    (tmp_path / "mine.yaml").write_text("- {netwrk_dim: 8}")
    with pytest.raises(ConfigError, match='Did you mean "network_dim"'):
        sweep(*SEARCH, f"search.start_from={tmp_path / 'mine.yaml'}", "plan=true")
    assert not (tmp_path / "s").exists()


def test_pruning_frees_a_place_and_says_what_it_saved(tmp_path: Path, sweep: Sweeper, capsys: Any) -> None:
    stand_in = StandIn(is_gradual=True, num_checkpoints=10)
    results = sweep(*SEARCH, "search.num_trials=12", "max_train_steps=100", stand_in=stand_in)
    assert len(results) == 12
    pruned = [result for result in results if result.status == PRUNED]
    assert pruned and all("usefulness is lower by" in result.reason and result.step < 100 for result in pruned)
    best = max(results, key=lambda result: result.answer.score.axes["usefulness"].value or 0)
    assert best.status == DONE
    assert len(stand_in.started) < 6, "trials joined a running pack"
    saved = sum(100 - result.step for result in pruned)
    sentence = f"Pruning saved {saved} of 1200 steps, in {len(pruned)} of 12 trials.\n"
    assert sentence in diary_of(tmp_path) and sentence in capsys.readouterr().out
    results = sweep(*SEARCH, "search.num_trials=14", "max_train_steps=100", stand_in=stand_in)
    pruned = [result for result in results if result.status == PRUNED]
    saved = sum(100 - result.step for result in pruned)
    assert [line for line in diary_of(tmp_path).splitlines() if " steps, in " in line] == [
        f"Pruning saved {saved} of 1400 steps, in {len(pruned)} of 14 trials."], "of all trials of an extended sweep"
    states = {trial.user_attrs.get("trial"): trial.state.name for trial in study_of(tmp_path).trials}
    assert all(states[result.trial.number] == "PRUNED" for result in pruned)


@pytest.mark.parametrize("rule", ["median", "halving", "hyperband"])
def test_optunas_own_pruners(sweep: Sweeper, rule: str) -> None:
    results = sweep(*SEARCH, f"search.pruning.rule={rule}", "search.num_trials=16", "max_train_steps=100",
                    stand_in=StandIn(is_gradual=True, num_checkpoints=10))
    assert any(result.status == PRUNED and rule in result.reason for result in results)


def test_a_grid_with_early_stop(tmp_path: Path, sweep: Sweeper) -> None:
    falling = StandIn(is_gradual=True, num_checkpoints=10, curve=lambda trial, done: 0.9 - abs(done - 0.3))
    [one] = sweep("max_train_steps=100", "early_stop=2", stand_in=falling)
    assert one.status == PRUNED and one.step in (60, 70) and "has fallen from 0.90 to 0.70" in one.reason
    assert f"\nearly_stop saved {100 - one.step} of 100 steps, in 1 of 1 trials.\n" in diary_of(tmp_path)


def test_several_objectives(tmp_path: Path, sweep: Sweeper) -> None:
    sweep("search=nsga2", *SEARCH[1:], "search.objectives=[likeness,memorisation]", "search.num_trials=6")
    assert [direction.name for direction in study_of(tmp_path).directions] == ["MAXIMIZE", "MINIMIZE"]
    assert "no trial is pruned" in log_of(tmp_path)
    with pytest.raises(ConfigError, match="maximises one objective"):
        sweep("search=cmaes", *SEARCH[1:], "search.objectives=[likeness,adherence]", "sweep.name=other")


def test_constraints_and_warm_start(tmp_path: Path, sweep: Sweeper) -> None:
    sweep("unet_lr=1e-5,1e-4,1e-3", "network_dim=8,32", "sweep.name=earlier")
    sweep(*SEARCH, "search.warm_start=[auto]", "search.max_memorisation=0.5", "search.num_trials=5")
    assert "learns from 6 of 6 trials of earlier" in log_of(tmp_path)
    trials = study_of(tmp_path).trials
    assert sum(trial.user_attrs.get("sweep") == "earlier" for trial in trials) == 6
    assert all(trial.values[0] - 0.5 == pytest.approx(trial.constraints["max_memorisation"]) for trial in trials)


def test_diversity_has_a_limit_and_the_file_is_chosen_among_trials_within_it(tmp_path: Path, sweep: Sweeper,
                                                                            capsys: Any) -> None:
    """The most useful trial has too little variety."""
    class Alike(StandIn):
        def _score(self, spec: PackSpec, trial: Trial, step: int) -> Score:
            score = super()._score(spec, trial, step)
            low = 0.2 if trial.config["network_dim"] == 32 else 0.8
            few = Estimate(value=low, low=low, high=low, raw=low, n=8)
            return replace(score, axes={**score.axes, "diversity": few})

    command = ("search=tpe", "network_dim=choice(8,32)", "search.num_trials=2", "search.pruning.rule=none")
    results = sweep(*command, "search.min_diversity=0.5", stand_in=Alike())
    of_dim = {result.trial.settings["network_dim"]: result for result in results}
    told = {trial.user_attrs["trial"]: trial.constraints["min_diversity"] for trial in study_of(tmp_path).trials
            if "trial" in trial.user_attrs}
    assert told == {of_dim[8].trial.number: pytest.approx(-0.3), of_dim[32].trial.number: pytest.approx(0.3)}
    said = capsys.readouterr().out
    breach = "diversity 0.20 with search.min_diversity=0.5"
    for text in (diary_of(tmp_path).replace("`", ""), said):
        named = next(line for line in text.splitlines() if line.startswith("Use "))
        assert f"(trial {of_dim[8].trial.number}, " in named
        assert named.endswith(f"Left out, as it breaks a limit: trial {of_dim[32].trial.number}, {breach}.")
    assert f"trial {of_dim[32].trial.number} breaks a limit: {breach}" in said
    assert f"It breaks a limit: {breach}." in diary_of(tmp_path)
    with (tmp_path / "s" / "trials.csv").open() as file:
        assert [row["network_dim"] for row in csv.DictReader(file) if row["choice"] == "best"] == ["8"]
    sweep(*command, "search.min_diversity=0.9", stand_in=Alike())
    assert "Every trial breaks a limit: " in diary_of(tmp_path) and "(trial" in diary_of(tmp_path)
    sweep(*command, stand_in=Alike())
    assert "breaks a limit" not in diary_of(tmp_path), "the last command has no limit"


def test_a_warm_start_leaves_out_what_cannot_be_composed_any_more(tmp_path: Path, sweep: Sweeper,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    """The earlier optimizer is no choice now; its own setting is, and says nothing to the others."""
    monkeypatch.setattr("sweep.conductor.proposals._MAX_IN_VAIN", 2)  # none can be composed
    sweep("optimizer=prodigy", "optimizer.d_coef=0.5,2", "sweep.name=earlier")
    sweep("search=nsga2", "optimizer=choice(adamw,lion)", "optimizer.d_coef=interval(0.1,3)", "search.num_trials=1",
          "search.warm_start=[auto]")
    assert "learns from 0 of 2 trials of earlier" in log_of(tmp_path)


def generations(folder: Path) -> list[tuple[int | None, optuna.trial.FrozenTrial]]:
    """Of the trials of an NSGA-II study."""
    sampler, study = optuna.samplers.NSGAIISampler(population_size=4), study_of(folder)
    found = {trial.number: number for number in range(20) for trial in sampler.get_population(study, number)}
    return [(found.get(trial.number), trial) for trial in study.trials]


def test_nsga2_breeds_from_an_earlier_sweep_and_from_a_study_that_was_lost(tmp_path: Path, sweep: Sweeper) -> None:
    sweep("unet_lr=2e-4,3e-4,4e-4,5e-4", "network_dim=32", "sweep.name=earlier")
    command = ("search=nsga2", "search.population_size=4", "unet_lr=interval(1e-6,1)", "network_dim=choice(8,32,128)",
               "pack.max_trials=1", "search.pruning.rule=none")
    sweep(*command, "search.warm_start=[earlier]", "search.num_trials=4")
    assert "learns from 4 of 4 trials of earlier" in log_of(tmp_path)
    first = generations(tmp_path)
    assert [generation for generation, trial in first if "of" in trial.user_attrs] == [0] * 4
    bred = [trial for generation, trial in first if generation == 1]
    assert bred and any(trial.params["unet_lr"] < 0.01 for trial in bred), "the earlier sweep's rates are inherited"
    (tmp_path / "s" / "study.log").unlink()
    sweep(*command, "search.num_trials=8")
    again = generations(tmp_path)
    told = [generation for generation, trial in again if "train_id" in trial.user_attrs]
    assert told[:4] == [0] * 4 and len(told) == 8 and all(generation for generation in told[4:])


@pytest.mark.parametrize("name", ["cmaes", "random", "qmc"])
def test_a_sampler_that_can_learn_nothing_from_an_earlier_sweep_says_so(tmp_path: Path, sweep: Sweeper,
                                                                       name: str) -> None:
    sweep("unet_lr=1e-5,1e-4,1e-3", "sweep.name=earlier")
    command = (f"search={name}", "unet_lr=interval(1e-5,1e-3)", "search.warm_start=[earlier]",
               "search.min_diversity=0.1")
    sweep(*command, "search.num_trials=2")
    log = log_of(tmp_path)
    assert f"learns nothing from earlier: search={name} uses no trial" in log and "learns from" not in log
    assert len([trial for trial in study_of(tmp_path).trials if "of" in trial.user_attrs]) == 0
    assert f"search={name} proposes without looking at min_diversity" in log and "the search goes on" not in log
    (tmp_path / "s" / "study.log").unlink()
    sweep(*command, "search.num_trials=3")
    log = log_of(tmp_path)
    assert ("begins its distribution anew" in log) == (name == "cmaes")
    assert f"what {name} proposes from here may differ" in log


def test_a_proposal_that_has_failed_before_is_answered_at_once(tmp_path: Path, sweep: Sweeper) -> None:
    with pytest.raises(TrialsFailedError):
        sweep("search=random", "network_dim=choice(8,32)", "search.num_trials=3", "pack.max_trials=1",
              stand_in=StandIn(fails={1: "No space left on device"}))
    trials = study_of(tmp_path).trials
    assert len(trials) > 2 and all(trial.state.is_finished() for trial in trials), "none waits for ever"


def test_a_lost_worker_is_tried_again_and_its_companions_go_on(tmp_path: Path, sweep: Sweeper) -> None:
    stand_in = StandIn(dies={2: 9})
    with pytest.raises(TrialsFailedError, match="1 of 3 trials failed: 2") as error:
        sweep("network_dim=4,8,16", stand_in=stand_in)
    assert "train.log" in str(error.value) and "python" in str(error.value)
    assert sorted(map(sorted, stand_in.started)) == [[1], [1, 2, 3], [1, 2, 3], [2], [3]]
    with (tmp_path / "s" / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["done", "failed", "done"]
    assert "exit code -9" in rows[1]["reason"] and "tried 3 times" in rows[1]["reason"]
    [log] = tmp_path.glob("trials/*/train.log")
    assert log.parent.name == rows[1]["identity"] and "exit code -9; it was tried 3 times" in log.read_text()
    again = sweep("network_dim=4,8,16")
    assert [result.status for result in again] == [DONE] * 3


def test_a_search_finds_out_which_trial_kills_its_worker(sweep: Sweeper) -> None:
    """Each of those that were lost together twice runs alone; no new proposal joins it."""
    stand_in = StandIn(dies={2: 9}, is_gradual=True)
    with pytest.raises(TrialsFailedError, match="1 of 6 trials failed: 2"):
        sweep("search=random", "unet_lr=interval(1e-5,1e-3)", "search.num_trials=6", "pack.max_trials=4",
              "search.pruning.rule=none", stand_in=stand_in)


def test_a_worker_that_cannot_even_start_is_given_up(sweep: Sweeper) -> None:
    stand_in = StandIn(is_stillborn=True)
    with pytest.raises(TrialsFailedError, match="2 of 2 trials failed"):
        sweep("network_dim=4,8", stand_in=stand_in)
    assert len(stand_in.started) == 4  # together twice, then each alone


def test_photos_that_cannot_be_used_refuse_their_own_trial_of_a_scored_grid(tmp_path: Path, sweep: Sweeper) -> None:
    results = sweep(f"dataset.dir={tmp_path / 'nowhere'},null", "network_dim=4")
    assert sorted(result.status for result in results) == [DONE, REFUSED]


def test_a_pruned_trial_that_is_not_scored_yet_stays_pruned(tmp_path: Path, sweep: Sweeper) -> None:
    """Its worker was killed while it scored: the wish to end it must still be there for the next one."""
    sweep("network_dim=4", "early_stop=1")
    [status] = tmp_path.glob("trials/*/status.json")
    write_json(status, {**read_json(status), "status": "running", "phase": "scoring", "is_trained": True,
                        "pruned": "ended early at step 60: fallen (early_stop)"})
    write_json(status.parent / "prune.json", {"reason": "fallen", "by": "early_stop"})
    sweep("network_dim=4", "early_stop=1")
    assert (status.parent / "prune.json").exists()
    write_json(status, {**read_json(status), "status": "running", "pruned": "ended early"})
    sweep("network_dim=4")
    assert not (status.parent / "prune.json").exists(), "who may not prune wants it whole"


def test_a_plan_says_packs_images_and_what_is_known_of_files(sweep: Sweeper, capsys: Any) -> None:
    command = ("network_dim=4,8,16", "unet_lr=1e-4,1e-3", "save_every_n_steps=50", "max_train_steps=100",
               "pack.max_trials=4")
    sweep(*command, "plan=true")
    said = capsys.readouterr().out
    assert "packs: 6 trials\n" in said and "LoRA files: about 0.01" in said
    assert "minutes: not known before a first trial has run here" in said
    assert "scoring: about" in said and "24 LoRA files" in said
    sweep(*command[1:], "network_dim=4")
    capsys.readouterr()
    sweep(*command, "plan=true", "sweep.name=other")
    assert "2 already done" in (said := capsys.readouterr().out)
    assert "LoRA files: about 0 GB" in said, "the stand-in's files are empty"


def test_a_plan_says_which_cells_are_duplicates(sweep: Sweeper, capsys: Any) -> None:
    sweep("network_dim=8,32", "network_alpha=4,8,4,8", "plan=true")
    said = capsys.readouterr().out
    assert ": 4 trials, 0 already done" in said and "4 duplicates merged: " in said


def test_a_plan_of_a_search_is_an_estimate_of_all_its_trials(tmp_path: Path, sweep: Sweeper, capsys: Any) -> None:
    command = ("search=tpe", "unet_lr=tag(log,interval(1e-5,1e-3))", "network_dim=8,16,128", "max_train_steps=100",
               "save_every_n_steps=50", "search.num_trials=6", "search.gpu_hours=1", "pack.max_trials=3",
               "search.pruning.rule=none")
    assert sweep(*command, "plan=true") == [] and not (tmp_path / "s").exists()
    said = capsys.readouterr().out
    assert "an estimate, as if each trial were like unet_lr=1e-4 network_dim=16: 100 steps, 4 LoRA files" in said
    assert "to do: about 6 trials, 0 are there, 600 steps, 24 LoRA files\n" in said
    assert "packs: up to 3 trials at a time on each of 1 worker, refilled" in said
    assert "scoring: about" in said and "LoRA files: about 0.02" in said
    assert "minutes: not known before a first trial has run here" in said
    assert "1 GPU-hours are enough for: not known before a first trial has run here" in said
    sweep(*command)
    write_json(tmp_path / "cache" / "rates.json", {
        f"pocket 64px auto scoring=pocket {unit}": spent_s for unit, spent_s in (
            ("step", 5), ("checkpoint", 100), ("trial", 300))})
    capsys.readouterr()
    sweep(*command[:5], "search.num_trials=20", "search.gpu_hours=1", "plan=true")
    said = capsys.readouterr().out
    assert "to do: about 3 trials, 6 are there, 300 steps, 12 LoRA files, about 60 min" in said
    assert "1 GPU-hours are enough for about 3 trials more, so they end it before search.num_trials=20" in said


class Interrupted(StandIn):
    """Ctrl-C at the given polls; its packs end by themselves once they are told to stop, or never."""

    def __init__(self, polls: set[int], control: Path, *, obeys: bool):
        super().__init__(is_gradual=True, num_checkpoints=10**6)
        self._polls, self._control, self._obeys, self.num_polls = polls, control, obeys, 0

    def poll(self) -> list[tuple[Path, str | None]]:
        self.num_polls += 1
        if self.num_polls in self._polls:
            raise KeyboardInterrupt
        if self._obeys and self._control.exists():
            ended: list[tuple[Path, str | None]] = [(spec, None) for spec in self._packs]
            self._packs.clear()
            return ended
        return super().poll()


@pytest.mark.parametrize(("polls", "obeys"), [({3}, True), ({3, 6}, False)], ids=["once", "twice"])
def test_ctrl_c_saves_first_and_then_stops_at_once(tmp_path: Path, sweep: Sweeper, polls: set[int],
                                                  obeys: bool) -> None:
    launcher = Interrupted(polls, tmp_path / "s" / "control.json", obeys=obeys)
    with pytest.raises(KeyboardInterrupt):
        sweep("network_dim=4,8", stand_in=launcher)
    assert launcher.is_closed and launcher.num_polls == (4 if obeys else 6)
    assert (tmp_path / "s" / "diary.md").exists() and (tmp_path / "s" / "trials.csv").exists(), "the record is written"
    assert "stopped by Ctrl-C" in log_of(tmp_path)
    assert [result.status for result in sweep("network_dim=4,8")] == [DONE] * 2


def test_a_study_that_a_kill_left_with_half_a_line_goes_on(tmp_path: Path, sweep: Sweeper) -> None:
    sweep("network_dim=4,8")
    journal = tmp_path / "s" / "study.log"
    with journal.open("ab") as file:
        file.write(b'{"op_code": 6, "st')
    assert [result.status for result in sweep("network_dim=4,8,16,32")] == [DONE] * 4
    assert sorted(trial.user_attrs["trial"] for trial in study_of(tmp_path).trials) == [1, 2, 3, 4]
    assert not (tmp_path / "s" / "study.damaged.log").exists()


def test_ctrl_c_takes_back_what_waits_in_a_queue(sweep: Sweeper) -> None:
    class Queue(StandIn):
        """A cluster on which nothing's turn ever comes."""

        num_polls, is_stopped = 0, False

        def stop(self) -> None:
            self.is_stopped = True

        def poll(self) -> list[tuple[Path, str | None]]:
            self.num_polls += 1
            if self.num_polls == 1:
                raise KeyboardInterrupt
            assert self.is_stopped and self.num_polls == 2, "waits for jobs that have not begun"
            return [(self._packs.popitem()[0], "taken back")]

    with pytest.raises(KeyboardInterrupt):
        sweep("network_dim=4,8", "pack.max_trials=2", stand_in=Queue())
    assert [result.status for result in sweep("network_dim=4,8")] == [DONE] * 2


def test_a_launcher_that_cannot_start_leaves_the_terminal_as_it_was(tmp_path: Path,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    open_views: list[Any] = []

    class Open:
        def __init__(self, *_: Any, **__: Any):
            open_views.append(self)

        def close(self) -> None:
            open_views.remove(self)

    def no_launcher(config: Any, folder: Path) -> Any:
        raise ConfigError("no cluster answers")

    monkeypatch.setattr("sweep.conductor.conduct.make_view", Open)
    lines = [f"sweep.results_dir={tmp_path}", "tracker=none", "dataset.num_images=4", "scoring=none"]
    with pytest.raises(ConfigError, match="no cluster answers"):
        run_sweep(lines, no_launcher)
    assert not open_views


def test_what_is_done_counts_from_the_start_of_an_extended_sweep(sweep: Sweeper, capsys: Any,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    sweep("network_dim=4,8")
    capsys.readouterr()
    monkeypatch.setattr("sweep.record.terminal._QUIET_S", 0.0)
    sweep("network_dim=4,8,16")
    standing = [line for line in capsys.readouterr().out.splitlines() if "trials finished" in line]
    assert standing and all(line.startswith(("2/3", "3/3")) and "best so far" in line for line in standing)


def test_a_failed_trial_is_a_row_and_the_rest_goes_on(sweep: Sweeper, capsys: Any) -> None:
    with pytest.raises(TrialsFailedError):
        sweep("network_dim=4,8", stand_in=StandIn(fails={1: "No space left on device"}))
    assert "No space left on device" in capsys.readouterr().out
    assert [r.status for r in sweep("network_dim=4,8", stand_in=StandIn())] == [DONE, DONE]


def test_a_diverged_trial_is_no_success_and_is_not_tried_again(sweep: Sweeper, capsys: Any) -> None:
    with pytest.raises(TrialsFailedError, match="1 of 3 trials diverged: 2. The same command leaves them") as error:
        sweep("network_dim=4,8,16", stand_in=StandIn(diverges={2: "diverged: the loss was not finite at step 7"}))
    assert "trials failed" not in str(error.value) and "train.py" not in str(error.value)
    assert "trial 2 diverged: the loss was not finite at step 7" in capsys.readouterr().out
    again = StandIn()
    with pytest.raises(TrialsFailedError, match="1 of 3 trials diverged: 2"):
        sweep("network_dim=4,8,16", stand_in=again)
    assert again.started == []


def test_the_last_words_tell_what_failed_from_what_diverged(sweep: Sweeper) -> None:
    said = r"(?s)1 of 3 trials failed: 1\..*train\.py.*1 of 3 trials diverged: 3\."
    with pytest.raises(TrialsFailedError, match=said):
        sweep("network_dim=4,8,16", stand_in=StandIn(fails={1: "full"}, diverges={3: "diverged: NaN"}))


def test_cells_that_make_no_config_are_rows_of_the_record(tmp_path: Path, sweep: Sweeper) -> None:
    results = sweep("optimizer=adamw,prodigy", "optimizer.d_coef=0.5,2")
    assert [result.status for result in results] == [REFUSED, REFUSED, DONE, DONE]
    with (tmp_path / "s" / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["optimizer.d_coef"], row["status"]) for row in rows] == [
        ("0.5", "refused"), ("2", "refused"), ("0.5", "done"), ("2", "done")]
    assert "optimizer.d_coef is a key of optimizer=prodigy alone" in rows[0]["reason"]
    assert "d_coef is a key of" in (tmp_path / "s" / "diary.md").read_text()
    assert "optimizer=prodigy alone" in (tmp_path / "s" / "report.html").read_text()
    assert [result.status for result in sweep("optimizer=adamw,prodigy", "optimizer.d_coef=0.5,2,3")] == [
        REFUSED, REFUSED, DONE, DONE, REFUSED, DONE]


def test_refused_cells_stand_in_the_last_words_and_are_no_failure(sweep: Sweeper, capsys: Any) -> None:
    results = sweep("optimizer=adamw,prodigy", "unet_lr=5e-5", "text_encoder_lr=5e-5,1e-5,2e-5")
    assert [result.status for result in results] == [DONE] * 4 + [REFUSED] * 2
    said = capsys.readouterr().out
    last = said[said.rindex("2 of 6 cells were refused before the start"):]
    assert "diary.md" in last and last.count("with optimizer=prodigy") == 2
    assert "\n  5: unet_lr=5e-05 and text_encoder_lr=1e-05" in last and "\n  6: unet_lr=5e-05" in last


def test_a_trial_whose_status_is_damaged_is_gone_on_with(tmp_path: Path, sweep: Sweeper) -> None:
    one, two = sweep("network_dim=4,8")
    path = trial_folder(tmp_path, one.trial.train_id).status
    path.write_bytes(path.read_bytes()[:40])
    again = StandIn()
    assert sweep("network_dim=4,8", stand_in=again)[1] == two
    assert again.started == [(1,)] and read_status(tmp_path, one.trial).status == DONE
    assert f"trial 1: {path} can't be read (JSONDecodeError)" in log_of(tmp_path)


@pytest.mark.parametrize(("arguments", "message"), [
    (("unet_lr=interval(1e-5,1e-3)",), "search=tpe"),
    (("search=tpe", "search.num_trials=3"), "nothing to search over"),
    (("search=tpe", "network_dim=4,8", "search.when={conv_dim:{network:[locon]}}"), "conv_dim, which is not searched"),
    (("search=tpe", "network_dim=4,8", "search.start_from=nowhere"), "one of: seeds"),
    (("search=tpe", "network_dim=4,8", "search.warm_start=[nowhere]"), "which is no sweep in"),
    (("search=tpe", "network_dim=4,8", "search.storage_file=postgresql://me:secret@host/db"), "not the URL"),
    (("network_dim=4,8", "search.storage_file=/nowhere/url"), "search.storage_file=/nowhere/url: No such file"),
])
@pytest.mark.parametrize("is_plan", [False, True], ids=["run", "plan"])
def test_what_cannot_be_searched(tmp_path: Path, sweep: Sweeper, arguments: tuple[str, ...], message: str,
                                 is_plan: bool) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        sweep(*arguments, f"plan={str(is_plan).lower()}")
    assert "secret" not in str(error.value)
    assert not (tmp_path / "s").exists(), "nothing is begun"


@pytest.mark.parametrize(("arguments", "named"), [
    (("search=tpe", "network_dim=4,8", "search.pruning.rule=none"), "search=tpe with scoring=none"),
    (("search=random", "network_dim=4,8"), "search=random and search.pruning.rule=paired with"),
    (("network_dim=4,8", "search.pruning.rule=median"), "search.pruning.rule=median with"),
    (("early_stop=2",), "early_stop=2 with"),
])
@pytest.mark.parametrize("plan", ["true", "false"])
def test_what_needs_scores_is_refused_without_them(tmp_path: Path, sweep: Sweeper, arguments: tuple[str, ...],
                                                   named: str, plan: str) -> None:
    with pytest.raises(ConfigError, match=named):
        sweep(*arguments, "scoring=none", f"plan={plan}")
    assert not (tmp_path / "s").exists(), "before anything starts"
    assert sweep("network_dim=4,8", "scoring=none", f"plan={plan}") is not None


def test_trials_that_were_trained_before_are_shown_to_a_tracker_chosen_later(tmp_path: Path, sweep: Sweeper) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    results = sweep("network_dim=4,8")
    assert not list(tmp_path.glob("s/tensorboard/*"))
    later = StandIn()
    for _ in range(2):
        sweep("network_dim=4,8", "tracker=tensorboard", stand_in=later)
    assert later.started == []
    for result in results:
        [folder] = tmp_path.glob(f"s/tensorboard/*-{result.trial.train_id}")
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
        events.Reload()
        steps = [event.step for event in events.Scalars("screen/usefulness")]
        assert steps and len(steps) == len(set(steps)), "each once"
        assert len(events.Scalars("answer/usefulness")) == 1


@pytest.mark.parametrize(("key", "shipped", "change"), [
    ("thresholds_file", TREE["thresholds"], {"good_adherence": 0.75}),
    ("prompt_file", {"version": TREE["prompts_version"],
                     **{key: TREE[key] for key in ("prompts", "class_prompts", "attributes")}}, {"version": 9})])
def test_a_users_own_file_counts_by_what_it_says_and_not_by_its_name(
        tmp_path: Path, sweep: Sweeper, key: str, shipped: dict[str, Any], change: dict[str, Any]) -> None:
    one, other = tmp_path / "one.yaml", tmp_path / "other.yaml"
    for path in (one, other):
        path.write_text(yaml.safe_dump(shipped))
    sweep("network_dim=4")
    sweep("network_dim=4", f"scoring.{key}={one}")
    sweep("network_dim=4", f"scoring.{key}={other}")
    one.write_text(yaml.safe_dump({**shipped, **change}))
    with pytest.raises(SweepExistsError, match="scoring: pocket .* there, pocket .* here"):
        sweep("network_dim=4", f"scoring.{key}={one}")
