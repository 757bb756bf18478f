"""Drawn images, kept by content: what was drawn once, for whatever purpose, is never drawn again.

Each is an 8-bit PNG under results/cache/images, which may be deleted at any time.
Shapes: B images, C H W pixels in [0, 1].
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.files import stable_hash, write_bytes

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from sweep.evaluation.generate import Row


class Gallery:
    """The images of one base under one sampler. drawing_key: everything that they depend on besides their rows."""

    def __init__(self, results_dir: Path, drawing_key: str):
        self.folder = results_dir / "cache" / "images" / drawing_key

    def path_of(self, row: Row, file_sha256: str) -> Path:
        """file_sha256: of the LoRA file; "" for the base alone."""
        arm = stable_hash([file_sha256, row.strength if file_sha256 else 0.0])
        known = [] if row.known is None else [row.known.key]
        return self.folder / (arm if file_sha256 else "base") / f"{stable_hash([row.prompt, row.seed, *known])}.png"


def quantised(images_BCHW: Tensor) -> Tensor:
    """As an 8-bit file holds them, so that an image scores the same whether it was drawn or read. An image that is not
    finite becomes flat grey, which counts as broken."""
    import torch

    is_whole_B = torch.isfinite(images_BCHW).flatten(1).all(dim=1)
    whole_BCHW = torch.where(is_whole_B[:, None, None, None], images_BCHW, torch.full_like(images_BCHW, 0.5))
    return (whole_BCHW.clamp(0, 1) * 255).round() / 255


def image_of(image_CHW: Tensor) -> Image:
    """As Pillow has it."""
    from PIL import Image

    pixels: Any = (image_CHW.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(pixels)


def write_image(path: Path, image_CHW: Tensor) -> None:
    buffer = io.BytesIO()
    image_of(image_CHW).save(buffer, "PNG")
    write_bytes(path, buffer.getvalue(), durable=False)


def read_image(path: Path) -> Tensor | None:
    """[C, H, W]; None if it is not there, or damaged (it is then drawn again)."""
    import numpy as np
    import torch
    from PIL import Image

    try:
        with Image.open(path) as opened:
            pixels = np.asarray(opened.convert("RGB"))
    except (OSError, SyntaxError, ValueError):
        return None
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255


def read_images(paths: Sequence[Path]) -> list[Tensor | None]:
    return [read_image(path) for path in paths]
