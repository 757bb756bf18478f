"""A project folder as people have them: subsets, shapes, tags, choices, masks, regularisation images."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

SHAPES = ((64, 64), (96, 64), (64, 96), (80, 64), (64, 64), (72, 96))
EVERYTHING_DRAWN: dict[str, Any] = {
    "enable_bucket": True, "random_crop": True, "flip_aug": True, "shuffle_caption": True, "keep_tokens": 1,
    "caption_tag_dropout_rate": 0.2, "caption_dropout_rate": 0.3, "enable_wildcard": True}


def make_project(root: Path, *, reverse: bool = False) -> Path:
    """Write `img/`, `reg/` and `masks/`; returns the root. reverse: the files come into being in the other order."""
    files = list(_files())
    for name, content in reversed(files) if reverse else files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def _files() -> Iterable[tuple[str, bytes]]:
    for i, size in enumerate(SHAPES):
        subset = "img/3_alexq man" if i % 2 else "img/2_alexq person"
        yield f"{subset}/{i:03d}.png", _png(i, size)
        lines = f"alexq man, tag {i}, {{red|blue}} hat, smiling", f"alexq man {i}, outside"
        yield f"{subset}/{i:03d}.txt", "\n".join(lines).encode()
        yield f"masks/{i:03d}.png", _mask(size, i)
    for i in range(3):
        yield f"reg/1_man/{i:03d}.png", _png(100 + i, SHAPES[i])


def _png(seed: int, size: tuple[int, int]) -> bytes:
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return _encoded(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def _mask(size: tuple[int, int], i: int) -> bytes:
    from PIL import Image

    mask = Image.new("L", size, 0)
    mask.paste(255, (8 + 4 * i, 8, size[0] - 8, size[1] - 16))
    return _encoded(mask)


def _encoded(image: Any) -> bytes:
    import io

    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()
