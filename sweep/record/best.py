"""Which trial to name, decided in one place for the diary, the terminal and the table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sweep.trial import Estimate, TrialResult

_Z_90 = 1.645  # half the width of a 90 % interval in standard errors


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
    counts = Counter(result.answer.score.scoring_id for result in valid if result.answer is not None)
    scoring_id = counts.most_common(1)[0][0]
    return [r for r in valid if r.answer is not None and r.answer.score.scoring_id == scoring_id]


def best_results(results: Sequence[TrialResult]) -> tuple[TrialResult | None, list[TrialResult]]:
    """The trial with the greatest usefulness less one standard error, and the trials that tie with it.

    A tie: the other's interval reaches the best one's, or one of the two has no interval, so that nothing is known of
    its noise. Ties come in the order of `results`, the best one not among them. With ties there is no winner to name.
    """
    candidates = compared(results)
    if not candidates:
        return None, []
    best = max(candidates, key=_cautious_value)
    ties = [other for other in candidates if other is not best and overlap(best, other)]
    return best, ties


def choice_of(result: TrialResult, results: Sequence[TrialResult]) -> str:
    """"best", "tie" or "" for one trial among all."""
    best, ties = best_results(results)
    if result is best:
        return "tie" if ties else "best"
    return "tie" if any(result is tie for tie in ties) else ""


def overlap(one: TrialResult, other: TrialResult) -> bool:
    """Whether the intervals of two trials' usefulness meet; True if one has no interval."""
    a, b = usefulness(one), usefulness(other)
    if a is None or b is None or None in (a.low, a.high, b.low, b.high):
        return True
    assert a.low is not None and a.high is not None and b.low is not None and b.high is not None
    return a.low <= b.high and b.low <= a.high


def _cautious_value(result: TrialResult) -> float:
    estimate = usefulness(result)
    assert estimate is not None and estimate.value is not None
    if estimate.low is None or estimate.high is None:
        return estimate.value
    return estimate.value - (estimate.high - estimate.low) / (2 * _Z_90)
