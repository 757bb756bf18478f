"""Contact sheets: the images of one file on its cells, with prompts and scores printed beneath.

Where each image lies stands in the PNG itself, as the text `cells` (JSON), so that a view can take them apart again.
"""

from __future__ import annotations

import io
import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.evaluation.cells import Cell
from sweep.evaluation.gallery import image_of
from sweep.files import write_bytes

if TYPE_CHECKING:
    from PIL import Image, ImageDraw
    from torch import Tensor

NUM_COLUMNS = 8
MIN_SIDE = 192  # smaller images are enlarged by a whole factor
MAX_SIDE = 256  # larger ones are reduced
FONT_SIZE = 13
LINE_HEIGHT = 16
MARGIN = 6


def write_sheet(path: Path, images_BCHW: Tensor, cells: Sequence[Cell], captions: Sequence[str], title: str,
                facts: Sequence[Mapping[str, Any]] | None = None) -> None:
    """captions: a line of numbers for each image; title may have several lines; facts: more about each image, plain
    values, for views."""
    from PIL import Image, ImageDraw
    from PIL.PngImagePlugin import PngInfo

    tiles = [tile_of(image) for image in images_BCHW.nan_to_num(0.5)]
    side = tiles[0].width
    texts = [_wrapped(cell, line, side) for cell, line in zip(cells, captions, strict=True)]
    num_columns = min(NUM_COLUMNS, len(tiles))
    num_lines = [text.count("\n") + 1 for text in texts]
    heights = [tiles[0].height + LINE_HEIGHT * max(num_lines[i:i + num_columns]) + 2 * MARGIN
               for i in range(0, len(texts), num_columns)]
    width = num_columns * (side + MARGIN) + MARGIN
    title = "\n".join(line for part in title.splitlines() for line in textwrap.wrap(part, width // 7) or [""])
    header = LINE_HEIGHT * (title.count("\n") + 1) + 3 * MARGIN
    sheet = Image.new("RGB", (width, header + sum(heights)), "white")
    draw = ImageDraw.Draw(sheet)
    write_words(draw, (MARGIN, MARGIN), title, "black")
    places = []
    for i, (tile, text) in enumerate(zip(tiles, texts, strict=True)):
        x, y = MARGIN + (i % num_columns) * (side + MARGIN), header + sum(heights[:i // num_columns])
        sheet.paste(tile, (x, y))
        write_words(draw, (x, y + tile.height + 2), text, "#333333")
        places.append({"box": [x, y, x + tile.width, y + tile.height], "kind": cells[i].kind, "index": cells[i].index,
                       "seed": cells[i].seed, "text": cells[i].text,
                       "width": images_BCHW.shape[-1], **(facts[i] if facts else {})})
    buffer, info = io.BytesIO(), PngInfo()
    info.add_itxt("cells", json.dumps(places))
    sheet.save(buffer, "PNG", pnginfo=info)
    write_bytes(path, buffer.getvalue())


def tile_of(image_CHW: Tensor) -> Image.Image:
    from PIL import Image

    tile = image_of(image_CHW)
    if tile.width < MIN_SIDE:
        factor = -(-MIN_SIDE // tile.width)
        return tile.resize((tile.width * factor, tile.height * factor), Image.Resampling.NEAREST)
    if tile.width > MAX_SIDE:
        return tile.resize((MAX_SIDE, MAX_SIDE * tile.height // tile.width), Image.Resampling.LANCZOS)
    return tile


def _wrapped(cell: Cell, line: str, side: int) -> str:
    columns = max(side // 7, 12)
    kind = {"prompt": "", "bare": "bare trigger: ", "caption": "training caption: ", "class": "no trigger: "}[cell.kind]
    return "\n".join([*textwrap.wrap(f"{kind}{cell.text} (seed {cell.seed})", columns), *textwrap.wrap(line, columns)])


def write_words(draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, colour: str) -> None:
    from PIL import ImageFont

    draw.multiline_text(at, text, fill=colour, font=ImageFont.load_default(size=FONT_SIZE),
                        spacing=LINE_HEIGHT - FONT_SIZE)
