"""What a family of optimizers has in common: the groups of tensors that they step, and what their settings offer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sweep.network.targets import Part
    from sweep.train_config import TrainConfig


@dataclass(frozen=True, slots=True)
class Group:
    """Tensors of one rate: that of their part, times lr_factor (LoRA+)."""

    part: Part
    lr_factor: float
    tensors: tuple[Tensor, ...]

    def as_dict(self) -> dict[str, Any]:
        """A parameter group as torch wants it; it remembers whose rate it takes."""
        return {"params": list(self.tensors), "part": self.part, "lr_factor": self.lr_factor}


class OptimizerSettings:
    """What every optimizer's settings offer."""

    __slots__ = ()

    is_elementwise: ClassVar[bool] = True
    """Whether the rule does not care where one tensor ends and the next begins. It then gets long runs of the adapter's
    row, else a tensor per matrix."""

    def build(self, groups: Sequence[Group]) -> list[torch.optim.Optimizer]:
        """New instances, mostly one, over all groups; rates are set before each step."""
        raise NotImplementedError

    def set_rates(self, optimizer: torch.optim.Optimizer, rates: Mapping[Part, float]) -> None:
        """Hand over the scheduled rate of each trained part."""
        for group in optimizer.param_groups:
            group["lr"] = rates[group["part"]] * group["lr_factor"]

    def used_rate(self, optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> float:
        """The rate that a group's next step really takes; called before the step."""
        return float(group["lr"])

    def refusal(self, trial: TrainConfig) -> str:
        """Why this optimizer can't work with the trial's other settings, and what to do; empty if it can."""
        return ""

    def ignored(self, trial: TrainConfig) -> str:
        """Which of the trial's settings have no effect under this optimizer, in words; empty if all have."""
        return ""


def schedule_free_refusal(trial: TrainConfig, optimizer: str) -> str:
    """Why an optimizer whose file holds an average of the weights can't work with the trial's other settings."""
    if trial.scale_weight_norms is not None:
        return (f"scale_weight_norms={trial.scale_weight_norms:g} with {optimizer}: it would scale the point where "
                "gradients are taken, not the average that is saved. Set scale_weight_norms=null.")
    if trial.ema_decay is not None:
        return (f"ema_decay={trial.ema_decay:g} with {optimizer}: its file holds an average of the weights already. "
                "Set ema_decay=null.")
    return ""
