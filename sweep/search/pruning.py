"""When a running trial is given up. Pure functions of screened checkpoints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from sweep.comparison import Interval, cautious_value, jackknife_interval, stretched, t_quantile
from sweep.search.outcome import Screened
from sweep.search.settings import Pruning


def behind(rule: Pruning, own: Sequence[Screened], others: Mapping[int, Sequence[Screened]]) -> str:
    """Why a trial is given up by the paired rule; empty if it goes on.

    At each of its last `patience` checkpoints, some other trial's best file up to the same step must be better on the
    same prompts: by an interval (at `confidence`) that lies wholly above `margin`. own, others (by trial number):
    oldest first. A trial whose files can't be scored is not judged.
    """
    if len(own) < max(rule.min_checkpoints, rule.patience):
        return ""
    lost_to = []
    for last in range(len(own) - rule.patience + 1, len(own) + 1):
        mine = best_of(own[:last])
        rivals = {number: best_of([s for s in seen if s.step <= own[last - 1].step]) for number, seen in others.items()}
        known = {number: rival for number, rival in rivals.items() if rival is not None}
        if mine is None or not known:
            return ""
        number, rival = max(known.items(), key=lambda item: _cautious(item[1]))
        gap = difference(mine, rival, rule.confidence)
        if gap.high is None or gap.high >= -rule.margin:
            return ""
        lost_to.append((number, rival, gap))
    number, rival, gap = lost_to[-1]
    return (f"behind trial {number} at {len(lost_to)} checkpoints in a row: at step {own[-1].step} its usefulness is "
            f"lower by {-(gap.high or 0):.2f} to {-(gap.low or 0):.2f} ({rule.confidence:.0%} interval over {gap.n} "
            "prompts)")


def fallen(own: Sequence[Screened], num_checkpoints: int) -> str:
    """Why a trial is stopped by `early_stop`: its usefulness has fallen at so many checkpoints in a row."""
    values = [one.usefulness for one in own]
    last = [value for value in values[-num_checkpoints - 1:] if value is not None]
    if len(last) <= num_checkpoints or any(b >= a for a, b in pairwise(last)):
        return ""
    return (f"early_stop={num_checkpoints}: usefulness has fallen from {last[0]:.2f} to {last[-1]:.2f} over the last "
            f"{num_checkpoints} checkpoints")


def best_of(seen: Sequence[Screened]) -> Screened | None:
    """The checkpoint with the greatest usefulness less one standard error."""
    valid = [one for one in seen if one.usefulness is not None]
    return max(valid, key=_cautious, default=None)


def difference(one: Screened, other: Screened, confidence: float) -> Interval:
    """Of their usefulness, paired by prompt."""
    assert one.usefulness is not None and other.usefulness is not None
    shared = sorted(set(one.replicates) & set(other.replicates))
    over_prompts = jackknife_interval(one.usefulness - other.usefulness,
                                      [one.replicates[p] - other.replicates[p] for p in shared], confidence)
    wider = t_quantile(max(over_prompts.n - 1, 1), confidence) / t_quantile(max(over_prompts.n - 1, 1))  # than at 90 %
    return stretched(over_prompts, wider * math.hypot(one.margins[0], other.margins[1]),
                     wider * math.hypot(one.margins[1], other.margins[0]))


def _cautious(one: Screened) -> float:
    return cautious_value(one.usefulness, one.replicates, one.margins)
