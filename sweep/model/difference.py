"""A low-rank difference between two bases: a LoRA of the UNet in kohya's form that is merged into its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

_PREFIX = "lora_unet_"


def merge_difference(unet: nn.Module, path: Path) -> None:
    """Add each layer's difference to its weight, in fp32.

    Raises ModelError if the file can't be read, or is not one of this UNet's own.
    """
    import torch

    add_difference({name: module.weight.data for name, module in unet.named_modules()
                    if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)}, path)


def add_difference(weights: Mapping[str, Tensor], path: Path) -> None:
    """The same for a UNet's weights [O,I] or [O,I,kh,kw] by their layers' names, in place."""
    import safetensors
    from safetensors.torch import load_file

    try:
        tensors = {key: tensor.float() for key, tensor in load_file(path).items()}
    except (safetensors.SafetensorError, OSError) as error:
        raise ModelError(f"{path} can't be read as safetensors: {error}") from error
    layers = {_PREFIX + name.replace(".", "_"): weight for name, weight in weights.items()}
    keys = sorted({key.partition(".")[0] for key in tensors})
    strange = [key for key in keys if key not in layers]
    if strange or not keys:
        raise ModelError(f"{path} is no difference of this UNet: it has {', '.join(strange[:3]) or 'no layer'} "
                         f"({len(strange)} of {len(keys)} layers are unknown).")
    for key in keys:
        weight = layers[key]
        difference = _difference(path, key, tensors)
        if difference.shape != weight.shape:
            raise ModelError(f"{path}: {key} has the shape {tuple(difference.shape)}, the UNet's layer "
                             f"{tuple(weight.shape)}. Was it made for another weight set?")
        weight += difference


def _difference(path: Path, key: str, tensors: dict[str, Tensor]) -> Tensor:
    """[O,I] or [O,I,kh,kw]: eq. 3 of Hu et al. 2021, alpha / r * B A; of a convolution A keeps the kernel."""
    try:
        down, up, alpha = (tensors[f"{key}.{name}"] for name in ("lora_down.weight", "lora_up.weight", "alpha"))
    except KeyError as error:
        raise ModelError(f"{path} lacks {error.args[0]}.") from error
    product = up.flatten(1) @ down.flatten(1)
    return (alpha / down.shape[0] * product).reshape(up.shape[0], *down.shape[1:])
