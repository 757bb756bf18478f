"""The precision that a pack's passes run in. Weights, gradients and optimizer states of adapters are always fp32.

accelerate says what a device can do; its `Accelerator` is left out on purpose: it is one per process with one precision
and one gradient scaler, while a worker runs packs of any precision one after the other, and each trial scales its own
loss.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.errors import ConfigError

if TYPE_CHECKING:
    import torch


def autocast(device: torch.device, mixed_precision: str) -> torch.autocast:
    """mixed_precision: "no" | "bf16" | "fp16"."""
    import torch

    dtype = torch.float16 if mixed_precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=mixed_precision != "no")


def dtype_named(precision: str) -> torch.dtype:
    """precision: "fp32" | "fp16" | "bf16"."""
    import torch

    return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]


def check_precision(device: torch.device, mixed_precision: str) -> None:
    """Try one product, forward and backward, in the precision asked for.

    Raises ConfigError if the device can't.
    """
    import torch
    from accelerate.utils import is_bf16_available

    problem = ""
    if mixed_precision == "bf16" and device.type == "cuda" and not is_bf16_available(ignore_tpu=True):
        problem = "it has no such numbers"
    elif mixed_precision != "no":
        try:
            layer = torch.nn.Conv2d(8, 8, 1, device=device)
            with autocast(device, mixed_precision):
                answer = layer(torch.ones(1, 8, 2, 2, device=device))
            answer.float().sum().backward()
        except torch.OutOfMemoryError:
            raise  # a RuntimeError too, of a device that is full and may well know the precision
        except (RuntimeError, NotImplementedError) as error:
            problem = str(error).splitlines()[0]
    if problem:
        raise ConfigError(f"mixed_precision={mixed_precision} does not work on {device} ({problem}). Set "
                          "mixed_precision=no, or choose another device with launcher.device.")
