"""Intervals cover what they say, and say so where they can't."""

import math

import numpy as np
import pytest
from scipy import stats

from sweep.comparison import jackknife_interval
from sweep.evaluation.intervals import rate_interval, standard_error, widened


def mean_interval(x):
    return jackknife_interval(np.mean(x), [np.delete(x, i).mean() for i in range(len(x))])


def test_of_a_mean_it_is_students_t():
    x = np.random.default_rng(0).normal(3, 2, 12)
    low, high = stats.t.interval(0.9, 11, loc=x.mean(), scale=stats.sem(x))
    interval = mean_interval(x)
    assert (interval.low, interval.high) == pytest.approx((low, high))


@pytest.mark.parametrize("n", [8, 16])
def test_covers_the_truth_nine_times_in_ten(n):
    """A ratio of means over prompts, which is what the axes are."""
    rng, hits, num = np.random.default_rng(1), 0, 1000
    for _ in range(num):
        base = rng.uniform(0.4, 1.0, n)
        gen = 0.7 * base + rng.normal(0, 0.15, n)
        total = gen.mean() / base.mean()
        left_out = [np.delete(gen, i).mean() / np.delete(base, i).mean() for i in range(n)]
        interval = jackknife_interval(total, left_out)
        hits += interval.low <= 0.7 <= interval.high
    assert 0.87 <= hits / num <= 0.93


def test_too_few_prompts_have_no_interval_and_a_reason():
    interval = mean_interval([0.2, 0.4])
    assert interval.low is None and interval.high is None
    assert "at least 3" in interval.reason


def test_never_nan():
    interval = jackknife_interval(0.5, [0.5, math.nan, 0.5, 0.4])
    assert interval.low is None and "can't be computed" in interval.reason


@pytest.mark.parametrize(("count", "n", "truth"), [(0, 8, 0.2), (0, 32, 0.05), (8, 8, 0.85)])
def test_a_share_of_none_or_all_is_not_certain(count, n, truth):
    interval = rate_interval(count, n)
    assert interval.low <= truth <= interval.high
    assert interval.low <= count / n <= interval.high


def test_a_second_uncertain_side_widens_the_interval():
    rng, hits, num = np.random.default_rng(2), 0, 1000
    for _ in range(num):
        gen, unseen = rng.normal(1.0, 0.3, 16), rng.normal(1.2, 0.3, 16)
        gap = unseen.mean() - gen.mean()
        left_out = [unseen.mean() - np.delete(gen, i).mean() for i in range(16)]
        interval = widened(jackknife_interval(gap, left_out), standard_error(unseen))
        hits += interval.low <= 0.2 <= interval.high
    assert 0.87 <= hits / num <= 0.94
