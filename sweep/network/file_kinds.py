"""What a safetensors file of weights is, by its tensors' names and shapes alone. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from sweep.errors import AdapterFileError, ModelError
from sweep.methods import DREAMBOOTH, LORA, TEXTUAL_INVERSION
from sweep.model.families import UNET
from sweep.model.header import read_header
from sweep.network.layer_names import is_adapter

Kind = Literal["lora", "checkpoint", "embedding"]
KIND_OF_METHOD: Mapping[str, Kind] = {LORA: "lora", DREAMBOOTH: "checkpoint", TEXTUAL_INVERSION: "embedding"}

EMBEDDING_KEYS = ("clip_l", "clip_g")
"""Of SDXL's embeddings, one for each text encoder; of other families' the vectors are the file's only tensor."""


def kind_of(shapes: Mapping[str, Sequence[int]]) -> Kind | None:
    """A LoRA of any form, a whole checkpoint in LDM's layout, or an embedding; None for anything else.

    shapes: of the file's tensors by name.
    """
    if is_adapter(shapes):
        return "lora"
    if f"{UNET}input_blocks.0.0.weight" in shapes:
        return "checkpoint"
    is_small = all(1 <= len(shape) <= 2 for shape in shapes.values())
    if is_small and (len(shapes) == 1 or set(shapes) == set(EMBEDDING_KEYS)):
        return "embedding"
    return None


def kind_of_file(path: Path) -> Kind | None:
    """Raises AdapterFileError for what is no safetensors file."""
    try:
        return kind_of(read_header(path).shapes)
    except ModelError as error:
        raise AdapterFileError(str(error)) from error
