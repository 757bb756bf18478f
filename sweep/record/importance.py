"""Which swept setting mattered: the share of the spread of usefulness that goes with each, by functional ANOVA.

Hutter et al. (2014), "An Efficient Approach for Assessing Hyperparameter Importance", as Optuna has it; where
scikit-learn is not installed PED-ANOVA (Watanabe et al., 2023), which needs nothing more. The shares come with an
interval from drawing the trials again with replacement: with few trials it is wide, and that is the point of it.
"""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweep.claims import EXPLORATORY
from sweep.record.best import compared, usefulness
from sweep.trial import TrialResult

if TYPE_CHECKING:
    from optuna.study import Study

MIN_TRIALS = 8  # below, shares say nothing
_RESAMPLES = 24
_TREES = 12  # of each forest; the draws are a third of what a sweep of 300 trials costs its conductor


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """share: of the spread of usefulness, 0 to 1; low, high: 90 % interval."""

    key: str
    share: float
    low: float
    high: float


def importances(swept_keys: Sequence[str], results: Sequence[TrialResult]) -> list[Importance]:
    """Of each swept key that took several values, greatest first; empty below MIN_TRIALS or without any spread."""
    scored = compared(results)
    keys = [key for key in swept_keys if len({repr(r.trial.settings.get(key)) for r in scored}) > 1]
    if len(scored) < MIN_TRIALS or len(keys) < 2:
        return []
    whole = _shares(keys, scored, scored)
    if whole is None:
        return []
    chance = random.Random(0)
    drawn = [shares for _ in range(_RESAMPLES)
             if (shares := _shares(keys, scored, chance.choices(scored, k=len(scored)))) is not None]
    found = []
    for key in keys:
        spread = sorted(shares[key] for shares in drawn) or [whole[key]]
        low, high = (spread[round(q * (len(spread) - 1))] for q in (0.05, 0.95))
        found.append(Importance(key=key, share=whole[key], low=min(low, whole[key]), high=max(high, whole[key])))
    return sorted(found, key=lambda importance: -importance.share)


def importance_lines(swept_keys: Sequence[str], results: Sequence[TrialResult]) -> list[str]:
    """In words, for diary and report."""
    found = importances(swept_keys, results)
    if not found:
        num = len(compared(results))
        return [f"How much each setting matters is not said of {num} scored trials: it takes {MIN_TRIALS} that differ, "
                "over two settings or more."] if len(swept_keys) > 1 and num else []
    listed = "; ".join(f"{i.key} {i.share:.0%} ({i.low:.0%} to {i.high:.0%})" for i in found)
    scored = compared(results)
    num = len(scored)
    is_one_seed = len({repr(result.trial.settings.get("seed", result.trial.config.get("seed")))
                       for result in scored}) == 1
    return [f"{EXPLORATORY if is_one_seed else ''}How much of the spread of usefulness goes with each setting "
            f"({method()} over {num} trials, 90 % intervals by drawing the trials again): {listed}. "
            "What a seed has is chance; a setting whose interval reaches down to that has not been shown to matter."
            + (" All were trained with one seed, so what it does is not known." if is_one_seed else "")]


def method() -> str:
    """"fANOVA" or "PED-ANOVA"."""
    return "fANOVA" if importlib.util.find_spec("sklearn") is not None else "PED-ANOVA"


def _shares(keys: Sequence[str], scored: Sequence[TrialResult],
            drawn: Sequence[TrialResult]) -> dict[str, float] | None:
    """None where the drawn trials don't differ."""
    from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances

    if len({_value(result) for result in drawn}) < 2:
        return None
    evaluator = (FanovaImportanceEvaluator(n_trees=_TREES, seed=0) if method() == "fANOVA"
                 else PedAnovaImportanceEvaluator(target_quantile=0.25))
    shares = get_param_importances(_study(keys, scored, drawn), evaluator=evaluator)
    return {key: float(shares.get(key, 0.0)) for key in keys}


def _study(keys: Sequence[str], scored: Sequence[TrialResult], drawn: Sequence[TrialResult]) -> Study:
    """The trials as Optuna's, each setting a place in the order of its values: so log and linear need no telling."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would announce each of these studies
    places = {key: _places([result.trial.settings.get(key) for result in scored]) for key in keys}
    study = optuna.create_study(direction="maximize", storage=None)
    for result in drawn:
        study.add_trial(optuna.create_trial(
            params={key: places[key][repr(result.trial.settings.get(key))] for key in keys},
            distributions={key: optuna.distributions.IntDistribution(0, max(1, len(places[key]) - 1)) for key in keys},
            value=_value(result)))
    return study


def _places(values: Sequence[Any]) -> dict[str, int]:
    known = {repr(value): value for value in values}
    is_ordered = all(isinstance(value, (int, float)) for value in known.values())
    order = sorted(known, key=lambda text: known[text]) if is_ordered else list(known)
    return {text: place for place, text in enumerate(order)}


def _value(result: TrialResult) -> float:
    estimate = usefulness(result)
    assert estimate is not None and estimate.value is not None
    return estimate.value
