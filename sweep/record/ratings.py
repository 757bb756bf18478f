"""Pairs of images that a person judges blind, and the answers: results/<sweep>/ratings.jsonl.

A pair shows the same prompt and seed by two files or strengths. Which is which is drawn anew and not sent to the page.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep.files import append_jsonl, read_jsonl
from sweep.record.facts import Record
from sweep.trial import Score, trial_folder

RATINGS = "ratings.jsonl"
QUESTIONS: Mapping[str, str] = {"likeness": "Which one is the subject?", "adherence": "Which one follows the prompt?"}
CHOICES = ("left", "right", "same")


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One image: where it lies and what it is known by."""

    sheet: Path
    box: tuple[int, int, int, int]
    train_id: str
    score_id: str
    file_sha256: str
    strength: float
    guidance_scale: float | None
    usefulness: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A question about two images of one cell."""

    question: str
    prompt: str
    cell: str  # kind-index-seed
    left: Side
    right: Side


def pairs(record: Record, seed: int) -> list[Pair]:
    """All pairs that can be asked, in an order and with sides drawn by the seed; those answered are left out."""
    cells: dict[tuple[str, str, str, str], list[Side]] = {}
    for result in record.results:
        images = trial_folder(record.results_dir, result.trial.train_id).images
        for score in result.scores:
            _add_cells(cells, images / f"{score.score_id}.png", result.trial.train_id, score)
    answered = {(row["question"], row["cell"], frozenset((row["left"]["score_id"], row["right"]["score_id"])))
                for row in read_ratings(record.dir)}
    chance = random.Random(seed)
    found = []
    for (_, _, cell, prompt), sides in sorted(cells.items()):
        for i, one in enumerate(sides):
            for other in sides[:i]:
                if (one.file_sha256, one.strength, one.guidance_scale) == (
                        other.file_sha256, other.strength, other.guidance_scale):
                    continue
                left, right = chance.sample([one, other], 2)
                found += [Pair(question=question, prompt=prompt, cell=cell, left=left, right=right)
                          for question in QUESTIONS
                          if (question, cell, frozenset((one.score_id, other.score_id))) not in answered]
    chance.shuffle(found)
    return found


def _add_cells(cells: dict[tuple[str, str, str, str], list[Side]], sheet: Path, train_id: str, score: Score) -> None:
    import json

    from PIL import Image

    if not sheet.exists():
        return
    with Image.open(sheet) as image:
        image.load()
        places = json.loads(getattr(image, "text", {}).get("cells", "[]"))
    axis = score.axes.get("usefulness")
    for place in places:
        if place["kind"] == "prompt":
            key = f"{place['kind']}-{place['index']}-{place['seed']}"
            cells.setdefault((score.scoring_id, score.stage, key, place["text"]), []).append(Side(
                sheet=sheet, box=tuple(place["box"]), train_id=train_id, score_id=score.score_id,
                file_sha256=score.file_sha256, strength=score.strength, guidance_scale=score.guidance_scale,
                usefulness=axis.value if axis else None))


def add_rating(sweep_dir: Path, pair: Pair, choice: str, elapsed_s: float) -> None:
    """Store one answer. Raises ValueError for what is no answer."""
    if choice not in CHOICES:
        raise ValueError(f"{choice!r} is none of {', '.join(CHOICES)}")
    append_jsonl(sweep_dir / RATINGS, {
        "rated": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "question": pair.question, "prompt": pair.prompt,
        "cell": pair.cell, "choice": choice, "elapsed_s": round(elapsed_s, 1), "left": _known_by(pair.left),
        "right": _known_by(pair.right)})


def read_ratings(sweep_dir: Path) -> list[dict[str, Any]]:
    """Oldest first."""
    return list(read_jsonl(sweep_dir / RATINGS))


def agreement(ratings: Sequence[Mapping[str, Any]]) -> str:
    """How often people and usefulness prefer the same side, in words."""
    decided = [row for row in ratings if row["choice"] != "same" and row["left"]["usefulness"] is not None
               and row["right"]["usefulness"] is not None and row["left"]["usefulness"] != row["right"]["usefulness"]]
    same = sum((row["choice"] == "left") == (row["left"]["usefulness"] > row["right"]["usefulness"]) for row in decided)
    share = f"; usefulness prefers the same side in {same} of {len(decided)} decided pairs" if decided else ""
    return f"{len(ratings)} answers{share}"


def _known_by(side: Side) -> dict[str, Any]:
    return {"train_id": side.train_id, "score_id": side.score_id, "file_sha256": side.file_sha256,
            "strength": side.strength, "usefulness": side.usefulness}
