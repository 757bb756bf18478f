"""A sweep as an Optuna study: what a sampler proposes and is told, and what dashboards and plots are drawn from.

A view of the trials' folders (contract 5): lost, damaged or of another space, it is built again from them. Only the
sweep's conductor writes it (contract 6).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.errors import ConfigError
from sweep.limits import excess
from sweep.search.axes import Axis
from sweep.search.outcome import Outcome, Screened
from sweep.search.ownership import claim
from sweep.search.settings import Grid, Sampled
from sweep.search.space import Space, as_param, distribution, grid_distribution
from sweep.search.storage import database_url, open_storage, patiently
from sweep.trial import Trial

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

_GRID_OBJECTIVES = ("usefulness",)


class SweepStudy:
    """The study of one sweep. Trials are known by their train_id; a trial that is tried again after a failure is a new
    one of Optuna's.

    say: is told in words what a start waits for.
    """

    def __init__(self, sweep_dir: Path, config: Grid | Sampled, axes: Sequence[Axis], fixed: Mapping[str, Any],
                 say: Callable[[str], None]):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._optuna = optuna
        self._config, self._axes = config, axes
        self.space = Space(axes, (config.when if isinstance(config, Sampled) else None) or {}, fixed)
        self.objectives = config.objectives if isinstance(config, Sampled) else _GRID_OBJECTIVES
        self._dir, self._say = sweep_dir, say
        self._url = database_url(config.storage_file)
        self._numbers: dict[str, int] = {}  # Optuna's, of trials that are not told yet, by train_id
        self.lost = ""  # why the study was built anew
        self.study = self._open()

    def reconcile(self, trials: Sequence[Trial], outcomes: Mapping[str, Outcome]) -> None:
        """Make the study say what the folders say. outcomes: of finished trials, by train_id."""
        differs = self._what_differs({trial.train_id for trial in trials}, outcomes)
        if differs:
            self.lost = differs
            if self._url is not None:
                patiently(claim, self.study, self._dir)  # never another's
            patiently(self._optuna.delete_study, study_name=self._name, storage=self.study._storage)
            self.study = self._open()
        elif self.is_new and outcomes and isinstance(self._config, Sampled):  # a grid may find another sweep's trials
            self.lost = self.lost or "it was not there"
        State = self._optuna.trial.TrialState
        here: dict[str, FrozenTrial] = {}
        asked = {trial.train_id for trial in trials}
        for one in self._trials():
            train_id = one.user_attrs.get("train_id", "")
            if train_id in asked and (one.state != State.RUNNING or train_id not in here):
                here[train_id] = one
        for trial in trials:
            found, outcome = here.get(trial.train_id), outcomes.get(trial.train_id)
            if found is not None and found.state == State.RUNNING:
                self._numbers[trial.train_id] = found.number
                if outcome is not None:
                    self.tell(trial, outcome)
            elif outcome is not None and (
                    found is None or (found.state == State.FAIL and outcome.state != "failed")):
                self._add(trial, outcome)
        self.settle()

    def settle(self) -> None:
        """End the trials that nobody follows: of a conductor that was killed, or a second one that the database made
        as it was asked again because it had gone away before it answered. Points to try first are queued again."""
        State = self._optuna.trial.TrialState
        followed = set(self._numbers.values())
        for one in patiently(self.study.get_trials, deepcopy=False, states=(State.RUNNING,)):
            if one.number in followed:
                continue
            point = one.system_attrs.get("fixed_params")  # Optuna's name for an enqueued one's
            if point and "train_id" not in one.user_attrs:
                patiently(self.study.enqueue_trial, point)
            patiently(self.study.tell, one.number, state=State.FAIL, skip_if_finished=True)

    def ask(self) -> tuple[int, dict[str, Any]]:
        """(Optuna's number, settings) of a new trial. `assign` says which trial it became, `reject` that it became
        none."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trial = patiently(self.study.ask)
            return trial.number, patiently(self.space.suggest, trial)

    def assign(self, number: int, trial: Trial) -> None:
        self._numbers[trial.train_id] = number
        patiently(self._set_attrs, number, {"train_id": trial.train_id, "trial": trial.number})

    def reject(self, number: int, outcome: Outcome | None, reason: str) -> None:
        """A proposal that trains nothing new: told what is known of it, else as pruned: a sampler then keeps away."""
        patiently(self._set_attrs, number, {"reason": reason})
        self._finish(number, outcome or Outcome(state="pruned", reason=reason))

    def begin(self, trial: Trial) -> None:
        """A trial that the study did not propose starts."""
        if trial.train_id not in self._numbers:
            self._add(trial, None)

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """A trial has ended. Telling twice is telling once."""
        number = self._numbers.pop(trial.train_id, None)
        if number is not None:
            self._finish(number, outcome)

    def should_prune(self, trial: Trial, seen: Sequence[Screened]) -> bool:
        """What Optuna's own pruner says of a running trial."""
        number = self._numbers.get(trial.train_id)
        if number is None or len(self.objectives) > 1:
            return False
        asked = self._optuna.Trial(self.study, self._trial_id(number))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for one in seen:
                if one.usefulness is not None:
                    patiently(asked.report, one.usefulness, one.step)
            return bool(patiently(asked.should_prune))

    def enqueue(self, points: Sequence[Mapping[str, Any]]) -> None:
        """Points of the space to try first; what they leave open is drawn."""
        for point in points:
            params = {key: as_param(value) for key, value in point.items()}
            patiently(self.study.enqueue_trial, params, skip_if_exists=True)

    def learn(self, settings: Mapping[str, Any], outcome: Outcome, sweep: str, train_id: str) -> bool:
        """Take in a trial of an earlier sweep, once; False if the space does not hold it. For a sampler of LEARNERS."""
        params, distributions = self.space.params(settings)
        if set(params) != {axis.key for axis in self.space.axes if axis.key in settings} or not params:
            return False
        if any(one.user_attrs.get("of") == train_id for one in self._trials()):
            return True
        values = self._values(outcome)
        if outcome.state != "complete" or values is None:
            return False
        self._finish(self._create(params, distributions, {"sweep": sweep, "of": train_id}), outcome)
        return True

    @property
    def is_new(self) -> bool:
        return not self._trials()

    @property
    def _name(self) -> str:
        return self._dir.name

    def _open(self) -> optuna.Study:
        path = self._dir / "study.log"
        try:
            storage = open_storage(self._dir, self._url, self._say)
            return patiently(self._study, storage)
        except (ValueError, KeyError, TypeError, AssertionError) as error:  # a journal that can't be read
            if self._url is not None:
                raise
            self.lost = f"study.log can't be read ({type(error).__name__})"
            path.replace(path.with_name("study.damaged.log"))
            storage = open_storage(self._dir, None, self._say)
            return self._study(storage)

    def _study(self, storage: Any) -> optuna.Study:
        directions: list[Any] = ["minimize" if name == "memorisation" else "maximize" for name in self.objectives]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            study = self._optuna.create_study(study_name=self._name, storage=storage, directions=directions,
                                              load_if_exists=True)
            if self._url is not None:
                claim(study, self._dir)
            if [d.name.lower() for d in study.directions] != directions:
                raise ConfigError(f"search.objectives={list(self.objectives)}: this sweep was begun with others. "
                                  "Choose another sweep.name for them; what is trained is found there too.")
            if study.metric_names != list(self.objectives):  # what dashboards and plots call the values
                study.set_metric_names(list(self.objectives))
            study.sampler = self._sampler(len(study.get_trials(deepcopy=False)))
            study.pruner = self._pruner()
        return study

    def _sampler(self, num_trials: int) -> Any:
        """Seeded anew at every start, or the same first draws would come again."""
        samplers, config = self._optuna.samplers, self._config
        if not isinstance(config, Sampled):
            return samplers.RandomSampler(0)
        seed, startup = config.seed + num_trials, config.num_startup_trials
        makers = {
            "tpe": lambda: samplers.TPESampler(seed=seed, n_startup_trials=startup, multivariate=True, group=True,
                                               constant_liar=True, warn_independent_sampling=False),
            "random": lambda: samplers.RandomSampler(seed),
            "qmc": lambda: samplers.QMCSampler(scramble=True, seed=config.seed, warn_asynchronous_seeding=False,
                                               warn_independent_sampling=False),
            "gp": lambda: samplers.GPSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False),
            "cmaes": lambda: samplers.CmaEsSampler(seed=seed, n_startup_trials=startup,
                                                   warn_independent_sampling=False),
            "nsga2": lambda: samplers.NSGAIISampler(seed=seed, population_size=config.population_size),
        }
        if config.name == "cmaes" and len(self.objectives) > 1:
            raise ConfigError("search=cmaes maximises one objective. Choose nsga2, tpe, gp or random for several, or "
                              "search.objectives=[usefulness].")
        return makers[config.name]()

    def _pruner(self) -> Any:
        rule, pruners = self._config.pruning, self._optuna.pruners
        makers = {
            "median": lambda: pruners.MedianPruner(n_startup_trials=5, n_min_trials=2),
            "halving": lambda: pruners.SuccessiveHalvingPruner(),
            "hyperband": lambda: pruners.HyperbandPruner(),
        }
        return makers.get(rule.rule, pruners.NopPruner)()

    def _what_differs(self, asked: Set[str], outcomes: Mapping[str, Outcome]) -> str:
        """Why the study can't be gone on with; empty if it can."""
        if self._is_of_another_space():
            return "its choices are others now"
        for one in self._trials():
            train_id = one.user_attrs.get("train_id", "")
            if one.state == self._optuna.trial.TrialState.COMPLETE and train_id in asked and (
                    train_id not in outcomes or one.values != self._values(outcomes[train_id])):
                return "its trials are scored otherwise now"
        return ""

    def _is_of_another_space(self) -> bool:
        """Optuna refuses a category that a study did not begin with."""
        from optuna.distributions import CategoricalDistribution

        now = {axis.key: self._distribution(axis) for axis in self._axes}
        for one in self._trials():
            for key, before in one.distributions.items():
                if key in now and (isinstance(before, CategoricalDistribution) or
                                   isinstance(now[key], CategoricalDistribution)) and before != now[key]:
                    return True
        return False

    def _distribution(self, axis: Axis) -> Any:
        return grid_distribution(axis) if isinstance(self._config, Grid) else distribution(axis)

    def _params(self, settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        if not isinstance(self._config, Grid):
            return self.space.params(settings)
        known = {axis.key: self._distribution(axis) for axis in self._axes if axis.key in settings}
        params = {key: as_param(settings[key]) for key in known if _holds(known[key], as_param(settings[key]))}
        return params, {key: known[key] for key in params}

    def _add(self, trial: Trial, outcome: Outcome | None) -> None:
        """A trial that the study has not proposed itself, or has lost."""
        params, distributions = self._params(trial.settings)
        attrs = {"train_id": trial.train_id, "trial": trial.number}
        self._numbers[trial.train_id] = self._create(params, distributions, attrs)
        if outcome is not None:
            self.tell(trial, outcome)

    def _create(self, params: dict[str, Any], distributions: dict[str, Any], attrs: dict[str, Any]) -> int:
        """Optuna's number of a running trial that its sampler has not proposed."""
        frozen = self._optuna.trial.create_trial(state=self._optuna.trial.TrialState.RUNNING, params=params,
                                                 distributions=distributions, user_attrs=attrs)
        storage = self.study._storage  # add_trial does not say which number it gave, and counting takes ever longer
        trial_id = patiently(storage.create_new_trial, self.study._study_id, template_trial=frozen)
        sampler = self.study.sampler
        if isinstance(sampler, self._optuna.samplers.BaseGASampler):  # it breeds from trials of a generation alone
            patiently(sampler.get_trial_generation, self.study, storage.get_trial(trial_id))
        return int(patiently(storage.get_trial_number_from_id, trial_id))

    def _finish(self, number: int, outcome: Outcome) -> None:
        State = self._optuna.trial.TrialState
        values = self._values(outcome)
        many = len(self.objectives) > 1
        if outcome.state == "complete" and values is not None:
            for key, value in self._constraints(outcome).items():
                patiently(self._asked(number).set_constraint, key, value)
            patiently(self.study.tell, number, values, skip_if_finished=True)
            return
        if outcome.state == "pruned" and not many:
            known = {one.step: one.usefulness for one in outcome.screened if one.usefulness is not None}
            for step, value in known.items():
                patiently(self._asked(number).report, value, step)
            patiently(self.study.tell, number, state=State.PRUNED, skip_if_finished=True)
            return
        patiently(self.study.tell, number, state=State.FAIL, skip_if_finished=True)

    def _values(self, outcome: Outcome) -> list[float] | None:
        values = [outcome.axes.get(name) for name in self.objectives]
        known = [float(value) for value in values if value is not None]
        return known if len(known) == len(values) else None

    def _constraints(self, outcome: Outcome) -> dict[str, float]:
        """At most 0 where a trial is feasible."""
        return excess(self._config.limits, outcome.axes) if isinstance(self._config, Sampled) else {}

    def _asked(self, number: int) -> optuna.Trial:
        return self._optuna.Trial(self.study, self._trial_id(number))

    def _trial_id(self, number: int) -> int:
        return int(self.study._storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number))

    def _set_attrs(self, number: int, attrs: Mapping[str, Any]) -> None:
        for key, value in attrs.items():
            self.study._storage.set_trial_user_attr(self._trial_id(number), key, value)

    def _trials(self) -> list[FrozenTrial]:
        return patiently(self.study.get_trials, deepcopy=False)


def _holds(among: Any, value: Any) -> bool:
    """Whether a distribution has the value; an earlier command may have named others. Optuna raises for a category that
    it does not know."""
    try:
        return bool(among._contains(among.to_internal_repr(value)))
    except ValueError:
        return False
