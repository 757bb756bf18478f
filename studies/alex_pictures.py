"""The eleven side by side, taken out of the sheets that the sweep drew: by prompt, and by epoch.

The same prompts and noise in each column, so that rows differ by their training alone (and by their base).
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from studies.alex_words import last_score
from sweep.evaluation.sheet import LINE_HEIGHT, MARGIN, write_words
from sweep.files import write_bytes
from sweep.record.facts import Record
from sweep.record.pictures import read_tiles
from sweep.trial import Score, TrialResult, trial_folder

if TYPE_CHECKING:
    from PIL.Image import Image

Place = tuple[str, int, int]
"""Kind, index and seed of a cell."""
SHOWN: tuple[Place, ...] = (("prompt", 3, 0), ("prompt", 2, 0), ("prompt", 1, 0), ("prompt", 6, 0), ("bare", 0, 0),
                            ("bare", 0, 1), ("class", 0, 0), ("class", 2, 0))
THROUGH_TIME: Place = ("prompt", 3, 0)
SIDE = 96  # pixels of a tile
LABEL = 170  # of the words beside a row
Rows = Sequence[tuple[str, Mapping[str, "Image"]]]


def write_pictures(record: Record, results: Mapping[int, TrialResult]) -> None:
    """In the sweep's folder. prompts.webp: the last files at strength 1 by prompt, beneath some of the photos;
    epochs.webp: one prompt by epoch. results: by their numbers in the diary."""
    last = {number: score for number, result in sorted(results.items()) if (score := last_score(result)) is not None}
    rows = [(f"LoRA{number}: {score.verdict}", _by_prompt(record.results_dir, results[number], score))
            for number, score in last.items()]
    prompts = list(dict.fromkeys(name for _, tiles in rows for name in tiles))
    photos = ("photos of the subject (not of these prompts)", dict(zip(prompts, _photos(record), strict=False)))
    write_bytes(record.dir / "prompts.webp", _webp([photos, *rows], prompts))
    rows = [(f"LoRA{number}", _by_epoch(record.results_dir, results[number])) for number in last]
    epochs = sorted({name for _, tiles in rows for name in tiles}, key=lambda name: int(name.split()[1]))
    write_bytes(record.dir / "epochs.webp", _webp(rows, epochs))


def _photos(record: Record) -> list[Image]:
    from PIL import Image

    shown = next(iter(record.facts.photos.values()), [])[:len(SHOWN)]
    return [Image.open(photo["path"]).convert("RGB") for photo in shown if Path(photo["path"]).exists()]


def _by_prompt(results_dir: Path, result: TrialResult, score: Score) -> dict[str, Image]:
    tiles = _tiles(results_dir, result, score)
    return {name: tile for place in SHOWN if place in tiles for name, tile in (tiles[place],)}


def _by_epoch(results_dir: Path, result: TrialResult) -> dict[str, Image]:
    """{"epoch 3": ...}; of screened files at strength 1."""
    screened = [score for score in result.scores if score.stage == "screen" and score.strength == 1]
    found = {f"epoch {score.epoch}": _tiles(results_dir, result, score).get(THROUGH_TIME)
             for score in sorted(screened, key=lambda score: score.step)}
    return {name: tile[1] for name, tile in found.items() if tile is not None}


def _tiles(results_dir: Path, result: TrialResult, score: Score) -> dict[Place, tuple[str, Image]]:
    """Each image of a score with its prompt (and seed, where it is not the first)."""
    sheet = trial_folder(results_dir, result.trial.train_id).images / f"{score.score_id}.png"
    return {(cell["kind"], cell["index"], cell["seed"]):
            (cell["text"] + (f" (seed {cell['seed']})" if cell["seed"] else ""), tile)
            for cell, tile in read_tiles(sheet)}


def _webp(rows: Rows, columns: Sequence[str]) -> bytes:
    """A row of tiles for each training, with its words to the left and each column's above."""
    import io

    from PIL import Image, ImageDraw

    heads = ["\n".join(textwrap.wrap(name, SIDE // 7)) for name in columns]
    top = LINE_HEIGHT * (1 + max((head.count("\n") for head in heads), default=0)) + 2 * MARGIN
    step = SIDE + MARGIN
    picture = Image.new("RGB", (LABEL + step * len(columns) + MARGIN, top + step * len(rows)), "white")
    draw = ImageDraw.Draw(picture)
    for i, head in enumerate(heads):
        write_words(draw, (LABEL + i * step, MARGIN), head, "#333333")
    for j, (words, tiles) in enumerate(rows):
        write_words(draw, (MARGIN, top + j * step), "\n".join(textwrap.wrap(words, LABEL // 8)), "black")
        for i, name in enumerate(columns):
            if name in tiles:
                tile = tiles[name].resize((SIDE, SIDE), Image.Resampling.LANCZOS)
                picture.paste(tile, (LABEL + i * step, top + j * step))
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=90)
    return buffer.getvalue()
