"""The optimizers a trial may use. Each owns its settings; every trial has instances of its own.

torch and the libraries are imported where an optimizer is built, so that a config is checked without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sweep.schema import bounds
from sweep.training.adaptive import Adafactor, DAdaptAdam, Prodigy
from sweep.training.custom import Custom
from sweep.training.optimizer_settings import Group, OptimizerSettings, schedule_free_refusal

if TYPE_CHECKING:
    import torch

    from sweep.train_config import TrainConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamW(OptimizerSettings):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, Algorithm 2)."""

    name: str
    betas: tuple[float, float] = bounds(0, 0.99999)
    # decay of the running means of the gradient and of its square
    eps: float = bounds(above=0)
    weight_decay: float = bounds(0)
    # per step, times the learning rate

    def build(self, groups: Sequence[Group]) -> list[torch.optim.Optimizer]:
        import torch

        return [torch.optim.AdamW([group.as_dict() for group in groups], lr=0.0, betas=self.betas, eps=self.eps,
                                  weight_decay=self.weight_decay, fused=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamW8bit(OptimizerSettings):
    """AdamW with its state in 8 bits (Dettmers et al. 2022, block-wise quantisation; bitsandbytes).

    bitsandbytes quantises tensor by tensor in blocks of 256, and keeps tensors under 4,096 elements in 32 bits, so each
    layer's tensors are handed over one by one.
    """

    is_elementwise: ClassVar[bool] = False

    name: str
    betas: tuple[float, float] = bounds(0, 0.99999)
    eps: float = bounds(above=0)
    weight_decay: float = bounds(0)

    def build(self, groups: Sequence[Group]) -> list[torch.optim.Optimizer]:
        import bitsandbytes

        return [bitsandbytes.optim.AdamW8bit([group.as_dict() for group in groups], lr=0.0, betas=self.betas,
                                             eps=self.eps, weight_decay=self.weight_decay)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lion(OptimizerSettings):
    """The sign of an interpolated momentum (Chen et al. 2023, Algorithm 2; bitsandbytes)."""

    name: str
    betas: tuple[float, float] = bounds(0, 0.99999)
    # weight of the momentum in the step, and its decay
    weight_decay: float = bounds(0)

    def build(self, groups: Sequence[Group]) -> list[torch.optim.Optimizer]:
        import bitsandbytes

        return [bitsandbytes.optim.Lion([group.as_dict() for group in groups], lr=0.0, betas=self.betas,
                                        weight_decay=self.weight_decay)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lion8bit(OptimizerSettings):
    """Lion with its momentum in 8 bits, tensor by tensor like AdamW8bit."""

    is_elementwise: ClassVar[bool] = False

    name: str
    betas: tuple[float, float] = bounds(0, 0.99999)
    weight_decay: float = bounds(0)

    def build(self, groups: Sequence[Group]) -> list[torch.optim.Optimizer]:
        import bitsandbytes

        return [bitsandbytes.optim.Lion8bit([group.as_dict() for group in groups], lr=0.0, betas=self.betas,
                                            weight_decay=self.weight_decay)]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamWScheduleFree(OptimizerSettings):
    """AdamW whose weights are averaged instead of its rate being lowered (Defazio et al. 2024, Algorithm 1).

    The gradient is taken at one point, the file holds another, the average: see `TrialOptimizer.averaged`.
    """

    name: str
    betas: tuple[float, float] = bounds(high=0.99999, above=0)
    # share of the average in the point where the gradient is taken, and decay of the gradient's squares
    eps: float = bounds(above=0)
    weight_decay: float = bounds(0)
    r: float = bounds(0)
    # weight of step k in the average grows as k^r
    weight_lr_power: float = bounds(0)
    # and as the highest rate so far to this power

    def build(self, groups: Sequence[Group]) -> list[torch.optim.Optimizer]:
        import schedulefree

        return [schedulefree.AdamWScheduleFree(
            [group.as_dict() for group in groups], lr=0.0, betas=self.betas, eps=self.eps,
            weight_decay=self.weight_decay, r=self.r, weight_lr_power=self.weight_lr_power)]

    def refusal(self, trial: TrainConfig) -> str:
        return schedule_free_refusal(trial, f"optimizer={self.name}")


OPTIMIZERS: dict[str, type] = {
    "adamw": AdamW, "adamw8bit": AdamW8bit, "lion": Lion, "lion8bit": Lion8bit, "prodigy": Prodigy,
    "dadapt_adam": DAdaptAdam, "adafactor": Adafactor, "adamw_schedulefree": AdamWScheduleFree, "custom": Custom,
}
