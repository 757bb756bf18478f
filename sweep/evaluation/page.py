"""One page of a grid: labelled rows and columns of images, in blocks one under the other."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.evaluation.sheet import LINE_HEIGHT, MARGIN, tile_of, write_words
from sweep.files import write_bytes

if TYPE_CHECKING:
    from torch import Tensor

LABEL_WIDTH = 150  # pixels, of a row's name
NUM_WORD_LINES = 3  # beneath each image


@dataclass(frozen=True, slots=True)
class Page:
    """blocks: a title, the images [C, H, W] row by row, and the words beneath each."""

    title: str
    columns: Sequence[str]
    rows: Sequence[str]
    blocks: Sequence[tuple[str, Sequence[Tensor], Sequence[str]]]


def write_page(path: Path, page: Page) -> None:
    from PIL import Image, ImageDraw

    side = tile_of(page.blocks[0][1][0]).width
    height = tile_of(page.blocks[0][1][0]).height + NUM_WORD_LINES * LINE_HEIGHT + MARGIN
    block_height = 2 * LINE_HEIGHT + MARGIN + len(page.rows) * height
    width = LABEL_WIDTH + len(page.columns) * (side + MARGIN) + MARGIN
    title = textwrap.wrap(page.title, max(width // 7, 20))
    top = LINE_HEIGHT * len(title) + 2 * MARGIN
    sheet = Image.new("RGB", (width, top + len(page.blocks) * block_height), "white")
    draw = ImageDraw.Draw(sheet)
    write_words(draw, (MARGIN, MARGIN), "\n".join(title), "black")
    for b, (name, images, words) in enumerate(page.blocks):
        y0 = top + b * block_height
        write_words(draw, (MARGIN, y0), name, "black")
        for c, column in enumerate(page.columns):
            write_words(draw, (LABEL_WIDTH + c * (side + MARGIN), y0 + LINE_HEIGHT), column, "black")
        for i, (image, text) in enumerate(zip(images, words, strict=True)):
            r, c = divmod(i, len(page.columns))
            x, y = LABEL_WIDTH + c * (side + MARGIN), y0 + 2 * LINE_HEIGHT + MARGIN + r * height
            tile = tile_of(image.nan_to_num(0.5))
            sheet.paste(tile, (x, y))
            lines = textwrap.wrap(text, max(side // 7, 12))[:NUM_WORD_LINES]
            write_words(draw, (x, y + tile.height + 2), "\n".join(lines), "#333333")
            if c == 0:
                write_words(draw, (MARGIN, y), "\n".join(textwrap.wrap(page.rows[r], LABEL_WIDTH // 8)), "black")
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    write_bytes(path, buffer.getvalue())
