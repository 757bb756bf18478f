"""Which photos at which step: a function of (seed, step), the same on any number of cores and after any resume."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from sweep.randomness import generator


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """An epoch shows each photo `repeats` times in an order of its own; its last batch may be partial."""

    repeats: tuple[int, ...]  # of each photo
    batch_size: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(self.repeats, self.batch_size)

    def photos_at(self, step: int) -> list[int]:
        """Indices of the photos in the batch of `step` (from 0)."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        order = _epoch_order(self.repeats, self.seed, epoch)
        return list(order[batch * self.batch_size:(batch + 1) * self.batch_size])


def steps_per_epoch(repeats: Sequence[int], batch_size: int) -> int:
    return math.ceil(sum(repeats) / batch_size)


def num_steps(repeats: Sequence[int], batch_size: int, max_epochs: int, max_steps: int | None) -> int:
    """Steps of a whole training; max_steps overrides the epochs, as in sd-scripts."""
    return max_steps if max_steps is not None else max_epochs * steps_per_epoch(repeats, batch_size)


@lru_cache(maxsize=64)
def _epoch_order(repeats: tuple[int, ...], seed: int, epoch: int) -> tuple[int, ...]:
    import torch

    shown = [photo for photo, count in enumerate(repeats) for _ in range(count)]
    permutation = torch.randperm(len(shown), generator=generator(seed, epoch, "epoch order"))
    return tuple(shown[i] for i in permutation.tolist())
