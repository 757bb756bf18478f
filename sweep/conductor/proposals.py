"""What a search tries next: the sampler's proposals as trials of the sweep, within its budgets."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sweep.conductor.search_plan import warm_folders
from sweep.data.settings import OF_DRAWING
from sweep.errors import ConfigError
from sweep.preflight import Preflight
from sweep.record.entry import read_entry
from sweep.record.facts import trials_of
from sweep.record.results import is_complete, read_status
from sweep.record.sweep_log import note, notes
from sweep.schema import flat, to_tree
from sweep.search.grid import Cells
from sweep.search.outcome import Outcome
from sweep.search.settings import LEARNERS, Sampled
from sweep.search.space import standing
from sweep.search.starts import fitting, read_starts
from sweep.search.study import SweepStudy
from sweep.trial import FINISHED, Trial

if TYPE_CHECKING:
    from sweep.conductor.sweep import Sweep

_MAX_IN_VAIN = 50  # proposals in a row that train nothing new: then the space is taken for exhausted


class Proposals:
    """Asks the study for trials that are new."""

    def __init__(self, sweep: Sweep, cells: Cells, preflight: Preflight, study: SweepStudy):
        config = cells.config.search
        assert isinstance(config, Sampled)
        self._sweep, self._cells, self._preflight, self._study, self._config = sweep, cells, preflight, study, config
        self._started_s = time.monotonic()
        self._is_exhausted = False
        self._same_as: dict[str, list[int]] = {}  # proposals that wait for a running trial's result
        self._spent_s: dict[str, float] = {}  # by train_id, of those on which this start spends nothing more
        self._ended: set[str] = set()  # whose result is told; a failed one is not tried again before the next start
        if len(config.objectives) > 1 and config.pruning.rule != "none":
            note(sweep.dir, f"several objectives ({', '.join(config.objectives)}): no trial is pruned, as Optuna can't "
                            "rank unfinished ones; there is no single best trial, see the Pareto front")
        is_new = study.is_new
        if not is_new:
            note(sweep.dir, f"the search goes on from the trials that are told; what {config.name} proposes from here "
                            "may differ from what it would have without the stop")
        if config.name not in LEARNERS:
            self._say_what_is_not_used(study.lost)
        if config.warm_start:
            self._warm_start()
        if is_new and config.start_from is not None:
            self._try_first(config.start_from)

    def next(self) -> Trial | None:
        """A new trial; None if a budget is spent or the space holds nothing new."""
        for _ in range(_MAX_IN_VAIN):
            if self._is_exhausted or self._is_spent():
                return None
            trial = self._propose()
            if trial is not None:
                return trial
        self._is_exhausted = True
        note(self._sweep.dir, f"the search ends: {_MAX_IN_VAIN} proposals in a row were trained before or can't work")
        return None

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """A trial has ended: so have the proposals that were the same."""
        self._ended.add(trial.train_id)
        self._study.tell(trial, outcome)
        for number in self._same_as.pop(trial.train_id, ()):
            self._study.reject(number, outcome, f"the same as trial {trial.number}")

    def _propose(self) -> Trial | None:
        number, settings = self._study.ask()
        try:
            one = self._preflight.look(self._cells.cell_at(settings))
        except ConfigError as error:
            self._study.reject(number, None, str(error))
            note(self._sweep.dir, f"can't work {settings}: {error}")
            return None
        known = self._sweep.known.get(one.trial.train_id)
        if known is not None and not known.refused:
            if known.train_id in self._ended or self._sweep.is_complete(known):
                self._study.reject(number, self._sweep.outcome(known), f"the same as trial {known.number}")
            else:
                self._same_as.setdefault(known.train_id, []).append(number)
            return None
        self._sweep.take_in([one])
        trial = self._sweep.known[one.trial.train_id]
        if trial.refused:
            self._study.reject(number, None, trial.refused)
            return None
        self._study.assign(number, trial)
        if self._sweep.is_complete(trial):  # another sweep trained and scored it
            self.tell(trial, self._sweep.outcome(trial))
            return None
        return trial

    def _is_spent(self) -> bool:
        config, trials = self._config, [trial for trial in self._sweep.known.values() if not trial.refused]
        if config.num_trials is not None and len(trials) >= config.num_trials:
            return True
        if config.wall_hours is not None and time.monotonic() - self._started_s >= config.wall_hours * 3600:
            return True
        if config.gpu_hours is None:
            return False
        return sum(map(self._spent_on, trials)) >= config.gpu_hours * 3600

    def _spent_on(self, trial: Trial) -> float:
        """Seconds. Read until it ends; of one that an earlier start completed once, as nothing is to do with it."""
        if trial.train_id in self._spent_s:
            return self._spent_s[trial.train_id]
        is_over = trial.train_id in self._ended or self._sweep.is_complete(trial)  # before the read: it may end between
        spent_s = read_status(self._sweep.results_dir, trial).attributed_s
        if is_over:
            self._spent_s[trial.train_id] = spent_s
        return spent_s

    def _say_what_is_not_used(self, lost: str) -> None:
        name, limits = self._config.name, self._config.limits
        if limits:
            note(self._sweep.dir, f"search={name} proposes without looking at {' and '.join(limits)}; the file to use "
                                  "is chosen among feasible trials all the same")
        if lost and name == "cmaes":
            note(self._sweep.dir, "search=cmaes begins its distribution anew: it updates it by its own trials alone, "
                                  "and which those were was lost with the study")

    def _try_first(self, name: str) -> None:
        points = read_starts(name)
        kept, left_out = fitting(points, self._study.space, self._composed, self._cells.typed)
        self._study.enqueue(kept)
        notes(self._sweep.dir, [f"tries {len(kept)} of {len(points)} points of {name} first",
                                *(f"{name}: leaves out {line}" for line in left_out)])

    def _composed(self, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        tree: Mapping[str, Any] = to_tree(self._cells.cell_at(settings).config.train)
        return tree

    def _warm_start(self) -> None:
        """Trials of earlier sweeps are observations if they differ in nothing but what is searched and the seed."""
        sweep = self._sweep
        fixed = read_entry(sweep.dir / "sweep.yaml").question
        for folder in warm_folders(sweep.dir, self._config.warm_start):
            question = read_entry(folder / "sweep.yaml").question
            if any(question.get(key) != fixed.get(key) for key in ("photos", "base", "scoring")):
                note(sweep.dir, f"learns nothing from {folder.name}: its photos, base or scoring are others")
                continue
            if self._config.name not in LEARNERS:
                note(sweep.dir, f"learns nothing from {folder.name}: search={self._config.name} uses no trial that it "
                                f"has not proposed itself. Those that do: {', '.join(LEARNERS)}")
                continue
            trials = trials_of(folder)
            learned = sum(self._learn(trial, folder.name) for trial in trials)
            note(sweep.dir, f"learns from {learned} of {len(trials)} trials of {folder.name}")

    def _learn(self, trial: Trial, name: str) -> bool:
        sweep = self._sweep
        if trial.refused or not is_complete(sweep.results_dir, trial, sweep.scoring_id(trial)):
            return False
        if read_status(sweep.results_dir, trial).status not in FINISHED or trial.train_id in sweep.known:
            return False
        settings = self._as_settings(trial.config)
        try:
            mine = flat(self._preflight.look(self._cells.cell_at(settings)).trial.config)
        except ConfigError:  # what is searched now leaves out a part without which the rest can't be composed
            return False
        theirs = flat(trial.config)
        free = {"seed", "dataset.dir"}
        if mine.get("dataset.generate_reg") is None:
            free |= {f"dataset.{key}" for key in OF_DRAWING}
        if any(mine.get(key) != theirs.get(key) for key in {*mine, *theirs} - free):
            return False
        return self._study.learn(settings, sweep.outcome(trial), name, trial.train_id)

    def _as_settings(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """A trained config in terms of what is searched; a group stands as its option's name."""
        found: dict[str, Any] = {}
        for axis in self._cells.axes:
            value = standing(axis.key, config)
            if value is not None:
                found[axis.key] = value
        return self._study.space.inside(found)
