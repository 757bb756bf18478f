"""Figures and their intervals, on data whose answer is known."""

from __future__ import annotations

import pytest
import torch

from studies.estimates import Verification, accuracy, mean, share, spread


def test_share_has_wilsons_interval() -> None:
    # Wilson 1927 at z = 1.6449: 8 of 10.
    assert share(torch.tensor([True] * 8 + [False] * 2)) == {"value": 0.8, "low": 0.5408, "high": 0.9314, "n": 10}
    assert share(torch.ones(10, dtype=torch.bool))["low"] == pytest.approx(0.787, abs=1e-3)


def test_always_answering_the_commonest_is_seen_through() -> None:
    shown = torch.tensor([0] * 6 + [1] * 3 + [2])
    figure = accuracy(torch.zeros(10, dtype=torch.long), shown)
    assert figure["value"] == figure["majority"] == 0.6
    assert figure["balanced"] == pytest.approx(1 / 3, abs=1e-4)
    assert accuracy(shown, shown)["balanced"] == 1


def test_the_mean_of_several_pictures_of_a_person_is_no_surer_than_of_one() -> None:
    one_each = torch.randn(40, generator=torch.Generator().manual_seed(0))
    person = torch.arange(40).repeat_interleave(9)
    alone, repeated = mean(one_each), mean(one_each[person], person)
    assert (alone["low"], alone["high"]) == (repeated["low"], repeated["high"])
    assert alone["low"] < float(one_each.mean()) < alone["high"]
    believed = mean(one_each[person])
    assert believed["high"] - believed["low"] < (alone["high"] - alone["low"]) / 2


def test_spread_is_median_and_quartiles() -> None:
    assert spread(torch.arange(5.0)) == {"value": 2.0, "q25": 1.0, "q75": 3.0, "n": 5}


def _pairs(same: list[float], other: float, photos: int = 2) -> Verification:
    """People with `photos` each; `same` is how similar each one's are to each other, `other` all other pairs."""
    person = torch.arange(len(same)).repeat_interleave(photos)
    is_same = person[:, None] == person[None]
    return Verification(torch.where(is_same, torch.tensor(same)[person][:, None], torch.tensor(other)), person)


def test_area_under_curve_counts_ties_half() -> None:
    assert _pairs([0.9, 0.9, 0.9], 0.1).area_under_curve()["value"] == 1
    assert _pairs([0.5, 0.5, 0.5], 0.5).area_under_curve()["value"] == 0.5
    assert _pairs([0.9, 0.5, 0.1], 0.5).area_under_curve() | {"low": 0, "high": 0} == {
        "value": 0.5, "low": 0, "high": 0, "n": 3}  # fmt: skip


def test_pairs_are_resampled_by_person() -> None:
    figure = _pairs([0.9] * 20 + [0.1] * 10, 0.5, photos=4).area_under_curve()
    assert figure["value"] == pytest.approx(2 / 3, abs=1e-4) and figure["n"] == 180
    # 30 independent people, not 180 pairs: 1.64 * sqrt(2/9 / 30) = .14 to each side.
    assert figure["high"] - figure["low"] == pytest.approx(0.28, abs=0.04)


def test_accuracy_takes_the_threshold_it_is_given() -> None:
    pairs = _pairs([0.9, 0.9, 0.3], 0.1)
    assert 0.1 <= pairs.best_threshold() < 0.3
    assert pairs.accuracy_at(pairs.best_threshold())["value"] == 1
    assert pairs.accuracy_at(0.5)["value"] == pytest.approx((2 / 3 + 1) / 2, abs=1e-4)
