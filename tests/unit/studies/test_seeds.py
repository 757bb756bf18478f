"""Groups of seeds and their shares, on scores whose answer is known."""

from __future__ import annotations

import random

import pytest

from studies import seeds
from tests.unit.test_claims import score, trained


def test_groups_share_no_training_and_each_two_come_once() -> None:
    scores = [score(i / 10) for i in range(6)]
    pairs = [frozenset((frozenset(map(id, one)), frozenset(map(id, other))))
             for one, other in seeds.disjoint(scores, 2)]
    assert len(pairs) == len(set(pairs)) == 45  # 6! / (2! 2! 2!) / 2
    assert all(not one & other for one, other in pairs)


@pytest.mark.parametrize(("means", "is_told_apart"), [((0.5, 0.5), False), ((0.2, 0.8), True)])
def test_shares_of_ties(means: tuple[float, float], is_told_apart: bool) -> None:
    rng = random.Random(1)
    found = seeds.shares({name: trained(rng, mean, 10) for name, mean in zip(("dim 4", "dim 32"), means, strict=True)})
    of = {(share.what, share.num_seeds): share for share in found}
    assert of["dim 4 against itself", 2].num == 630 and of["dim 4 against itself", 5].num == 126
    assert of["dim 4 against itself", 3].ties >= 0.85
    assert of["dim 32, two files, the seed not counted in", 1].ties < of["dim 32 against itself", 3].ties
    assert (of["dim 4 against dim 32", 5].ties < 0.1) == is_told_apart


def test_a_pair_that_says_nothing_is_no_tie(tmp_path) -> None:
    unknown = [score(0.5, prompts={"0": 0.5}) for _ in range(4)]
    assert seeds._share("x", 2, seeds.disjoint(unknown, 2)) == seeds.Share("x", 2, 0.0, 0)
    seeds.write_report([seeds.Share("dim 4 against itself", 3, 0.5, 10)], {"dim 4": [score(0.5)]}, tmp_path,
                       {"hardware": "here", "date": "d", "commit": "c", "command": "x"})
    assert "50.0% | 10 | **no**" in (tmp_path / "README.md").read_text()
