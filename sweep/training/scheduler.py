"""Learning-rate schedules as functions of the step, with sd-scripts' meaning. No state, so nothing to resume."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from sweep.schema import bounds


class Scheduler(Protocol):
    """A schedule after the warm-up. progress runs from 0 at its first step to 1 at its end."""

    name: str

    def rate(self, base_lr: float, progress: float) -> float: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """The base rate throughout."""

    name: str

    def rate(self, base_lr: float, progress: float) -> float:
        return base_lr


@dataclass(frozen=True, slots=True, kw_only=True)
class CosineWithRestarts:
    """Half a cosine from the base rate to 0, num_cycles times over (Loshchilov and Hutter 2017, eq. 5)."""

    name: str
    num_cycles: int = bounds(1, 100)
    # how many times the rate falls from its peak to 0

    def rate(self, base_lr: float, progress: float) -> float:
        if progress >= 1:
            return 0.0
        return base_lr * 0.5 * (1 + math.cos(math.pi * (self.num_cycles * progress % 1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Polynomial:
    """lr_end + (base - lr_end) (1 - progress)^power."""

    name: str
    power: float = bounds(above=0)
    # 1 = a straight line
    lr_end: float = bounds(0)
    # the rate that the last step approaches

    def rate(self, base_lr: float, progress: float) -> float:
        return self.lr_end + (base_lr - self.lr_end) * (1 - min(progress, 1)) ** self.power


SCHEDULERS: dict[str, type] = {"constant": Constant, "cosine_with_restarts": CosineWithRestarts,
                               "polynomial": Polynomial}


def learning_rate(scheduler: Scheduler, base_lr: float, step: int, num_steps: int, num_warmup_steps: int) -> float:
    """The rate used by the update from `step` to `step + 1` (step counts from 0): a linear warm-up from 0, then the
    schedule over the steps that remain."""
    if base_lr == 0:
        return 0.0
    if step < num_warmup_steps:
        return base_lr * step / num_warmup_steps
    return scheduler.rate(base_lr, (step - num_warmup_steps) / max(1, num_steps - num_warmup_steps))
