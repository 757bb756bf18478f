"""The figures of a score that every view shows: its axes, and bleed, by which usefulness is lowered too."""

from __future__ import annotations

from sweep.trial import AXES, Estimate, Score

BLEED = "bleed"
BARE = "likeness_bare"  # likeness where the trigger alone is asked for
FIGURES = (*AXES[:-1], BLEED, AXES[-1])  # usefulness, which is made of the others, stands last


def figure_of(score: Score, name: str) -> Estimate | None:
    """None if the score's stage did not measure it: bleed needs class prompts, which a screen doesn't draw, and
    `likeness_bare` the bare trigger."""
    if name not in (BLEED, BARE):
        return score.axes.get(name)
    value, low, high = (score.details.get(key) for key in (name, f"{name}_low", f"{name}_high"))
    return None if value is None else Estimate(value=value, low=low, high=high, raw=None, n=0)


def values_of(score: Score | None) -> list[float | None]:
    """Of FIGURES; None where one isn't known."""
    found = [None if score is None else figure_of(score, name) for name in FIGURES]
    return [None if each is None else each.value for each in found]
