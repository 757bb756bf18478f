"""What the report shows, as one plain tree, and the pictures beside it. Read from the record on disk alone."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweep.record.asked import are_photos_varied, asked, bases_of, brought, settings_of
from sweep.record.best import best_results, choices_of, on_front, usefulness
from sweep.record.cost import cost_words, costs, saved_words
from sweep.record.curves import read_curves
from sweep.record.facts import Record
from sweep.record.figures import FIGURES, figure_of
from sweep.record.how_to_use import prompt_words
from sweep.record.notes import read_notes
from sweep.record.pictures import Strip, photo_thumbnail, read_strip
from sweep.record.sentences import (
    answer_sentence,
    apart_words,
    file_place,
    lessons_of,
    photo_words,
    results_sentence,
    tie_sentence,
    value_text,
)
from sweep.trial import Answer, Score, TrialResult, trial_folder

PICTURE_BUDGET = 24_000_000  # bytes of images in one report; what does not fit is left out, and the report says so
MAX_COPIES = 24  # pairs in the copy report
_STAGES = ("confirm", "refine", "screen")


@dataclass
class ReportData:
    """tree: JSON for the page. pictures: WebP strips in base64, by the name that the tree uses."""

    tree: dict[str, Any]
    pictures: dict[str, str] = field(default_factory=dict)


def report_data(record: Record, *, lessons: Sequence[str] | None = None,
                picture_budget: int = PICTURE_BUDGET) -> ReportData:
    """Everything that the page needs. lessons: what was learned; None = from pairs of trials alone."""
    entry, results = record.entry, record.results
    best, ties = best_results(results)
    named = [best, *ties] if best is not None else []
    data = ReportData(tree={
        "name": entry.name, "started": entry.started, "command": entry.command, "hardware": entry.hardware,
        "commit": entry.commit, "versions": entry.versions, "note": entry.note, "notes": read_notes(record.dir),
        "base_model": bases_of(entry, results), "dataset": entry.dataset,
        "num_photos": "" if are_photos_varied(entry, results) else entry.num_photos,
        "question": {key: value_text(value) for key, value in asked(entry, results).items()},
        "swept": list(entry.swept_keys), "brought": list(brought(entry, results)), "axes": list(FIGURES),
        "answer": {"sentence": _answer(record, named).replace("`", ""),
                   "choices": [_choice(result, entry.subject_words, record) for result in named]},
        "trials": [_trial(result, choice, settings, record) for result, choice, settings
                   in zip(results, choices_of(results), settings_of(entry, results), strict=True)],
        "front": [result.trial.number for result in on_front(results)],
        "learned": list(lessons_of(entry, results) if lessons is None else lessons),
        "cost": {"minutes": sum(r.attributed_s for r in results) / 60, "steps": sum(r.step for r in results),
                 "images": sum(s.num_images for r in results for s in r.scores),
                 "stages": cost_words(costs(results, record.results_dir)), "saved": saved_words(results)},
    })
    _add_scores(data, record, named, picture_budget)
    return data


def _answer(record: Record, named: Sequence[TrialResult]) -> str:
    entry, results, place = record.entry, record.results, record.results_dir.as_posix()
    if len(named) < 2:
        return answer_sentence(entry, results, place)
    # the files of a tie are listed beneath
    said = (tie_sentence(named, results), apart_words(entry, results, place), photo_words(results))
    return " ".join(filter(None, said))


def _choice(result: TrialResult, words: str, record: Record) -> dict[str, Any]:
    assert result.answer is not None
    return {"trial": result.trial.number, "place": f"{record.results_dir.as_posix()}/{file_place(result)}",
            "strength": result.answer.strength, "paste": prompt_words(words, result.answer),
            "usefulness": _axis(result.answer.score, "usefulness"), "verdict": result.answer.score.verdict,
            "reason": result.answer.reason}


def _trial(result: TrialResult, choice: str, settings: Mapping[str, Any], record: Record) -> dict[str, Any]:
    answer, folder = result.answer, trial_folder(record.results_dir, result.trial.train_id)
    return {
        "number": result.trial.number, "id": result.trial.train_id, "status": result.status, "reason": result.reason,
        "choice": choice, "steps": result.step, "num_steps": result.trial.num_steps,
        "minutes": round(result.attributed_s / 60, 3),
        "settings": {key: _plain(value) for key, value in settings.items()},
        "verdict": answer.score.verdict if answer else result.status, "file": answer.file if answer else "",
        "place": f"{record.results_dir.as_posix()}/{file_place(result)}" if answer else "",
        "strength": answer.strength if answer else None, "epoch": answer.epoch if answer else None,
        "guidance": _guidance(answer, record) if answer else None,
        "is_scored": usefulness(result) is not None,
        "axes": {name: _axis(answer.score, name) for name in FIGURES} if answer else {},
        "words": results_sentence(result), "notes": read_notes(folder.root),
        "curves": read_curves(folder.metrics),
    }


def _axis(score: Score, name: str) -> list[float | None]:
    axis = figure_of(score, name)
    return [None, None, None] if axis is None else [_rounded(axis.value), _rounded(axis.low), _rounded(axis.high)]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _plain(value: Any) -> Any:
    return value if isinstance(value, (int, float, str, bool)) or value is None else value_text(value)


def _add_scores(data: ReportData, record: Record, named: Sequence[TrialResult], budget: int) -> None:
    """Scores with their pictures: those of the named trials first, then by usefulness, until the budget is spent."""
    cells: dict[str, int] = {}
    texts: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    nearest: list[dict[str, Any]] = []
    num_left_out = 0
    for result in sorted(record.results, key=lambda r: _rank(r, named)):
        images = trial_folder(record.results_dir, result.trial.train_id).images
        for score in sorted(result.scores, key=lambda s: _STAGES.index(s.stage) if s.stage in _STAGES else 9):
            row = _score_row(score, result, record)
            rows.append(row)
            strip = read_strip(images / f"{score.score_id}.png")
            if strip is None:
                continue
            row["cells"] = [_cell_number(cell, cells, texts) for cell in strip.cells]
            row["images"] = [cell.get("scores", "") for cell in strip.cells]
            nearest += _nearest(strip, row, len(rows) - 1)
            if len(strip.webp) * 4 // 3 > budget:
                num_left_out += 1
                continue
            budget -= len(strip.webp) * 4 // 3
            name = f"s{len(data.pictures)}"
            data.pictures[name] = base64.b64encode(strip.webp).decode()
            row |= {"picture": name, "tile": strip.tile, "per_row": strip.per_row}
    data.tree |= {"cells": texts, "scores": rows, "pictures_left_out": num_left_out,
                  "copies": _copies(nearest, record)}


def _rank(result: TrialResult, named: Sequence[TrialResult]) -> tuple[bool, float, int]:
    estimate = usefulness(result)
    return result not in named, -(estimate.value or 0.0) if estimate else 1.0, result.trial.number


def _guidance(drawn: Score | Answer, record: Record) -> float | None:
    """None where it is the sampler's own, of a record that does not say which that is."""
    own = record.facts.sampler.get("guidance_scale")
    return own if drawn.guidance_scale is None else drawn.guidance_scale


def _score_row(score: Score, result: TrialResult, record: Record) -> dict[str, Any]:
    return {"trial": result.trial.number, "stage": score.stage, "step": score.step, "epoch": score.epoch,
            "strength": score.strength, "guidance": _guidance(score, record), "file": score.file,
            "verdict": score.verdict,
            "axes": {name: _axis(score, name) for name in FIGURES}, "notes": list(score.notes), "cells": [],
            "images": []}


def _cell_number(cell: Mapping[str, Any], known: dict[str, int], texts: list[dict[str, Any]]) -> int:
    key = f"{cell['kind']}-{cell['index']}-{cell['seed']}-{cell['text']}"
    if key not in known:
        known[key] = len(texts)
        texts.append({"kind": cell["kind"], "index": cell["index"], "seed": cell["seed"], "text": cell["text"]})
    return known[key]


def _nearest(strip: Strip, row: Mapping[str, Any], score: int) -> list[dict[str, Any]]:
    return [{"score": score, "trial": row["trial"], "tile": i, "distance": round(cell["nearest"], 4),
             "photo": cell["nearest_photo"]}
            for i, cell in enumerate(strip.cells) if "nearest" in cell and not cell.get("is_broken")]


def _copies(nearest: Sequence[dict[str, Any]], record: Record) -> dict[str, Any]:
    """The images nearest to a training photo, and the photos that they come nearest to."""
    limit = record.facts.copy_distance
    keys = {result.trial.number: record.facts.photos_of.get(result.trial.train_id, "") for result in record.results}
    photos: list[dict[str, Any]] = []
    places: dict[tuple[str, int], int] = {}

    def photo_number(image: Mapping[str, Any]) -> int | None:
        key = (keys.get(image["trial"], ""), int(image["photo"]))
        known = record.facts.photos.get(key[0], [])
        if key not in places and 0 <= key[1] < len(known):
            path = Path(known[key[1]]["path"])
            places[key] = len(photos)
            photos.append({"name": path.name, "caption": known[key[1]]["caption"], "picture": photo_thumbnail(path)})
        return places.get(key)

    pairs = sorted(nearest, key=lambda image: image["distance"])[:MAX_COPIES]
    shown = [{**pair, "photo": photo_number(pair), "is_copy": limit is not None and pair["distance"] < limit}
             for pair in pairs]
    are_copies = [image for image in nearest if limit is not None and image["distance"] < limit]
    counted = Counter(number for image in (are_copies or nearest) if (number := photo_number(image)) is not None)
    attract = [{"photo": number, "count": count} for number, count in counted.most_common(8)]
    return {"limit": limit, "num_images": len(nearest), "num_copies": len(are_copies), "pairs": shown,
            "photos": photos, "attract": attract}
