"""Scored images for the report: taken out of the contact sheets, made small, side by side in one WebP per score."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

TILE = 128  # pixels a side at most; smaller originals keep their size
_QUALITY = 80
_MAX_STRIP = 16000  # pixels; WebP ends at 16383


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """The images of one score, `per_row` to a row, as WebP. cells: what each shows, as the sheet says."""

    webp: bytes
    tile: tuple[int, int]
    per_row: int
    cells: tuple[Mapping[str, Any], ...]


def read_strip(sheet: Path) -> Strip | None:
    """None if there is no sheet, or one of a version that did not say where its images lie."""
    tiles = read_tiles(sheet)
    return _strip([image for _, image in tiles], [cell for cell, _ in tiles]) if tiles else None


def read_tiles(sheet: Path) -> list[tuple[Mapping[str, Any], Image]]:
    """Each image of a contact sheet with what it shows, at most TILE wide; empty as for `read_strip`."""
    from PIL import Image

    if not sheet.exists():
        return []
    try:
        with Image.open(sheet) as image:
            image.load()
            cells = json.loads(getattr(image, "text", {}).get("cells", "[]"))
            return [(cell, _small(image.crop(tuple(cell["box"])), cell["width"])) for cell in cells]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def photo_thumbnail(path: Path) -> str | None:
    """A training photo, cropped to a square, as a data address; None if it can't be read."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            small = ImageOps.fit(ImageOps.exif_transpose(image).convert("RGB"), (TILE, TILE))
    except (OSError, ValueError):
        return None
    return f"data:image/webp;base64,{base64.b64encode(_webp(small)).decode()}"


def _small(tile: Image, original_width: int) -> Image:
    """At its original size (sheets enlarge small ones by a whole factor), at most TILE wide."""
    from PIL import Image

    width = min(original_width, TILE)
    if width == tile.width:
        return tile
    height = max(1, round(tile.height * width / tile.width))
    is_enlarged = original_width < tile.width
    return tile.resize((width, height), Image.Resampling.NEAREST if is_enlarged else Image.Resampling.LANCZOS)


def _strip(tiles: Sequence[Image], cells: Sequence[Mapping[str, Any]]) -> Strip:
    from PIL import Image

    width, height = tiles[0].size
    per_row = min(len(tiles), _MAX_STRIP // width)
    strip = Image.new("RGB", (per_row * width, -(-len(tiles) // per_row) * height))
    for i, tile in enumerate(tiles):
        strip.paste(tile, (i % per_row * width, i // per_row * height))
    shown = tuple({key: value for key, value in cell.items() if key not in ("box", "width")} for cell in cells)
    return Strip(webp=_webp(strip), tile=(width, height), per_row=per_row, cells=shown)


def _webp(image: Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=_QUALITY)
    return buffer.getvalue()
