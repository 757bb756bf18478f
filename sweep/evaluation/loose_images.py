"""`python evaluate.py images=FOLDER`: score images that exist already, with what can be known without prompts or base.

One subfolder for each LoRA, or the folder itself as one. Likeness is raw, beside what real photos reach; there is no
floor without a base, so nothing is normalised and no usefulness is named.
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.comparison import Interval, jackknife_interval
from sweep.data.images import IMAGE_SUFFIXES, image_facts
from sweep.errors import DataError
from sweep.evaluation.cells import Cell
from sweep.evaluation.copy_report import write_copy_report
from sweep.evaluation.intervals import rate_interval
from sweep.evaluation.memorisation import memo_rate
from sweep.files import write_text

if TYPE_CHECKING:
    from sweep.evaluation.measure import Observer


@dataclass(frozen=True, slots=True)
class ImageSet:
    """One LoRA's images. likeness: mean cosine to the photos' faces over images with a face."""

    name: str
    num_images: int
    num_broken: int
    likeness: float | None
    likeness_interval: Interval
    detect_rate: float | None  # this and all below: None where no image is whole
    memo_rate: float | None
    memo_interval: Interval
    diversity: float | None
    clipped: float | None


def find_images(folder: str) -> dict[str, list[Path]]:
    """Image files by subfolder; those of the folder itself under its own name and a slash, as a subfolder may be called
    alike. Raises DataError if there are none."""
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise DataError(f"images={folder} is not a folder. Give one with a subfolder of images for each LoRA.")
    subfolders = sorted(place for place in root.iterdir() if place.is_dir())
    places = {f"{root.resolve().name}/": root, **{place.name: place for place in subfolders}}
    found = {name: files for name, place in places.items()
             if (files := sorted(f for f in place.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES))}
    if not found:
        raise DataError(f"images={folder} holds no images ({', '.join(IMAGE_SUFFIXES)}), neither itself nor in its "
                        "subfolders.")
    problems = [f"{path}: {problem}" for files in found.values() for path in files
                if (problem := image_facts(path).problem)]
    if problems:
        raise DataError("Images that can't be read:\n  " + "\n  ".join(problems))
    return found


def score_images(sets: dict[str, list[Path]], observer: Observer, folder: Path) -> list[ImageSet]:
    """Measured sets, the best likeness first; a copy report for each, and table.csv."""
    import torch

    from sweep.data.cache import load_pixels

    scored = []
    for name, paths in sets.items():
        images = torch.stack([load_pixels(path, observer.resolution) for path in paths])
        cells = [Cell("prompt", 0, i, path.name, "") for i, path in enumerate(paths)]
        measured = observer.look(images, cells)
        whole = [m for m in measured.images if not m.is_broken]
        faces = [m.face for m in whole if m.face is not None]
        copies = [m.nearest for m in whole]
        limit = observer.scoring.copies.copy_distance
        mean = statistics.fmean(faces) if faces else None
        scored.append(ImageSet(
            name=name, num_images=len(paths), num_broken=len(paths) - len(whole), likeness=mean,
            likeness_interval=_mean_interval(faces), detect_rate=len(faces) / len(whole) if whole else None,
            memo_rate=memo_rate(copies, limit) if copies else None,
            memo_interval=rate_interval(sum(d < limit for d in copies), len(copies)),
            diversity=measured.variety.get(0),
            clipped=statistics.fmean(m.look["clipped"] for m in whole) if whole else None))
        photos = [photo.path for photo in observer.dataset.photos]
        report = "copies.html" if name.endswith("/") else f"{name}-copies.html"
        write_copy_report(folder / report, images, cells, measured.images, photos, limit, name)
    scored.sort(key=lambda row: -1.0 if row.likeness is None else row.likeness, reverse=True)
    write_text(folder / "table.csv", _csv(scored))
    return scored


def _mean_interval(values: Sequence[float]) -> Interval:
    """By a t over images: they are the random thing here, nothing says which prompt they share."""
    if len(values) < 2:
        return Interval(None, None, len(values), "an interval needs at least 3 images with a face")
    total = sum(values)
    return jackknife_interval(total / len(values), [(total - value) / (len(values) - 1) for value in values])


def _csv(scored: Sequence[ImageSet]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["name", "num_images", "num_broken", "likeness_raw", "likeness_low", "likeness_high", "detect_rate",
                     "memo_rate", "memo_rate_low", "memo_rate_high", "diversity_raw", "clipped"])
    for row in scored:
        numbers = [row.likeness, row.likeness_interval.low, row.likeness_interval.high, row.detect_rate, row.memo_rate,
                   row.memo_interval.low, row.memo_interval.high, row.diversity, row.clipped]
        writer.writerow([row.name, row.num_images, row.num_broken, *("" if x is None else f"{x:.4f}" for x in numbers)])
    return buffer.getvalue()
