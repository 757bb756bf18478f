"""LoRA files: written as sd-scripts and LyCORIS write them (read by A1111, ComfyUI and diffusers), read in any form."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.errors import AdapterFileError
from sweep.files import write_bytes
from sweep.network.file_kinds import Kind
from sweep.network.file_layers import read_layer
from sweep.network.forms import Layer
from sweep.network.layer_names import LayerNames, split_key
from sweep.network.peft_config import peft_configs
from sweep.network.targets import Target

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class LoraFile:
    """An adapter as read, or what another method trained. layers and weights (by file name) by target key.

    kind: lora, checkpoint or embedding; the latter two have no strength. num_vectors: of an embedding.
    """

    layers: dict[str, Layer]
    weights: dict[str, dict[str, Tensor]]
    metadata: dict[str, str]
    unknown: tuple[str, ...] = ()  # keys of the file that mean nothing for this base
    kind: Kind = "lora"
    num_vectors: int = 0


@dataclass(frozen=True, slots=True)
class LoadedSpec:
    """A file at a strength, for the bank. lora: None = the base alone."""

    lora: LoraFile | None
    strength: float = 1.0
    network_dropout: float = 0.0
    rank_dropout: float = 0.0
    module_dropout: float = 0.0

    def layers(self, targets: Sequence[Target]) -> Mapping[str, Layer]:
        return {} if self.lora is None else self.lora.layers


def write_lora(path: Path, weights: Mapping[str, Mapping[str, Tensor]], *, dtype: torch.dtype,
               metadata: Mapping[str, str]) -> None:
    """Write an adapter's tensors (`AdapterBank.weights`: by target key and file name) atomically.

    metadata: `ss_*` and `modelspec.*`; the hashes `sshs_*` are added here. It must hold no time, host or path, so that
    the same training gives the same bytes.
    """
    tensors = {f"{key}.{name}": tensor.to("cpu", dtype if tensor.is_floating_point() else tensor.dtype).contiguous()
               for key, layer in weights.items() for name, tensor in layer.items()}
    write_tensors(path, tensors, metadata)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """A safetensors file with sd-scripts' hashes, whose bytes depend on its content alone."""
    import safetensors.torch

    bare = safetensors.torch.save(dict(tensors))
    # sd-scripts hashes the file as it would be with the training metadata alone, which users are not meant to edit
    trained = _with_metadata(bare, {key: value for key, value in metadata.items() if key.startswith("ss_")})
    hashes = {"sshs_model_hash": hashlib.sha256(_split(bare)[1]).hexdigest(), "sshs_legacy_hash": _legacy_hash(trained)}
    write_bytes(path, _with_metadata(bare, {**metadata, **hashes}))


def read_lora(path: Path, targets: Sequence[Target]) -> LoraFile:
    """Read an adapter of any form for a base's targets.

    Raises AdapterFileError if the file is no safetensors, holds no adapter, or one for other layers.
    """
    tensors, metadata = read_tensors(path)
    names = LayerNames(targets)
    grouped: dict[str, dict[str, Tensor]] = {}
    by_key: dict[str, Target] = {}
    unknown, strange = [], set()
    for key, tensor in tensors.items():
        found = split_key(key)
        target = names.find(found[0]) if found else None
        if found is None or target is None:
            unknown.append(key)
            strange.update([found[0]] if found else [])
            continue
        by_key[target.key] = target
        # PEFT's magnitudes are one per output: [O], of a convolution [1,O,1,1]
        tensor = tensor.flatten() if "lora_magnitude_vector" in key else tensor
        grouped.setdefault(target.key, {})[found[1]] = tensor.float()
    if len(strange) > len(grouped):
        raise AdapterFileError(f"{path} has {len(strange)} layers that this base lacks, e.g. "
                               f"{', '.join(sorted(strange)[:3])}. Was it trained on another family of models?")
    if not grouped:
        raise AdapterFileError(f"{path} holds no LoRA: no key is like *.lora_down.weight, *.lora_A.weight, *.hada_w1_a "
                               f"or *.lokr_w1; its first keys are: {', '.join(sorted(tensors)[:3])}.")
    configs = peft_configs(path, metadata, {by_key[key].component for key in grouped if "alpha" not in grouped[key]})
    layers: dict[str, Layer] = {}
    weights: dict[str, dict[str, Tensor]] = {}
    for key in sorted(grouped):
        target = by_key[key]
        read = read_layer(path, target, grouped[key], configs.get(target.component))
        if read is None:
            unknown += [f"{key}.{name}" for name in grouped[key]]
        else:
            layers[key], weights[key] = read
    if not layers:
        raise AdapterFileError(f"{path} holds no LoRA that can be read: its layers have only "
                               f"{', '.join(sorted({name for layer in grouped.values() for name in layer}))}.")
    return LoraFile(layers, weights, metadata, tuple(sorted(unknown)))


def read_whole(path: Path, targets: Sequence[Target]) -> LoraFile:
    """A LoRA of which nothing is unknown to the base. Raises AdapterFileError."""
    lora = read_lora(path, targets)
    if lora.unknown:
        raise AdapterFileError(f"{path}: {len(lora.unknown)} tensors would be lost, because this base has no such "
                               f"layer or their kind is unknown: {', '.join(lora.unknown[:5])}. Is --base the right "
                               "one?")
    return lora


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors and the metadata of a safetensors file. Raises AdapterFileError."""
    import safetensors

    try:
        with safetensors.safe_open(path, framework="pt") as file:  # type: ignore[no-untyped-call]
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise AdapterFileError(f"{path} can't be read as safetensors: {error}") from error


def _with_metadata(file_bytes: bytes, metadata: Mapping[str, str]) -> bytes:
    """The file with metadata in a fixed order; safetensors itself writes it in a random one, so that the same training
    would not give the same bytes."""
    header, data = _split(file_bytes)
    text = json.dumps({"__metadata__": dict(sorted(metadata.items())), **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data begins at a multiple of 8
    return len(text).to_bytes(8, "little") + text + data


def _split(file_bytes: bytes) -> tuple[dict[str, Any], bytes]:
    """A safetensors file's header and what follows it."""
    end = 8 + int.from_bytes(file_bytes[:8], "little")
    return json.loads(file_bytes[8:end]), file_bytes[end:]


def _legacy_hash(file_bytes: bytes) -> str:
    """A1111's first model hash: SHA-256 of 64 KiB from offset 1 MiB, 8 digits."""
    return hashlib.sha256(file_bytes[0x100000:0x110000]).hexdigest()[:8]
