"""Which photos, how often: subsets of a folder and the matching of regularisation images. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sweep.files import stable_hash

if TYPE_CHECKING:
    from sweep.data.dataset import Photo


def fair_share(photos: Sequence[Photo], num: int | None) -> list[Photo]:
    """`num` photos in their order: the first of each subset, then the second of each... A smaller number is part of a
    larger one; null = all."""
    place: dict[str, int] = {}
    ranked = []
    for i, photo in enumerate(photos):
        place[photo.subset] = place.get(photo.subset, -1) + 1
        ranked.append((place[photo.subset], i))
    return [photos[i] for i in sorted(i for _, i in sorted(ranked)[:num])]


def repeated_to(images_per_epoch: int | None, photos: Sequence[Photo]) -> list[Photo]:
    """Each subset's photos repeated so often that an epoch shows about so many of them; null = as they are."""
    if images_per_epoch is None:
        return list(photos)
    counts = Counter(photo.subset for photo in photos)
    return [replace(photo, repeats=max(1, round(images_per_epoch / counts[photo.subset]))) for photo in photos]


def split_by_content(photos: Sequence[Photo], share: float) -> tuple[list[Photo], list[Photo]]:
    """(photos to train on, photos for validation). Decided by the hash of each file's content: copies of a photo fall
    on one side, whatever they are called and wherever they lie. At least one photo stays on each side if share > 0."""
    contents = sorted({photo.sha256 for photo in photos}, key=lambda sha256: stable_hash(["validation", sha256]))
    num = min(max(1, round(len(contents) * share)), len(contents) - 1) if share > 0 else 0
    kept = set(contents[:num])
    return [p for p in photos if p.sha256 not in kept], [p for p in photos if p.sha256 in kept]


def matched(reg_photos: Sequence[Photo], num_shown: int) -> list[Photo]:
    """Regularisation images with such repeats that an epoch shows as many of them as training photos.

    As in sd-scripts: in the order of their names each counts its folder's repeats until `num_shown` is reached (the
    last may go beyond it; those behind it are not used); if they are fewer, each in turn gets one more until it is.
    """
    repeats = [0] * len(reg_photos)
    total = 0
    for i, photo in enumerate(reg_photos):
        if total >= num_shown:
            break
        repeats[i] = photo.repeats
        total += photo.repeats
    for turn in range(max(0, num_shown - total) if reg_photos else 0):
        repeats[turn % len(reg_photos)] += 1
    return [replace(photo, repeats=count) for photo, count in zip(reg_photos, repeats, strict=True) if count]
