"""What the frozen base makes of photos and texts, computed once and kept on disk by content, shared by all trials and
sweeps.

Files are written whole or not at all and checked against a sum when they are read; processes that miss the same file
compute the same one, and the last to write wins. Shapes: B texts, C H W pixels or latent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.data.buckets import Fit, cover
from sweep.data.dataset import Photo
from sweep.data.images import crop_corner, cropped, image_facts, open_upright
from sweep.files import stable_hash, write_bytes

if TYPE_CHECKING:
    from torch import Tensor

    from sweep.model.base import Base, TextStates

CACHE_VERSION = 3  # raise when the same content would be computed to something else


@dataclass(frozen=True, slots=True)
class View:
    """One way to see a photo. position: of the crop along its slack, 0 (left, top) to 1."""

    fit: Fit
    position: float = 0.5
    is_flipped: bool = False


def cached_moments(base: Base, photo: Photo, view: View, results_dir: Path) -> Tensor:
    """Mean and standard deviation of a photo's latents, [2C, h, w], unscaled, on the CPU.

    One view is encoded at a time: its values must not depend on what shares its batch.
    """
    key = [CACHE_VERSION, "latents", photo.sha256, view.fit.bucket, view.fit.resized, crop_corner(view.fit,
           view.position), view.is_flipped, base.identity]
    path = results_dir / "cache" / "latents" / f"{stable_hash(key, num_digits=24)}.safetensors"

    def encode() -> Mapping[str, Tensor]:
        pixels = _view_pixels(photo.path, view)
        return {"moments": base.encode_moments(pixels[None] * 2 - 1)[0].float().contiguous()}

    return _cached(path, encode)["moments"]


def load_pixels(path: Path, resolution: int) -> Tensor:
    """[3, resolution, resolution] in [0, 1]: upright by its EXIF flag, resized to cover, cropped at the centre.

    Transparency is laid over white.
    """
    return _view_pixels(path, View(cover(image_facts(path).size, (resolution, resolution))))


def cached_text_states(base: Base, captions: Iterable[str], results_dir: Path, **reading: Any) -> dict[str, TextStates]:
    """`base.text_states([caption], **reading)` of each caption, [1, L, D] on the base's device; gradients do not pass.

    Only for what no adapter and no draw changes: a text encoder that is not trained, captions that do not vary.
    """
    return {caption: _text_state(base, caption, results_dir, reading).to(base.device)
            for caption in dict.fromkeys(captions)}


def _text_state(base: Base, caption: str, results_dir: Path, reading: Mapping[str, Any]) -> TextStates:
    """One caption's states, on the CPU. It is encoded alone: its row must not depend on its companions."""
    import torch

    from sweep.model.base import TextStates

    key = [CACHE_VERSION, "text", caption, base.identity, str(base.dtype), dict(reading)]
    path = results_dir / "cache" / "text" / f"{stable_hash(key, num_digits=24)}.safetensors"

    def encode() -> Mapping[str, Tensor]:
        with torch.no_grad(), base.autocast():
            states = base.text_states([caption], **reading)
        tensors = {field.name: getattr(states, field.name) for field in fields(states)}
        return {name: tensor.cpu().contiguous() for name, tensor in tensors.items() if tensor is not None}

    return TextStates(**_cached(path, encode))


def _view_pixels(path: Path, view: View) -> Tensor:
    import numpy as np
    import torch

    image = cropped(open_upright(path), view.fit, view.position)
    pixels = torch.from_numpy(np.asarray(image, dtype=np.float32) / 255).permute(2, 0, 1)
    return pixels.flip(-1) if view.is_flipped else pixels


def _cached(path: Path, compute: Any) -> Mapping[str, Tensor]:
    """The tensors of a file, or of `compute`, which are then written to it."""
    import safetensors.torch

    tensors = _read(path)
    if tensors is None:
        tensors = compute()
        write_bytes(path, safetensors.torch.save(dict(tensors), metadata={"check": _checksum(tensors)}))
    return tensors


def _read(path: Path) -> Mapping[str, Tensor] | None:
    """The cached tensors, or None if there are none or they do not pass their checksum (they are then made again)."""
    import safetensors

    if not path.exists():
        return None
    try:
        with safetensors.safe_open(path, framework="pt") as file:  # type: ignore[no-untyped-call]
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            if (file.metadata() or {}).get("check") == _checksum(tensors):
                return tensors
    except (safetensors.SafetensorError, OSError, RuntimeError):  # the last when it vanishes while being opened
        pass
    return None


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    """Of names, types, shapes and bytes."""
    import hashlib

    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
