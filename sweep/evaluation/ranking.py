"""Scored files as a ranking: a table, a CSV, and one sentence that names the file."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from sweep.comparison import Interval
from sweep.evaluation.loose_images import ImageSet
from sweep.framings import framing_words
from sweep.trial import AXES, Answer, Score


def rank(scores: Sequence[Score], answer: Answer) -> list[Score]:
    """The named file first, then by mean - 1 standard error of the screening."""
    from sweep.evaluation.choice import best_of

    order = [scores[i] for i in best_of(scores, len(scores))]
    return sorted(order, key=lambda score: score.file_sha256 != answer.score.file_sha256)


def table_csv(ranked: Sequence[Score], answer: Answer) -> str:
    """One row per file from the screening, and the named one's own measurement as the last row."""
    names = ["rank", "file", "epoch", "step", "strength", "guidance_scale", "stage",
             *(f"{axis}{suffix}" for axis in AXES for suffix in ("", "_low", "_high")), "verdict", "notes"]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    rows = [(str(place), score) for place, score in enumerate(ranked, start=1)]
    for place, score in [*rows, ("answer", answer.score)]:
        axes = [_cell(value) for axis in AXES for value in
                (score.axes[axis].value, score.axes[axis].low, score.axes[axis].high)]
        guidance = "" if score.guidance_scale is None else score.guidance_scale
        writer.writerow([place, score.file, score.epoch, score.step, score.strength, guidance, score.stage, *axes,
                         score.verdict, "; ".join(score.notes)])
    return buffer.getvalue()


def ranking_table(ranked: Sequence[Score]) -> tuple[str, list[str], list[list[str]]]:
    """A title, the columns' names, and a row for each file."""
    header = ["", "file", "likeness", "adherence", "memorisation", "usefulness", "verdict"]
    rows = [[str(place), score.file, *(_shown(score, axis) for axis in header[2:6]), score.verdict]
            for place, score in enumerate(ranked, start=1)]
    title = f"{len(ranked)} files on {ranked[0].num_images} images each, at strength 1 (value, 90 % interval)"
    return title, header, rows


def answer_text(answer: Answer) -> str:
    """A sentence that names the file, and lines with the reason and what else is known of it."""
    final = answer.score
    fresh = f"; on {final.num_images} fresh images: " if final.stage == "confirm" else ": "
    by_framing = framing_words(final)
    return (f"Use {answer.file} at strength {answer.at}{fresh}usefulness {_shown(final, 'usefulness')}, "
            f"{final.verdict}.\n{answer.reason}." + (f"\nIts {by_framing}." if by_framing else ""))


def show(ranked: Sequence[Score], answer: Answer) -> None:
    """Print the table and the sentence that names the file."""
    _print_table(*ranking_table(ranked))
    print(f"\n{answer_text(answer)}")


def show_images(scored: Sequence[ImageSet], ceiling: Sequence[float], folder: Path) -> None:
    """Print what is known of images without prompts."""
    real = f"{sum(ceiling) / len(ceiling):.2f}" if ceiling else "?"
    header = ["", "images", "likeness", "faces found", "copies", "diversity"]
    rows = [[row.name, str(row.num_images), _with_bounds(row.likeness, row.likeness_interval),
             "?" if row.detect_rate is None else f"{row.detect_rate:.0%}",
             _with_bounds(row.memo_rate, row.memo_interval), "?" if row.diversity is None else f"{row.diversity:.2f}"]
            for row in scored]
    _print_table(f"raw likeness, real photos reach {real} (value, 90 % interval)", header, rows)
    print(f"Adherence, bleed, burn and usefulness need the prompts and the base: use lora=... for them.\n"
          f"Table and copy reports: {folder}")


def _print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(*header, title=title)
        for row in rows:
            table.add_row(*row)
        Console().print(table)
        return
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    print(title)
    for row in [header, *rows]:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _with_bounds(value: float | None, interval: Interval) -> str:
    if value is None:
        return "?"
    if interval.low is None or interval.high is None:
        return f"{value:.2f}"
    return f"{value:.2f} ({interval.low:.2f} to {interval.high:.2f})"


def _shown(score: Score, axis: str) -> str:
    estimate = score.axes[axis]
    if estimate.value is None:
        return "?"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.2f}"
    return f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
