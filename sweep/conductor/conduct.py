"""ask -> pack -> launch -> tell -> record. With `dispatch`, what knows every layer; never imports torch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from sweep.conductor.conclusion import conclude
from sweep.conductor.dispatch import Dispatch
from sweep.conductor.plan import remember_costs, remember_sizes, room_said
from sweep.conductor.proposals import Proposals
from sweep.conductor.question import check_results_dir, checked_name, default_name, question_of
from sweep.conductor.search_plan import check_search, show_search_plan, warm_folders
from sweep.conductor.sweep import Sweep
from sweep.data.check.headline import headlines
from sweep.errors import ConfigError
from sweep.evaluation.backends.registry import backend_identities
from sweep.evaluation.settings import NoScoring
from sweep.launch.launcher import Launcher, make_launcher
from sweep.lock import conductor_lock
from sweep.preflight import Checked, Preflight, first_read
from sweep.record.entry import SweepEntry
from sweep.record.facts import Record, with_breaches
from sweep.record.results import read_result, read_status
from sweep.record.sweep_log import note
from sweep.record.terminal import make_view, say, show_plan, show_results
from sweep.record.tracker import Tracker, make_tracker
from sweep.record.use import check_use, copy_chosen
from sweep.record.views import write_views
from sweep.redact import command_without_secrets
from sweep.search.grid import Cells
from sweep.search.settings import Sampled
from sweep.search.study import SweepStudy
from sweep.trial import DONE, FINISHED, TrialResult

LauncherMaker = Callable[[Any, Path], Launcher]


def conduct(cells: Cells, launcher_of: LauncherMaker = make_launcher, *, command: Sequence[str] | None = None,
            trains: bool = True) -> list[TrialResult]:
    """Run a sweep, or go on with it, until every trial has its result. Returns a result per trial of the sweep.

    launcher_of: (launcher config, sweep's folder) -> launcher.
    command: what asks for this sweep; None = what was typed.
    trains: False = what is trained is scored, however it was scored before, and nothing else is begun.
    Raises SweepError for what a user can mend, and TrialsFailedError after the record is written if a trial failed or
    diverged.
    """
    config = cells.config
    results_dir = Path(config.sweep.results_dir)
    check_results_dir(results_dir)
    check_use(config.use)
    check_search(cells)
    preflight = Preflight(results_dir)
    checked = preflight.check(cells.cells) if cells.cells else []
    first = first_read(checked or [preflight.look(cells.cell_at({}))])
    if not first.dataset.photos:  # a search over photos that can't be used
        raise ConfigError(first.trial.refused)
    question = question_of(cells, first)
    name = checked_name(config.sweep.name) or default_name(cells.swept_keys, question)
    for line in headlines([(one.dataset, one.config, one.trial.num_steps)
                           for one in checked or [first] if one.dataset.photos]):
        say(line)
    backends = {} if isinstance(config.scoring, NoScoring) else backend_identities(config.scoring)
    sweep = Sweep(name=name, dir=results_dir / name, config=config, backends=backends, trains=trains,
                  command=command_without_secrets(command or ["python", *sys.argv]),
                  num_checkpoints={one.trial.train_id: one.num_checkpoints for one in checked})
    if isinstance(config.search, Sampled):
        warm_folders(sweep.dir, config.search.warm_start)
    if config.plan:
        sweep.entry(cells, first, question)  # a name that stands for another question is refused
        if isinstance(config.search, Sampled):
            show_search_plan(sweep, cells, preflight, first)
        else:
            sweep.show_plan(checked)
        return []
    with conductor_lock(sweep.dir):
        entry = sweep.entry(cells, first, question)
        sweep.open(entry, first.dataset.skipped)
        sweep.take_in(checked)
        sweep.keep_own_notes(cells)
        results = _run(sweep, entry, cells, preflight, _in_order(cells, checked), launcher_of)
    conclude(sweep, results)
    return results


def _run(sweep: Sweep, entry: SweepEntry, cells: Cells, preflight: Preflight, order: Sequence[str],
         launcher_of: LauncherMaker) -> list[TrialResult]:
    """Launch what is not complete, follow it, and write the record. order: train_ids in the order to run in."""
    trials = sweep.trials()
    rank = {train_id: position for position, train_id in enumerate(order)}
    complete = {trial.train_id for trial in trials if sweep.is_complete(trial)}
    todo = sorted((trial for trial in trials if trial.train_id not in complete and sweep.may_start(trial)),
                  key=lambda trial: rank.get(trial.train_id, len(rank) + trial.number))
    ids = {trial.train_id for trial in todo} | complete
    if left := [str(trial.number) for trial in trials if trial.train_id not in ids]:
        say(f"not trained, and left as they are: {', '.join(left)}")
    packs = sweep.plan_packs(todo)
    show_plan(sweep.name, [trial for trial in trials if trial.train_id in ids], steps_left=sweep.steps_left,
              already_done=[t.train_id for t in trials if t.train_id in complete], num_packs=len(packs),
              estimated_s=sweep.expected_s(todo),
              room=room_said(sweep.results_dir, sweep.config.pack.max_trials, todo))
    study = SweepStudy(sweep.dir, sweep.config.search, cells.axes, cells.fixed, say)
    study.reconcile(trials, {trial.train_id: sweep.outcome(trial) for trial in trials if trial.train_id in complete})
    if study.lost:
        note(sweep.dir, f"the study was built anew from the trials' folders: {study.lost}")
    proposals = Proposals(sweep, cells, preflight, study) if (
        sweep.trains and isinstance(sweep.config.search, Sampled)) else None
    tracker = make_tracker(sweep.config.tracker, entry, sweep.dir, sweep.results_dir)
    try:
        if packs or proposals is not None:
            shown = [trial for trial in trials if trial.train_id in ids and not trial.refused]
            so_far = {trial.train_id: sweep.progress(trial, read_status(sweep.results_dir, trial))
                      for trial in shown if trial.train_id in complete}
            with closing(launcher_of(sweep.config.launcher, sweep.dir)) as launcher, closing(
                    make_view(shown, sweep.name, so_far=so_far, limits=sweep.limits)) as view:
                Dispatch(sweep, study, proposals, launcher, view, tracker).run(packs)
            study.settle()
    finally:
        results, record = _record(sweep, complete, tracker)
    show_results(entry, results, sweep.dir)
    copied = copy_chosen(sweep.config.use, record)
    if copied is not None:
        print(f"copied to: {copied}")
    return results


def _record(sweep: Sweep, complete: set[str], tracker: Tracker) -> tuple[list[TrialResult], Record]:
    """Write every view of what the folders say. complete: trials with which nothing was to do."""
    results = list(with_breaches((read_result(sweep.results_dir, trial, sweep.scoring_id(trial))
                                  for trial in sweep.trials()), sweep.limits))
    mine = [result for result in results if result.trial.train_id not in complete]
    done = [result for result in mine if result.status == DONE]
    remember_costs(sweep.results_dir, sweep.rate_key, done)
    remember_sizes(sweep.results_dir, done)
    try:
        record = write_views(sweep.dir)
        for result in results:  # also those with which nothing was to do: a tracker chosen since lacks them
            if result.status in FINISHED:
                tracker.end(result)
        tracker.conclude(record)
    finally:
        tracker.close()
    return results, record


def _in_order(cells: Cells, checked: Sequence[Checked]) -> list[str]:
    """The trials of a grid in the order in which they should run; merged cells have none of their own."""
    by_settings = {repr(dict(one.trial.settings)): one.trial.train_id for one in checked}
    settings = (repr(dict(cells.cells[position].settings)) for position in cells.order)
    return [by_settings[key] for key in settings if key in by_settings]
