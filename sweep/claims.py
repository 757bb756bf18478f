"""Claims about a setting ("dim 32 is better than 8"), where the training seed is random too.

A claim about one file pairs cells and asks no more (`sweep.comparison.are_tied`). A setting is more than the file that
one seed made of it: its trainings are a sample, and so are the prompts.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from sweep.comparison import CONFIDENCE, MIN_UNITS, jackknife_error, t_quantile
from sweep.errors import ScoringError
from sweep.trial import Score

TIE, BETTER, WORSE, UNKNOWN = "tie", "better", "worse", "unknown"
MIN_SEEDS = 2
EXPLORATORY = "exploratory: "  # begins the words of a claim that can't be made


@dataclass(frozen=True, slots=True)
class Claim:
    """What may be said of one setting against another. low, high: the interval of the difference in usefulness.

    outcome: of the first against the second; "unknown" where a setting was trained with one seed, or where what the
        prompts do can't be known.
    """

    outcome: str
    difference: float | None
    low: float | None
    high: float | None
    num_seeds: tuple[int, int]
    words: str


def compare_settings(one: Sequence[Score], other: Sequence[Score], *, names: tuple[str, str],
                     confidence: float = CONFIDENCE) -> Claim:
    """Each setting's final scores, one for each training seed, all on the same cells.

    The variance of the difference is that of either mean over its seeds (Welch 1947, with his degrees of freedom), and
    that of the prompts, paired, by the jackknife. Raises ScoringError for scores that may not be compared.
    """
    if len({(score.scoring_id, score.stage) for score in (*one, *other)}) > 1:
        raise ScoringError(f"{names[0]} and {names[1]} were not scored on the same cells under the same scoring; such "
                           "scores are never compared. Score them again under one scoring.")
    one, other = ([score for score in scores if score.axes["usefulness"].value is not None] for scores in (one, other))
    values = [[value for score in scores if (value := score.axes["usefulness"].value) is not None]
              for scores in (one, other)]
    num_seeds = (len(values[0]), len(values[1]))
    if min(num_seeds) < MIN_SEEDS:
        lacking = [name for name, n in zip(names, num_seeds, strict=True) if n < MIN_SEEDS]
        difference = statistics.fmean(values[0]) - statistics.fmean(values[1]) if min(num_seeds) else None
        return Claim(UNKNOWN, difference, None, None, num_seeds,
                     f"{EXPLORATORY}{' and '.join(lacking)} {'was' if len(lacking) == 1 else 'were'} trained with "
                     f"fewer than {MIN_SEEDS} seeds, so what the seed does is not known")
    difference = statistics.fmean(values[0]) - statistics.fmean(values[1])
    prompt_error = _prompt_error(one, other)
    if prompt_error is None:
        return Claim(UNKNOWN, difference, None, None, num_seeds,
                     f"{EXPLORATORY}fewer than {MIN_UNITS} prompts have a figure under every seed of {names[0]} and "
                     f"{names[1]}, so what the prompts do is not known")
    variances = [statistics.variance(seeds) / len(seeds) for seeds in values]
    degrees = _welch_degrees(variances, num_seeds)
    margin = t_quantile(degrees, confidence) * math.hypot(math.sqrt(sum(variances)), prompt_error)
    low, high = difference - margin, difference + margin
    outcome = TIE if low <= 0 <= high else (BETTER if difference > 0 else WORSE)
    seeds = f"{num_seeds[0]} and {num_seeds[1]} training seeds"
    words = {TIE: f"{names[0]} and {names[1]} cannot be told apart over {seeds}",
             BETTER: f"{names[0]} is better than {names[1]} over {seeds}",
             WORSE: f"{names[0]} is worse than {names[1]} over {seeds}"}[outcome]
    return Claim(outcome, difference, low, high, num_seeds,
                 f"{words} (difference in usefulness {difference:+.2f}, {low:+.2f} to {high:+.2f})")


def _welch_degrees(variances: Sequence[float], num_seeds: Sequence[int]) -> int:
    """Welch 1947's degrees of freedom, rounded down; the smaller sample's where nothing varies."""
    total = sum(variances)
    if total == 0:
        return min(num_seeds) - 1
    return max(1, int(total**2 / sum(v**2 / (n - 1) for v, n in zip(variances, num_seeds, strict=True))))


def _prompt_error(one: Sequence[Score], other: Sequence[Score]) -> float | None:
    """Standard error, over prompts, of the difference of the two means over seeds; None where too few are shared, as
    `are_tied` has it: what is not known makes nothing surer."""
    shared = set.intersection(*(set(score.replicates) for score in (*one, *other)))
    if len(shared) < MIN_UNITS:
        return None
    return jackknife_error([statistics.fmean(s.replicates[p] for s in one) - statistics.fmean(
        s.replicates[p] for s in other) for p in sorted(shared)])
