"""The paired rule, at its edges."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sweep.config import compose
from sweep.search.outcome import Screened
from sweep.search.pruning import behind

RULE = replace(compose(["search=tpe"]).search.pruning, margin=0.02, patience=2, min_checkpoints=2)


def seen(*values: float | None, spread: float = 0.002) -> list[Screened]:
    """Checkpoints of a trial every 100 steps. spread: how far its 8 prompts lie from their mean, to and fro; half the
    width of a 90 % interval is .63 of it."""
    return [Screened(step=100 * (i + 1), usefulness=value, replicates={} if value is None else {
        f"p{p}": value + spread * (-1) ** p / 8 for p in range(8)}) for i, value in enumerate(values)]


BEST = {1: seen(0.5, 0.6, 0.7, 0.8, spread=-0.002)}  # other prompts suit it than suit the others


def test_a_trial_that_lies_far_behind_is_given_up_with_the_figures() -> None:
    words = behind(RULE, seen(0.3, 0.4), BEST)
    assert words.startswith("behind trial 1 at 2 checkpoints in a row: at step 200 its usefulness is lower by 0.20 to")


@pytest.mark.parametrize(("own", "why"), [
    (seen(0.3), "one checkpoint is not two"),
    (seen(0.5, 0.4), "at its first checkpoint it was as good"),
    (seen(0.49, 0.59), "nearer than the margin"),
    (seen(0.3, 0.55, spread=0.5), "its prompts differ too much to be sure"),
    (seen(None, None), "nothing of it can be scored"),
])
def test_who_goes_on(own: list[Screened], why: str) -> None:
    assert behind(RULE, own, BEST) == "", why


def test_a_checkpoint_that_cannot_be_scored_leaves_the_best_before_it() -> None:
    assert behind(RULE, seen(0.3, None), BEST)


def test_only_what_a_rival_had_reached_by_the_same_step_counts() -> None:
    late = {1: seen(0.1, 0.1, 0.9)}
    assert behind(RULE, seen(0.3, 0.3), late) == ""
    assert behind(RULE, seen(0.3, 0.3, 0.3, 0.3), late)


def test_the_whole_interval_must_lie_beyond_the_margin() -> None:
    own = seen(0.47, 0.57, spread=0.03)  # behind by .03, which may be .01 or .05
    assert behind(replace(RULE, margin=0.0), own, BEST) and behind(RULE, own, BEST) == ""
    sure = seen(0.47, 0.57)
    assert behind(RULE, sure, BEST) and behind(replace(RULE, margin=0.05), sure, BEST) == ""
