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
    """The base rate throughout; takes no warm-up (`constant_with_warmup` does)."""

    name: str

    def rate(self, base_lr: float, progress: float) -> float:
        return base_lr


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstantWithWarmup:
    """The base rate, after lr_warmup_steps."""

    name: str

    def rate(self, base_lr: float, progress: float) -> float:
        return base_lr


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """A straight line from the base rate to 0."""

    name: str

    def rate(self, base_lr: float, progress: float) -> float:
        return base_lr * max(0.0, 1 - progress)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosine:
    """Half a cosine from the base rate to min_lr_ratio of it (Loshchilov and Hutter 2017, eq. 5, without restarts)."""

    name: str
    min_lr_ratio: float = bounds(0, 1)
    # share of the base rate that is left at the end

    def rate(self, base_lr: float, progress: float) -> float:
        return base_lr * (self.min_lr_ratio + (1 - self.min_lr_ratio) * _half_cosine(min(progress, 1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class CosineWithRestarts:
    """Half a cosine from the base rate to 0, num_cycles times over (Loshchilov and Hutter 2017, eq. 5)."""

    name: str
    num_cycles: int = bounds(1, 100)
    # how many times the rate falls from its peak to 0

    def rate(self, base_lr: float, progress: float) -> float:
        if progress >= 1:
            return 0.0
        return base_lr * _half_cosine(self.num_cycles * progress % 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class CosineAnnealingWarmRestarts:
    """num_cycles equal cycles: a straight rise from the lowest rate to the peak, then half a cosine back; each peak is
    gamma times the one before (Loshchilov and Hutter 2017, section 3, with a warm-up in every cycle)."""

    name: str
    num_cycles: int = bounds(1, 100)
    warmup_frac: float = bounds(0, 0.99)
    # share of each cycle over which the rate rises
    gamma: float = bounds(0, 1)
    # each peak in terms of the one before
    min_lr_ratio: float = bounds(0, 1)
    # lowest rate in terms of the base rate

    def rate(self, base_lr: float, progress: float) -> float:
        low = self.min_lr_ratio * base_lr
        if progress >= 1:
            return low
        cycle, within = divmod(self.num_cycles * progress, 1)
        peak = max(base_lr * self.gamma ** cycle, low)
        if within < self.warmup_frac:
            return low + (peak - low) * within / self.warmup_frac
        return low + (peak - low) * _half_cosine((within - self.warmup_frac) / (1 - self.warmup_frac))


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


@dataclass(frozen=True, slots=True, kw_only=True)
class AdafactorsOwn:
    """What tutorials call `lr_scheduler=adafactor`: the optimizer takes its steps from the step count itself."""

    name: str

    def rate(self, base_lr: float, progress: float) -> float:
        return base_lr


SCHEDULERS: dict[str, type] = {
    "constant": Constant, "constant_with_warmup": ConstantWithWarmup, "linear": Linear, "cosine": Cosine,
    "cosine_with_restarts": CosineWithRestarts, "cosine_annealing_warm_restarts": CosineAnnealingWarmRestarts,
    "polynomial": Polynomial, "adafactor": AdafactorsOwn,
}


def learning_rate(scheduler: Scheduler, base_lr: float, step: int, num_steps: int, warmup: float) -> float:
    """The rate used by the update from `step` to `step + 1` (step counts from 0): a linear warm-up from 0, then the
    schedule over the steps that remain. warmup: steps, or below 1 a share of num_steps."""
    if base_lr == 0:
        return 0.0
    warmup_steps = num_warmup_steps(warmup, num_steps)
    if step < warmup_steps:
        return base_lr * step / warmup_steps
    return scheduler.rate(base_lr, (step - warmup_steps) / max(1, num_steps - warmup_steps))


def num_warmup_steps(warmup: float, num_steps: int) -> int:
    return int(warmup * num_steps) if warmup < 1 else int(warmup)


def _half_cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))
