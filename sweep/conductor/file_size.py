"""How large a LoRA file will be, counted from the shapes in the base's own headers: no weights are read, no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from sweep.methods import LORA
from sweep.model.base import BaseModelConfig
from sweep.model.header import read_header
from sweep.model.sources import find_base, weights_files
from sweep.train_config import TrainConfig

_PLAIN = ("lora", "locon")  # the other networks' files are not a sum over two matrices
_CONVOLUTIONAL = (".resnets.", ".downsamplers.", ".upsamplers.")
_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class _PerRank:
    """Weights of adapters for each unit of rank: [1, in, kh, kw] and [out, 1]. spatial: kernels larger than 1x1."""

    transformers: int
    convolutional: int
    spatial: int
    text: int


def counted_bytes(config: TrainConfig) -> int | None:
    """Of the weights in one file; None where headers alone don't tell: other networks, methods and presets, and bases
    that aren't folders in diffusers' layout."""
    if config.method.name != LORA or config.network.name not in _PLAIN or config.network.preset != "full":
        return None
    base = _per_rank(config.base_model)
    if base is None:
        return None
    dim, conv_dim = config.network_dim, config.conv_dim
    unet = dim * base.transformers + (dim * base.convolutional + conv_dim * base.spatial if conv_dim else 0)
    num = (unet if config.unet_lr > 0 else 0) + (dim * base.text if config.text_encoder_lr > 0 else 0)
    return num * _BYTES[config.save_precision]


@lru_cache(maxsize=8)
def _per_rank(base_model: BaseModelConfig) -> _PerRank | None:
    source = find_base(base_model)
    if source.is_file:
        return None
    unet = list(_matrices(source.path / "unet"))
    convolutional = [shape for name, shape in unet if any(part in name for part in _CONVOLUTIONAL)]
    return _PerRank(
        transformers=_num_weights(shape for name, shape in unet if ".attentions." in name),
        convolutional=_num_weights(shape for shape in convolutional if math.prod(shape[2:]) == 1),
        spatial=_num_weights(shape for shape in convolutional if math.prod(shape[2:]) > 1),
        text=_num_weights(shape for folder in source.path.glob("text_encoder*") for name, shape in _matrices(folder)
                          if ".self_attn." in name or ".mlp." in name))


def _num_weights(shapes: Iterable[tuple[int, ...]]) -> int:
    return sum(math.prod(shape[1:]) + shape[0] for shape in shapes)


def _matrices(folder: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Norms and biases have one dimension and no adapter."""
    return ((name, shape) for path in weights_files(folder) for name, shape in read_header(path).shapes.items()
            if len(shape) > 1)
