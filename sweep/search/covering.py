"""An order of a grid's cells in which early ones already lie all over it, so that a sweep that is stopped, or pruned,
has seen every value and not one corner."""

from __future__ import annotations

import math
from collections.abc import Sequence

_NUM_GENERATORS = 64  # how many steps through the grid are tried
_GOLDEN = (math.sqrt(5) - 1) / 2


def covering_order(sizes: Sequence[int]) -> list[int]:
    """A permutation of range(prod(sizes)), the cells of a grid in row-major order.

    A rank-1 lattice (Korobov 1959): cell j * g modulo their number, g prime to it. Of the g nearest the golden section,
    the one is taken under which the first cells show the most values of each axis and the most pairs of values.
    """
    num_cells = math.prod(sizes)
    if num_cells <= 2:
        return list(range(num_cells))
    around = sorted(range(1, num_cells), key=lambda g: abs(g - num_cells * _GOLDEN))
    prime_to = [g for g in around[:8 * _NUM_GENERATORS] if math.gcd(g, num_cells) == 1][:_NUM_GENERATORS] or [1]
    most = max(sizes)

    def merit(g: int) -> tuple[tuple[int, int], ...]:
        cells = [j * g % num_cells for j in range(min(num_cells, 2 * most))]
        return _num_seen(sizes, cells[:most]), _num_seen(sizes, cells)

    best = max(prime_to, key=merit)
    return [j * best % num_cells for j in range(num_cells)]


def _num_seen(sizes: Sequence[int], cells: Sequence[int]) -> tuple[int, int]:
    """How many values of the axes, and how many pairs of values of two axes, some cells show."""
    points = [_coordinates(cell, sizes) for cell in cells]
    axes = range(len(sizes))
    values = {(a, point[a]) for point in points for a in axes}
    pairs = {(a, b, point[a], point[b]) for point in points for a in axes for b in axes if a < b}
    return len(values), len(pairs)


def _coordinates(cell: int, sizes: Sequence[int]) -> list[int]:
    coordinates = []
    for size in reversed(sizes):
        cell, coordinate = divmod(cell, size)
        coordinates.append(coordinate)
    return coordinates[::-1]
