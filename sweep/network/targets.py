"""Which layers of a base get an adapter, and what each is called in a kohya LoRA file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import nn

    from sweep.model.base import Base

Part = Literal["unet", "text_encoder"]
PARTS: tuple[Part, ...] = ("unet", "text_encoder")

# sd-scripts names the parts of SD 1.x and 2.x so; SDXL's two text encoders are lora_te1 and lora_te2.
PREFIX: dict[Part, str] = {"unet": "lora_unet", "text_encoder": "lora_te"}


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """One frozen layer that adapters are laid over."""

    key: str  # "lora_unet_down_blocks_0_attentions_0_proj_in"
    part: Part
    module: nn.Module
    in_features: int
    out_features: int
    is_conv: bool  # a 1x1 convolution: weights are saved 4-D, [r,in,1,1]


def find_targets(base: Base) -> list[Target]:
    """UNet: every Linear and 1x1 convolution inside the transformer blocks' containers. Text encoder: attention and
    MLP Linears. SD 1.5: 192 + 72 (kohya's sets `Transformer2DModel` and `CLIPAttention`, `CLIPMLP`)."""
    return [*_unet_targets(base.unet), *_text_encoder_targets(base.text_encoder)]


def _unet_targets(unet: nn.Module) -> Iterator[Target]:
    from torch import nn

    for container_name, container in unet.named_modules():
        if type(container).__name__ != "Transformer2DModel":
            continue
        for name, module in container.named_modules():
            path = f"{container_name}.{name}"
            if isinstance(module, nn.Linear):
                yield Target(_key("unet", path), "unet", module, module.in_features, module.out_features, False)
            elif isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1):
                yield Target(_key("unet", path), "unet", module, module.in_channels, module.out_channels, True)


def _text_encoder_targets(text_encoder: nn.Module) -> Iterator[Target]:
    from torch import nn

    for container_name, container in text_encoder.named_modules():
        if type(container).__name__ not in ("CLIPAttention", "CLIPSdpaAttention", "CLIPMLP"):
            continue
        for name, module in container.named_modules():
            if isinstance(module, nn.Linear):
                # transformers 5 dropped the level "text_model" that every LoRA file in the world names
                path = f"{container_name}.{name}".removeprefix("text_model.")
                yield Target(_key("text_encoder", f"text_model.{path}"), "text_encoder", module,
                             module.in_features, module.out_features, False)


def _key(part: Part, path: str) -> str:
    return f"{PREFIX[part]}_{path.replace('.', '_')}"
