"""Textual inversion's files: a few word vectors, as A1111 and diffusers read them.

One tensor `emb_params` [N, D] (sd-scripts' and A1111's name; diffusers calls it by its token), or for SDXL's two text
encoders `clip_l` and `clip_g`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.errors import AdapterFileError
from sweep.network.file_kinds import EMBEDDING_KEYS
from sweep.network.forms import WORDS, Form, Layer
from sweep.network.lora_file import LoraFile, write_tensors
from sweep.network.targets import Target

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def write_embedding_file(path: Path, targets: Sequence[Target], weights: Mapping[str, Mapping[str, Tensor]], *,
                         dtype: torch.dtype, metadata: Mapping[str, str]) -> None:
    """Write a trial's vectors (`AdapterBank.weights`) atomically."""
    tables = [target for target in targets if target.kind == "tokens"]
    tensors = {name: weights[target.key][WORDS].to("cpu", dtype).contiguous()
               for name, target in zip(_names(tables), tables, strict=True)}
    write_tensors(path, tensors, metadata)


def read_embedding_file(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str],
                        targets: Sequence[Target]) -> LoraFile:
    """The vectors as new tokens of each text encoder.

    targets: all of the base's layers (`find_layers`).
    Raises AdapterFileError for vectors of another width, or for other text encoders.
    """
    tables = [target for target in targets if target.kind == "tokens"]
    names = list(tensors) if len(tensors) == 1 else list(EMBEDDING_KEYS)
    if len(names) != len(tables):
        raise AdapterFileError(f"{path} holds vectors for {len(names)} text encoder{'s'[:len(names) != 1]}, this base "
                               f"has {len(tables)}. Was it trained on another family of models?")
    layers, weights = {}, {}
    for name, table in zip(names, tables, strict=True):
        vectors_ND = tensors[name].float().reshape(-1, tensors[name].shape[-1])
        num, width = vectors_ND.shape
        if width != table.out_features:
            raise AdapterFileError(f"{path} holds vectors of width {width}, this base's text encoder has "
                                   f"{table.out_features}. Was it trained on another family of models?")
        layers[table.key], weights[table.key] = Layer(Form("words", num), float(num)), {WORDS: vectors_ND}
    counts = {len(own[WORDS]) for own in weights.values()}
    if len(counts) > 1:
        raise AdapterFileError(f"{path}: its text encoders have different numbers of vectors, {sorted(counts)}.")
    return LoraFile(layers, weights, dict(metadata), kind="embedding", num_vectors=counts.pop())


def _names(tables: Sequence[Target]) -> Sequence[str]:
    return (WORDS,) if len(tables) == 1 else EMBEDDING_KEYS
