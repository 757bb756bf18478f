"""LoRA files in sd-scripts' format: safetensors with `lora_unet_*` / `lora_te_*` keys, read by A1111, ComfyUI and
diffusers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.errors import AdapterFileError
from sweep.files import write_bytes
from sweep.network.targets import Target

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class LoraFile:
    """A LoRA as read: pairs (down [R,I], up [O,R]) by target key, one alpha, one dim."""

    weights: dict[str, tuple[Tensor, Tensor]]
    dim: int
    alpha: float
    metadata: dict[str, str]


def write_lora(path: Path, targets: Sequence[Target], weights: Mapping[str, tuple[Tensor, Tensor]], *, alpha: float,
               dtype: torch.dtype, metadata: Mapping[str, str]) -> None:
    """Write the targets that `weights` has, atomically. 1x1 convolutions are saved 4-D.

    metadata: `ss_*` and `modelspec.*`; the hashes `sshs_*` are added here. It must hold no time, host or path, so that
    the same training gives the same bytes.
    """
    import safetensors.torch
    import torch

    tensors: dict[str, Tensor] = {}
    for target in targets:
        if target.key not in weights:
            continue
        down, up = (w.to("cpu", dtype).contiguous() for w in weights[target.key])
        if target.is_conv:
            down, up = down[:, :, None, None], up[:, :, None, None]
        tensors[f"{target.key}.lora_down.weight"] = down
        tensors[f"{target.key}.lora_up.weight"] = up
        tensors[f"{target.key}.alpha"] = torch.tensor(alpha, dtype=dtype)
    bare = safetensors.torch.save(tensors)
    # sd-scripts hashes the file as it would be with the training metadata alone, which users are not meant to edit
    trained = _with_metadata(bare, {key: value for key, value in metadata.items() if key.startswith("ss_")})
    hashes = {"sshs_model_hash": hashlib.sha256(_split(bare)[1]).hexdigest(), "sshs_legacy_hash": _legacy_hash(trained)}
    write_bytes(path, _with_metadata(bare, {**metadata, **hashes}))


def read_lora(path: Path, targets: Sequence[Target]) -> LoraFile:
    """Read a LoRA for a base's targets.

    Raises AdapterFileError if the file is no safetensors, holds no LoRA, or holds layers that the base lacks.
    """
    import safetensors

    try:
        with safetensors.safe_open(path, framework="pt") as file:  # type: ignore[no-untyped-call]
            metadata = dict(file.metadata() or {})
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except (safetensors.SafetensorError, OSError) as error:
        raise AdapterFileError(f"{path} can't be read as safetensors: {error}") from error
    names = {key.rsplit(".lora_down.weight", 1)[0] for key in tensors if key.endswith(".lora_down.weight")}
    if not names:
        raise AdapterFileError(f"{path} holds no LoRA in kohya's form (no *.lora_down.weight); its first keys are: "
                               f"{', '.join(sorted(tensors)[:3])}.")
    by_key = {target.key: target for target in targets}
    unknown = sorted(names - set(by_key))
    if unknown:
        raise AdapterFileError(f"{path} has {len(unknown)} layers that this base lacks or that are not read yet, e.g. "
                               f"{', '.join(unknown[:3])}. Was it trained on another family of models?")
    weights, alphas = {}, {}
    for name in sorted(names):
        target = by_key[name]
        down, up = tensors[f"{name}.lora_down.weight"].float(), tensors[f"{name}.lora_up.weight"].float()
        down, up = down.flatten(1), up.flatten(1)
        if down.shape[1] != target.in_features or up.shape[0] != target.out_features:
            raise AdapterFileError(f"{path}: {name} is {down.shape[1]} -> {up.shape[0]}, the base's layer is "
                                   f"{target.in_features} -> {target.out_features}.")
        alpha = tensors.get(f"{name}.alpha")
        weights[name] = (down, up)
        alphas[name] = float(alpha) if alpha is not None else float(down.shape[0])
    return _one_rank(weights, alphas, metadata)


def _one_rank(weights: dict[str, tuple[Tensor, Tensor]], alphas: dict[str, float],
              metadata: dict[str, str]) -> LoraFile:
    """Pad layers of smaller rank with zeros and fold their scale into `up`, so that one (dim, alpha) holds for all."""
    import torch

    dim = max(down.shape[0] for down, _ in weights.values())
    alpha = max(alphas.values())
    same = {}
    for name, (down, up) in weights.items():
        rank = down.shape[0]
        factor = (alphas[name] / rank) / (alpha / dim)
        if rank < dim:
            down = torch.nn.functional.pad(down, (0, 0, 0, dim - rank))
            up = torch.nn.functional.pad(up, (0, dim - rank))
        same[name] = (down, up if factor == 1 else up * factor)
    return LoraFile(weights=same, dim=dim, alpha=alpha, metadata=metadata)


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
