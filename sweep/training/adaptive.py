"""Optimizers that find their rate themselves: Prodigy, D-Adaptation, Adafactor."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sweep.schema import bounds
from sweep.training.optimizer_settings import Group, OptimizerSettings

if TYPE_CHECKING:
    import torch

    from sweep.network.targets import Part
    from sweep.train_config import TrainConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Prodigy(OptimizerSettings):
    """AdamW times a rate d that grows to fit the distance travelled (Mishchenko and Defazio 2023, Algorithm 4).

    d comes from sums over all tensors of an instance, so how they are cut does not matter.
    """

    name: str
    betas: tuple[float, float] = bounds(0, 0.99999)
    beta3: float | None = bounds(0, 0.99999)
    # decay of the sums that d is estimated from; null = the root of the second beta
    eps: float = bounds(above=0)
    weight_decay: float = bounds(0)
    decouple: bool
    # weight decay as in AdamW
    use_bias_correction: bool
    # as in Adam
    safeguard_warmup: bool
    # keeps a warm-up's small rates out of the estimate
    d0: float = bounds(above=0)
    # first d
    d_coef: float = bounds(above=0)
    # d is multiplied by this
    growth_rate: float | None = bounds(1)
    # most that d grows by in a step; null = unbounded
    per_part: bool
    # an instance for each of UNet and text encoder, with a d of its own, instead of one for both

    def build(self, groups: Sequence[Group]) -> list[torch.optim.Optimizer]:
        import prodigyopt

        parts = dict.fromkeys(group.part for group in groups)
        shares = [[g for g in groups if g.part == part] for part in parts] if self.per_part else [list(groups)]
        with redirect_stdout(io.StringIO()):  # it announces itself
            return [prodigyopt.Prodigy(
                [group.as_dict() for group in share], lr=1.0, betas=self.betas, beta3=self.beta3, eps=self.eps,
                weight_decay=self.weight_decay, decouple=self.decouple, use_bias_correction=self.use_bias_correction,
                safeguard_warmup=self.safeguard_warmup, d0=self.d0, d_coef=self.d_coef,
                growth_rate=math.inf if self.growth_rate is None else self.growth_rate) for share in shares]

    def used_rate(self, optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> float:
        return float(group["d"] * group["lr"])

    def refusal(self, trial: TrainConfig) -> str:
        unet_lr, text_lr = trial.unet_lr, trial.text_encoder_lr
        if not self.per_part and 0 not in (unet_lr, text_lr) and unet_lr != text_lr:
            return (f"unet_lr={unet_lr:g} and text_encoder_lr={text_lr:g} with optimizer=prodigy: one instance takes "
                    "one rate. Set both alike (1 and 1 is usual), or one of them to 0, or optimizer.per_part=true.")
        if trial.loraplus_lr_ratio not in (None, 1):
            return (f"loraplus_lr_ratio={trial.loraplus_lr_ratio:g} with optimizer=prodigy: one instance takes one "
                    "rate. Set loraplus_lr_ratio=null, or take an optimizer whose rates are given.")
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DAdaptAdam(OptimizerSettings):
    """Adam times a rate d that is found on the way (Defazio and Mishchenko 2023, Algorithm 5).

    Its groups take one rate only; a part whose rate is half the other's (the tutorial's 1 and 0.5) is stepped by
    `layer_scale` = 0.5.
    """

    name: str
    betas: tuple[float, float] = bounds(0, 0.99999)
    eps: float = bounds(above=0)
    weight_decay: float = bounds(0)
    decouple: bool
    use_bias_correction: bool
    d0: float = bounds(above=0)
    growth_rate: float | None = bounds(1)

    def build(self, groups: Sequence[Group]) -> list[torch.optim.Optimizer]:
        import dadaptation

        with redirect_stdout(io.StringIO()):
            return [dadaptation.DAdaptAdam(
                [group.as_dict() for group in groups], lr=1.0, betas=self.betas, eps=self.eps,
                weight_decay=self.weight_decay, decouple=self.decouple, use_bias_correction=self.use_bias_correction,
                d0=self.d0, growth_rate=math.inf if self.growth_rate is None else self.growth_rate)]

    def set_rates(self, optimizer: torch.optim.Optimizer, rates: Mapping[Part, float]) -> None:
        wanted = [rates[group["part"]] * group["lr_factor"] for group in optimizer.param_groups]
        highest = max(wanted)
        for group, rate in zip(optimizer.param_groups, wanted, strict=True):
            group["lr"] = highest
            group["layer_scale"] = rate / highest if highest > 0 else 1.0

    def used_rate(self, optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> float:
        return float(group["d"] * group["lr"] * group["layer_scale"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Adafactor(OptimizerSettings):
    """Steps by factored second moments, clipped and scaled by each tensor's size (Shazeer and Stern 2018).

    relative_step: its own rate, min(.01, 1 / sqrt(step)) (section 8); else the given one.
    """

    is_elementwise: ClassVar[bool] = False

    name: str
    relative_step: bool
    scale_parameter: bool
    # steps are relative to the size of the weights
    warmup_init: bool
    # relative_step rises from 1e-6 per step instead of beginning at .01
    clip_threshold: float = bounds(above=0)
    # root mean square of an update above which it is scaled down
    decay_rate: float = bounds(-1, 0)
    # the second moment's decay at step t is 1 - t^decay_rate
    beta1: float | None = bounds(0, 0.99999)
    # decay of a running mean of the updates; null = none
    weight_decay: float = bounds(0)

    def build(self, groups: Sequence[Group]) -> list[torch.optim.Optimizer]:
        from sweep.model.torchvision_ops import declare_missing_operators

        declare_missing_operators()
        from transformers.optimization import Adafactor as Rule

        return [Rule([group.as_dict() for group in groups], lr=None if self.relative_step else 0.0,
                     relative_step=self.relative_step, scale_parameter=self.scale_parameter,
                     warmup_init=self.warmup_init, clip_threshold=self.clip_threshold, decay_rate=self.decay_rate,
                     beta1=self.beta1, weight_decay=self.weight_decay)]

    def set_rates(self, optimizer: torch.optim.Optimizer, rates: Mapping[Part, float]) -> None:
        if not self.relative_step:
            OptimizerSettings.set_rates(self, optimizer, rates)

    def used_rate(self, optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> float:
        if not self.relative_step:
            return float(group["lr"])
        step = optimizer.state[group["params"][0]].get("step", 0) + 1
        return min(1e-6 * step if self.warmup_init else 1e-2, 1 / math.sqrt(step))

    def refusal(self, trial: TrainConfig) -> str:
        if self.warmup_init and not self.relative_step:
            return ("optimizer.warmup_init=true is the warm-up of relative_step, which is off. Set "
                    "optimizer.relative_step=true, or warm up with scheduler=constant_with_warmup.")
        if self.relative_step and trial.loraplus_lr_ratio not in (None, 1):
            return (f"loraplus_lr_ratio={trial.loraplus_lr_ratio:g} with optimizer.relative_step=true: Adafactor then "
                    "takes no rates. Set loraplus_lr_ratio=null or optimizer.relative_step=false.")
        return ""

    def ignored(self, trial: TrainConfig) -> str:
        if not self.relative_step:
            return ""
        return (f"Adafactor with relative_step takes its own steps: unet_lr={trial.unet_lr:g}, "
                f"text_encoder_lr={trial.text_encoder_lr:g} (but for 0 = not trained), "
                f"scheduler={trial.scheduler.name} and lr_warmup_steps={trial.lr_warmup_steps:g} have no effect")
