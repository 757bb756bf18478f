"""The order in which a grid is run."""

import math

import pytest

from sweep.search.covering import covering_order


@pytest.mark.parametrize("sizes", [[1], [2], [5], [2, 2, 2], [3, 4, 5], [1, 7], [10, 10, 10, 10]])
def test_every_cell_comes_once_and_early_ones_show_every_value(sizes: list[int]) -> None:
    order = covering_order(sizes)
    assert sorted(order) == list(range(math.prod(sizes)))
    early = order[:2 * max(sizes)]
    below = 1
    for size in reversed(sizes):
        assert {cell // below % size for cell in early} == set(range(size))
        below *= size


def test_halves_see_all_pairs() -> None:
    """Of a 6 x 6 grid the first half shows each value of one axis with three of the other or more."""
    pairs = {divmod(cell, 6) for cell in covering_order([6, 6])[:18]}
    assert all(sum(a == value for a, _ in pairs) >= 2 and sum(b == value for _, b in pairs) >= 2 for value in range(6))
    assert len(pairs) == 18
