"""What a search will cost, about: as many trials as its budgets allow, each like one in the middle of its space. What
it asks for is checked first, so that a plan refuses what the search itself would. Imports neither torch nor Optuna."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.conductor import plan
from sweep.errors import ConfigError
from sweep.evaluation.settings import NoScoring
from sweep.methods import file_word
from sweep.preflight import Checked, Preflight
from sweep.record.facts import trials_of
from sweep.record.results import read_status
from sweep.record.terminal import duration, label, say
from sweep.search.grid import Cells
from sweep.search.settings import Sampled
from sweep.search.space import Space
from sweep.search.starts import read_starts
from sweep.search.storage import database_url

if TYPE_CHECKING:
    from sweep.conductor.sweep import Sweep

NOT_KNOWN = "not known before a first trial has run here"


def check_search(cells: Cells) -> None:
    """Refuse what a search can't begin with, and what needs scores where there are none. Raises ConfigError."""
    config, search = cells.config, cells.config.search
    is_search = isinstance(search, Sampled)
    database_url(search.storage_file)
    if isinstance(config.scoring, NoScoring):
        needs = [f"search={search.name}"] if is_search else []
        needs += [f"search.pruning.rule={search.pruning.rule}"] if search.pruning.rule != "none" else []
        needs += [f"early_stop={config.early_stop}"] if config.early_stop is not None else []
        if needs:
            without = "leave it out" if not is_search else "run a grid (search=grid, which is the default)"
            raise ConfigError(f"{' and '.join(needs)} with scoring=none: trials are compared by their scores, and none "
                              f"would have any. Choose scoring=pocket, person, animal, object or style, or {without}.")
    if not isinstance(search, Sampled):
        return
    if not cells.axes:
        raise ConfigError(f"search={search.name} has nothing to search over. Add intervals or choices, e.g. "
                          "'unet_lr=tag(log, interval(1e-5,1e-3))', or search.space in a file.")
    Space(cells.axes, search.when or {}, cells.fixed)
    if search.start_from is not None:
        read_starts(search.start_from)


def warm_folders(sweep_dir: Path, names: tuple[str, ...]) -> list[Path]:
    """The earlier sweeps that search.warm_start names. Raises ConfigError for one that isn't there."""
    if not names:
        return []
    results_dir = sweep_dir.parent
    folders = sorted(path.parent for path in results_dir.glob("*/sweep.yaml") if path.parent != sweep_dir)
    if "auto" in names:
        return folders
    missing = sorted(set(names) - {folder.name for folder in folders})
    if missing:
        raise ConfigError(f"search.warm_start names {', '.join(missing)}, which is no sweep in {results_dir}. "
                          f"There are: {', '.join(f.name for f in folders) or 'none'}.")
    return [folder for folder in folders if folder.name in names]


def show_search_plan(sweep: Sweep, cells: Cells, preflight: Preflight, first: Checked) -> None:
    """Say what the search would run. first: a trial with the settings that no axis changes."""
    config = sweep.config.search
    assert isinstance(config, Sampled)
    budgets = {"GPU-hours": config.gpu_hours, "hours": config.wall_hours}
    hours = {unit: limit for unit, limit in budgets.items() if limit is not None}
    limits = [f"{limit:g} {unit}" for unit, limit in {"trials": config.num_trials, **hours}.items() if limit]
    say(f"search {sweep.name}: {config.name} proposes trials until {' or '.join(limits) or 'it is stopped'}")
    one = _typical(cells, preflight, first)
    checkpoints = one.num_checkpoints
    trial_s = plan.expected_s(sweep.results_dir, sweep.rate_key, num_steps=one.trial.num_steps,
                              num_checkpoints=checkpoints, num_trials=1)
    there = [trial for trial in trials_of(sweep.dir) if not trial.refused]
    say(f"an estimate, as if each trial were like {label(one.trial).partition(' ')[2] or 'the default'}: "
        f"{one.trial.num_steps} steps, {checkpoints} {file_word([one.trial])}s")
    fits = {unit: _num_fitting(sweep, unit, limit, trial_s) for unit, limit in hours.items()}
    ends = [num for num in (None if config.num_trials is None else max(0, config.num_trials - len(there)),
                            *fits.values()) if num is not None]
    if ends:
        _show_sums(sweep, one, min(ends), len(there), trial_s)
    else:
        say(f"to do: {NOT_KNOWN}; {len(there)} trials are there" if hours else "to do: no budget ends it")
    for unit, num in fits.items():
        if num is None:
            say(f"how many trials {hours[unit]:g} {unit} are enough for: {NOT_KNOWN}")
        else:
            is_sooner = config.num_trials is not None and len(there) + num < config.num_trials
            say(f"{hours[unit]:g} {unit} are enough for about {num} trials more"
                + (f", so they end it before search.num_trials={config.num_trials}" if is_sooner else ""))


def _show_sums(sweep: Sweep, one: Checked, num: int, num_there: int, trial_s: float | None) -> None:
    todo = [one] * num
    parts = [f"about {num} trials", f"{num_there} are there", f"{num * one.trial.num_steps} steps",
             f"{num * one.num_checkpoints} {file_word([one.trial])}s"]
    num_workers = sweep.config.launcher.num_workers
    if trial_s is not None:
        parts.append(f"about {duration(num * trial_s / min(num_workers, max(num, 1)))}")
    say(f"to do: {', '.join(parts)}")
    most = min(sweep.most_proposals, max(num, 1))
    say(f"packs: up to {most} trials at a time on each of {num_workers} worker{'s' if num_workers > 1 else ''}, "
        "refilled as trials end" + ("; pruning makes it less" if sweep.may_prune else ""))
    for line in plan.plan_lines(sweep.results_dir, todo, (), sweep.config.scoring):
        say(line)
    if trial_s is None and todo:
        say(f"minutes: {NOT_KNOWN}")


def _typical(cells: Cells, preflight: Preflight, first: Checked) -> Checked:
    """A trial in the middle of the space; where that can't work, one with the settings that no axis changes."""
    config = cells.config.search
    assert isinstance(config, Sampled)
    try:
        one = preflight.look(cells.cell_at(Space(cells.axes, config.when or {}, cells.fixed).middle()))
    except ConfigError:
        return first
    return first if one.trial.refused else one


def _num_fitting(sweep: Sweep, unit: str, hours: float, trial_s: float | None) -> int | None:
    """Trials that a budget of hours is enough for from now on; the one that oversteps it is trained to its end."""
    if trial_s is None:
        return None
    left_s = hours * 3600
    if unit == "hours":
        return math.ceil(left_s * sweep.config.launcher.num_workers / trial_s) if trial_s else None
    left_s -= sum(read_status(sweep.results_dir, trial).attributed_s for trial in trials_of(sweep.dir))
    return max(0, math.ceil(left_s / trial_s)) if trial_s else None
