"""The copy report: each image beside its nearest training photo, and which photos attract most images.

One HTML file that needs nothing else: small pictures are inside it, a click on a column's head sorts by it.
"""

from __future__ import annotations

import base64
import html
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.evaluation.cells import Cell
from sweep.evaluation.gallery import image_of
from sweep.evaluation.measure import Measured
from sweep.files import write_text

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

SIDE = 128  # pixels of a picture in the report


@dataclass(frozen=True, slots=True)
class Attraction:
    """A training photo: how many images have it as their nearest, and how many of these are copies of it."""

    photo: int
    num_nearest: int
    num_copies: int


def ranking(images: Sequence[Measured], copy_distance: float) -> list[Attraction]:
    """Photos that are some image's nearest: most copies first, then most images, then by number."""
    whole = [image for image in images if not image.is_broken]
    nearest = Counter(image.nearest_photo for image in whole)
    copies = Counter(image.nearest_photo for image in whole if image.nearest < copy_distance)
    return sorted((Attraction(photo, nearest[photo], copies[photo]) for photo in nearest),
                  key=lambda a: (-a.num_copies, -a.num_nearest, a.photo))


def write_copy_report(path: Path, images_BCHW: Tensor, cells: Sequence[Cell], measured: Sequence[Measured],
                      photos: Sequence[Path], copy_distance: float, title: str) -> None:
    """photos: all training photos, as `Measured.nearest_photo` counts them."""
    shown = {photo: _embedded(_opened(photos[photo])) for photo in {image.nearest_photo for image in measured}}
    rows = []
    pairs = [(image, cell, pixels) for image, cell, pixels in zip(measured, cells, images_BCHW, strict=True)
             if not image.is_broken]
    for image, cell, pixels in sorted(pairs, key=lambda row: row[0].nearest):
        name = html.escape(photos[image.nearest_photo].name)
        verdict = "copy" if image.nearest < copy_distance else ""
        rows.append(f"<tr><td>{_embedded(image_of(pixels))}</td><td>{shown[image.nearest_photo]}</td>"
                    f"<td>{image.nearest:.3f}</td><td>{verdict}</td><td>{html.escape(image.nearest_way)}</td>"
                    f"<td>{name}</td><td>{cell.kind}</td><td>{html.escape(cell.text)}</td><td>{cell.seed}</td></tr>")
    ranks = [f"<tr><td>{shown[a.photo]}</td><td>{html.escape(photos[a.photo].name)}</td><td>{a.num_nearest}</td>"
             f"<td>{a.num_copies}</td></tr>" for a in ranking(measured, copy_distance)]
    write_text(path, _PAGE.format(
        title=html.escape(title), copy_distance=f"{copy_distance:g}", rows="\n".join(rows), ranks="\n".join(ranks)))


def _opened(path: Path) -> Image:
    from sweep.data.images import open_upright

    return open_upright(path)


def _embedded(image: Image) -> str:
    from PIL.Image import Resampling

    if image.width > SIDE:
        image = image.resize((SIDE, max(1, SIDE * image.height // image.width)), Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return f'<img src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


_PAGE = """<!doctype html>
<meta charset="utf-8">
<title>{title}</title>
<style>
 body {{ font: 14px sans-serif; margin: 2em; }}
 td, th {{ padding: 4px 10px; text-align: left; vertical-align: middle; }}
 th {{ cursor: pointer; border-bottom: 1px solid #888; }}
 img {{ width: 128px; image-rendering: pixelated; }}
</style>
<h1>{title}</h1>
<p>Nearer than {copy_distance} is a copy. A click on a column's head sorts by it.</p>
<h2>Training photos that attract most images</h2>
<table><tr><th>photo</th><th>name</th><th>images nearest to it</th><th>copies of it</th></tr>
{ranks}
</table>
<h2>Images</h2>
<table><tr><th>image</th><th>nearest photo</th><th>distance</th><th></th><th>how</th><th>name</th><th>kind</th>
<th>prompt</th><th>seed</th></tr>
{rows}
</table>
<script>
document.querySelectorAll("th").forEach(head => head.onclick = () => {{
  const table = head.closest("table"), column = head.cellIndex;
  const rows = [...table.rows].slice(1), text = row => row.cells[column].innerText;
  const order = head.dataset.order = head.dataset.order === "up" ? "down" : "up";
  rows.sort((a, b) => text(a).localeCompare(text(b), undefined, {{numeric: true}}) * (order === "up" ? 1 : -1));
  rows.forEach(row => table.tBodies[0].append(row));
}});
</script>
"""
