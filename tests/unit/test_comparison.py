"""One rule says which of two scores is better: paired by prompt."""

import math
import random
from dataclasses import replace

import pytest

from sweep.comparison import are_tied, cautious, jackknife_error
from sweep.trial import Estimate, Score


def score(usefulness, replicates, **changes):
    estimate = Estimate(value=usefulness, low=None, high=None, raw=usefulness, n=len(replicates))
    values = {"score_id": "x", "scoring_id": "s", "file": "a.safetensors", "file_sha256": "0", "epoch": 1, "step": 10,
              "strength": 1.0, "stage": "screen", "num_images": 8, "axes": {"usefulness": estimate}, "details": {},
              "replicates": replicates, "verdict": "good", "notes": (), "elapsed_s": 0.0}
    return Score(**{**values, **changes})


def swinging(center, spread):
    return score(center, {str(p): center + spread * (-1) ** p for p in range(8)})


def of_prompts(values):
    """Usefulness as the mean over prompts."""
    n, total = len(values), sum(values)
    return score(total / n, {str(p): (total - value) / (n - 1) for p, value in enumerate(values)})


def test_paired_differences_tell_apart_what_intervals_do_not():
    """Both vary a lot over the prompts, but together."""
    assert not are_tied(swinging(0.60, 0.03), swinging(0.50, 0.03))
    assert are_tied(swinging(0.60, 0.03), swinging(0.50, -0.03))


def test_a_difference_too_small_to_see_is_a_tie_however_sure():
    """Two files that both don't look like the subject: 0.0999 and 0.1000 on every prompt."""
    assert are_tied(swinging(0.0999, 0.00001), swinging(0.1, 0.00001))
    assert not are_tied(swinging(0.09, 0.00001), swinging(0.1, 0.00001))


def test_for_means_it_is_the_paired_t_test():
    from scipy import stats

    rng = random.Random(0)
    found = set()
    for _ in range(200):
        a = [rng.gauss(0.6, 0.2) for _ in range(8)]
        b = [x - rng.gauss(0.05, 0.1) for x in a]
        expected = stats.ttest_rel(a, b).pvalue > 0.1
        assert are_tied(of_prompts(a), of_prompts(b)) == expected
        found.add(expected)
    assert found == {True, False}


def test_only_prompts_that_both_have_are_paired():
    one = swinging(0.60, 0.01)
    other = score(0.40, {p: r - 0.2 for p, r in one.replicates.items() if p != "3"})
    assert not are_tied(one, other)


def test_what_is_not_known_is_a_tie_and_what_is_invalid_is_none():
    sure = swinging(0.9, 0.001)
    assert are_tied(sure, score(0.1, {}))
    assert are_tied(sure, score(0.1, {"0": 0.1, "1": 0.1}))
    assert are_tied(score(0.0, {}), score(0.0, {}))
    assert not are_tied(sure, score(None, {}))


@pytest.mark.parametrize("change", [{"scoring_id": "other"}, {"stage": "confirm"}])
def test_scores_of_other_cells_or_anchors_are_never_compared(change):
    with pytest.raises(AssertionError, match="other cells or anchors"):
        are_tied(score(0.5, {}), score(0.5, {}, **change))


def test_cautious_takes_off_one_standard_error():
    from scipy import stats

    values = [0.2, 0.5, 0.9, 0.4, 0.7]
    assert cautious(of_prompts(values)) == pytest.approx(0.54 - stats.sem(values))
    assert cautious(score(None, {})) == -math.inf
    assert jackknife_error([0.3]) == 0.0


def test_what_leaving_prompts_out_does_not_show_widens_the_lead():
    one, other = swinging(0.60, 0.01), swinging(0.50, 0.01)
    assert not are_tied(one, other)
    unsure = replace(other, margins=(0.0, 0.2))
    assert are_tied(one, unsure) and are_tied(unsure, one)
    assert not are_tied(one, replace(other, margins=(0.2, 0.0))), "it may only be worse still"
    assert cautious(replace(one, margins=(0.1, 0.0))) < cautious(replace(one, margins=(0.0, 0.1))) == cautious(one)


def test_a_score_whose_error_is_not_known_comes_after_all_whose_is():
    assert cautious(score(0.9, {})) < cautious(swinging(0.2, 0.03))
    assert cautious(score(0.9, {})) > cautious(score(0.8, {}))
