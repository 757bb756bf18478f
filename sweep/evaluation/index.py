"""index.html: what evaluate.py found, to be looked at: the answer, the ranking, the grid's pages beside it."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from sweep.evaluation.ranking import answer_text, ranking_table
from sweep.files import write_text
from sweep.trial import Answer, Score

INDEX = "index.html"


def write_index(folder: Path, ranked: Sequence[Score], answer: Answer | None, pages: Sequence[Path]) -> Path:
    """Write it anew and return its path. ranked, answer: nothing where files were not ranked. pages: images in the
    folder, shown from where they lie, so that the folder can be moved."""
    parts = []
    if answer is not None:
        title, header, rows = ranking_table(ranked)
        cells = ["".join(f"<td>{html.escape(text)}</td>" for text in row) for row in rows]
        parts += ["<h1>Which file to use</h1>",
                  *(f"<p>{html.escape(line)}</p>" for line in answer_text(answer).splitlines()),
                  f"<h2>{html.escape(title)}</h2>",
                  f"<table><tr>{''.join(f'<th>{html.escape(name)}</th>' for name in header)}</tr>",
                  *(f"<tr>{row}</tr>" for row in cells), "</table>"]
    if pages:
        parts += ["<h2>Grid: files by strengths, with each image's own scores (raw; also in grid.csv)</h2>",
                  *(f'<p><img loading="lazy" src="{html.escape(page.name)}" alt="{html.escape(page.stem)}"></p>'
                    for page in pages)]
    path = folder / INDEX
    write_text(path, _PAGE.format(body="\n".join(parts)))
    return path


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>LoRA files, scored</title>
<style>
 body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2em; }}
 td, th {{ padding: 4px 10px; text-align: left; border-bottom: 1px solid #ccc; }}
 img {{ max-width: 100%; }}
</style>
{body}
</html>
"""
