"""Latents of photos, encoded once and kept on disk by content, shared by all trials and sweeps.

Shapes: N photos, C H W pixels or latent.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.data.folder import Photo
from sweep.files import stable_hash, write_bytes

if TYPE_CHECKING:
    from torch import Tensor

    from sweep.model.base import Base

CACHE_VERSION = 1  # raise when the same photo would be encoded to something else


def cached_moments(base: Base, photos: Sequence[Photo], resolution: int, results_dir: Path) -> Tensor:
    """Mean and standard deviation of each photo's latents, [N, 2C, h, w], unscaled, on the CPU.

    One photo is encoded at a time: a row's value must not depend on which photos share its batch.
    """
    import torch

    encoded: dict[str, Tensor] = {}
    for photo in photos:
        if photo.sha256 not in encoded:
            encoded[photo.sha256] = _moments(base, photo, resolution, results_dir)
    return torch.stack([encoded[photo.sha256] for photo in photos])


def load_pixels(path: Path, resolution: int) -> Tensor:
    """[3, resolution, resolution] in [0, 1]: upright by its EXIF flag, resized to cover, cropped at the centre.

    Transparency is laid over white.
    """
    import numpy as np
    import torch
    from PIL import Image, ImageOps

    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = ImageOps.fit(image.convert("RGB"), (resolution, resolution), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255).permute(2, 0, 1)


def _moments(base: Base, photo: Photo, resolution: int, results_dir: Path) -> Tensor:
    import safetensors.torch

    key = stable_hash([CACHE_VERSION, photo.sha256, resolution, base.identity], num_digits=24)
    path = results_dir / "cache" / "latents" / f"{key}.safetensors"
    moments = _read(path)
    if moments is None:
        pixels = load_pixels(photo.path, resolution)
        moments = base.encode_moments(pixels[None] * 2 - 1)[0].float().contiguous()
        write_bytes(path, safetensors.torch.save({"moments": moments}, metadata={"check": _checksum(moments)}))
    return moments


def _read(path: Path) -> Tensor | None:
    """The cached tensor, or None if there is none or it does not pass its checksum (it is then encoded again)."""
    import safetensors

    if not path.exists():
        return None
    try:
        with safetensors.safe_open(path, framework="pt") as file:  # type: ignore[no-untyped-call]
            moments: Tensor = file.get_tensor("moments")
            if (file.metadata() or {}).get("check") == _checksum(moments):
                return moments
    except (safetensors.SafetensorError, OSError):
        pass
    return None


def _checksum(tensor: Tensor) -> str:
    import hashlib

    return hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
