"""The optimizers a trial may use. Each owns its settings; every trial has an instance of its own.

torch and bitsandbytes are imported where an optimizer is built, so that a config is checked without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sweep.schema import bounds

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, Algorithm 2)."""

    is_elementwise: ClassVar[bool] = True  # one flat tensor per part gives what a tensor per layer gives

    name: str
    betas: tuple[float, float] = bounds(0, 0.99999)
    # decay of the running means of the gradient and of its square
    eps: float = bounds(above=0)
    weight_decay: float = bounds(0)
    # per step, times the learning rate

    def build(self, parts: Sequence[Sequence[Tensor]]) -> torch.optim.Optimizer:
        """An optimizer with one parameter group per part; rates are set before each step."""
        import torch

        return torch.optim.AdamW([{"params": list(part)} for part in parts], lr=0.0, betas=self.betas, eps=self.eps,
                                 weight_decay=self.weight_decay, fused=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamW8bit:
    """AdamW with its state in 8 bits (Dettmers et al. 2022, block-wise quantisation; bitsandbytes).

    bitsandbytes quantises tensor by tensor in blocks of 256, and keeps tensors under 4,096 elements in 32 bits, so each
    layer's tensors are handed over one by one.
    """

    is_elementwise: ClassVar[bool] = False

    name: str
    betas: tuple[float, float] = bounds(0, 0.99999)
    eps: float = bounds(above=0)
    weight_decay: float = bounds(0)

    def build(self, parts: Sequence[Sequence[Tensor]]) -> torch.optim.Optimizer:
        import bitsandbytes

        return bitsandbytes.optim.AdamW8bit(  # type: ignore[no-any-return]
            [{"params": list(part)} for part in parts], lr=0.0, betas=self.betas, eps=self.eps,
            weight_decay=self.weight_decay)


OPTIMIZERS: dict[str, type] = {"adamw": AdamW, "adamw8bit": AdamW8bit}
