"""Which trial to name, decided in one place for the diary, the terminal and the table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from sweep.comparison import ahead, are_tied, cautious
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


def apart(results: Sequence[TrialResult]) -> list[list[TrialResult]]:
    """The other trials with a valid usefulness, by what they were scored against: another base has other anchors."""
    groups: dict[str, list[TrialResult]] = {}
    alike = {id(result) for result in compared(results)}
    for result in results:
        if usefulness(result) is not None and id(result) not in alike:
            groups.setdefault(_score(result).scoring_id, []).append(result)
    return list(groups.values())


def eligible(results: Sequence[TrialResult]) -> list[TrialResult]:
    """The compared trials that keep to the sweep's limits on memorisation and diversity; all where none does."""
    candidates = compared(results)
    return [result for result in candidates if not result.breach] or candidates


def limits_words(results: Sequence[TrialResult]) -> str:
    """Which trials a limit keeps from being named, as a sentence; empty if there are none."""
    candidates = compared(results)
    beyond = [result for result in candidates if result.breach]
    shown = "; ".join(f"trial {result.trial.number}, {result.breach}" for result in beyond[:3])
    more = f"; and {len(beyond) - 3} more" if len(beyond) > 3 else ""
    if len(beyond) == len(candidates):
        return f"Every trial breaks a limit: {shown}{more}." if beyond else ""
    return f"Left out, as it breaks a limit: {shown}{more}." if beyond else ""


def best_results(results: Sequence[TrialResult]) -> tuple[TrialResult | None, list[TrialResult]]:
    """The eligible trial with the greatest usefulness less one standard error, and the trials that tie with it.

    The best one is not among the ties, which come in the order in which to try them. With ties there is no winner to
    name.
    """
    candidates = eligible(results)
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


def lead(one: TrialResult, other: TrialResult) -> str:
    """How far a file's usefulness is ahead of another's: "+0.08 (-0.00 to +0.16)", paired by prompt."""
    first, second = usefulness(one), usefulness(other)
    assert first is not None and second is not None and first.value is not None and second.value is not None
    interval = ahead([(_score(one), _score(other))])
    return signed(first.value - second.value, interval.low, interval.high)


def signed(difference: float, low: float | None, high: float | None) -> str:
    """A difference with its interval, if that is known."""
    return f"{difference:+.2f}" + ("" if low is None or high is None else f" ({low:+.2f} to {high:+.2f})")


def outdone(tied: Sequence[TrialResult], results: Sequence[TrialResult]) -> list[TrialResult]:
    """Those outside a tie whose usefulness is no less than that of one inside: on the same prompts they are behind the
    first by more than chance, which their figures alone don't show."""
    least = min((_value(result) for result in tied), default=math.inf)
    inside = {id(result) for result in tied}
    return [result for result in eligible(results) if id(result) not in inside and _value(result) >= least]


def _value(result: TrialResult) -> float:
    estimate = usefulness(result)
    return -math.inf if estimate is None or estimate.value is None else estimate.value


def _score(result: TrialResult) -> Score:
    assert result.answer is not None
    return result.answer.score
