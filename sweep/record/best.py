"""Which trial to name, decided in one place for the diary, the terminal and the table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sweep.comparison import are_tied, cautious
from sweep.pareto import pareto_front
from sweep.trial import Estimate, Score, TrialResult


def usefulness(result: TrialResult) -> Estimate | None:
    """The usefulness of a trial's answer, or None if it has none that is valid."""
    if result.answer is None:
        return None
    estimate = result.answer.score.axes.get("usefulness")
    return estimate if estimate is not None and estimate.is_valid else None


def compared(results: Sequence[TrialResult]) -> list[TrialResult]:
    """The trials whose usefulness may be compared: those of the commonest scoring_id, as scores of different
    anchors, prompts or formulas never are. Of equally common ones the first met counts."""
    valid = [result for result in results if usefulness(result) is not None]
    if not valid:
        return []
    counts = Counter(_score(result).scoring_id for result in valid)
    scoring_id = counts.most_common(1)[0][0]
    return [result for result in valid if _score(result).scoring_id == scoring_id]


def best_results(results: Sequence[TrialResult]) -> tuple[TrialResult | None, list[TrialResult]]:
    """The trial with the greatest usefulness less one standard error, and the trials that tie with it.

    The best one is not among the ties, which come in the order in which to try them. With ties there is no winner to
    name.
    """
    candidates = compared(results)
    if not candidates:
        return None, []
    best, *others = sorted(candidates, key=lambda result: -cautious(_score(result)))
    return best, [other for other in others if tie(best, other)]


def on_front(results: Sequence[TrialResult]) -> list[TrialResult]:
    """The compared trials that no other beats in every way: likeness, adherence, diversity and few copies."""
    candidates = compared(results)
    return [candidates[i] for i in pareto_front([_score(result) for result in candidates])]


def choices_of(results: Sequence[TrialResult]) -> list[str]:
    """"best", "tie" or "" for each trial."""
    best, ties = best_results(results)
    tied = {id(one) for one in ties}
    return ["tie" if id(one) in tied else "" if one is not best else "tie" if ties else "best" for one in results]


def tie(one: TrialResult, other: TrialResult) -> bool:
    """Whether the files of two compared trials can't be told apart; see `are_tied`."""
    return are_tied(_score(one), _score(other))


def _score(result: TrialResult) -> Score:
    assert result.answer is not None
    return result.answer.score
