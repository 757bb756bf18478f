"""Aspect-ratio buckets: photos of like shape train at one size of about resolution^2 pixels. Imports no torch.

A size is (width, height) in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sweep.data.settings import DatasetConfig, bucket_bounds

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Fit:
    """How a photo gets its size: scaled to `resized`, which is at least `bucket`, of which `bucket` is cropped."""

    bucket: Size
    resized: Size

    @property
    def slack(self) -> Size:
        """Pixels that the crop may move to the right and down."""
        return self.resized[0] - self.bucket[0], self.resized[1] - self.bucket[1]


def bucket_sizes(resolution: int, low: int, high: int, steps: int) -> list[Size]:
    """All sizes with sides from `low` to `high` in `steps` and at most resolution^2 pixels, each as large as may be.

    For each width the tallest height that fits, and the same turned; and the largest square. Sorted.
    """
    area = resolution * resolution
    square = resolution // steps * steps
    sizes = {(square, square)} if square else set()
    for side in range(low, high + 1, steps):
        other = min(high, area // side // steps * steps)
        if other >= low:
            sizes |= {(side, other), (other, side)}
    return sorted(sizes)


def nearest(sizes: Sequence[Size], photo: Size) -> Size:
    """The photo's own size if it is one of them, else the smallest difference of width / height; of two equally near
    the first."""
    if photo in sizes:
        return photo
    aspect = photo[0] / photo[1]
    return min(sizes, key=lambda size: abs(size[0] / size[1] - aspect))


def cover(photo: Size, bucket: Size) -> Fit:
    """Scaled so that the bucket is just covered."""
    scale = max(bucket[0] / photo[0], bucket[1] / photo[1])
    return Fit(bucket, (max(bucket[0], int(photo[0] * scale + 0.5)), max(bucket[1], int(photo[1] * scale + 0.5))))


def without_upscaling(photo: Size, resolution: int, steps: int) -> Fit:
    """Scaled down to at most resolution^2 pixels, never up, then cropped to multiples of `steps`.

    Of the two ways to scale down, to a width or to a height that is a multiple, the one whose bucket has the nearer
    aspect ratio is taken. A photo smaller than one step is scaled up to it: there is no smaller bucket.
    """
    width, height = photo
    resized = photo
    if width * height > resolution * resolution:
        aspect = width / height
        wide = math.sqrt(resolution * resolution * aspect)
        by_width = max(steps, _multiple(wide, steps))
        by_height = max(steps, _multiple(resolution * resolution / wide, steps))
        error_by_width = abs(by_width / max(steps, _multiple(by_width / aspect, steps)) - aspect)
        error_by_height = abs(max(steps, _multiple(by_height * aspect, steps)) / by_height - aspect)
        if error_by_width < error_by_height:
            resized = by_width, int(by_width / aspect + 0.5)
        else:
            resized = int(by_height * aspect + 0.5), by_height
    bucket = resized[0] // steps * steps, resized[1] // steps * steps
    if 0 in bucket:
        return cover(photo, (max(steps, bucket[0]), max(steps, bucket[1])))
    return Fit(bucket, resized)


def kept_share(photo: Size, bucket: Size) -> float:
    """The share of a photo's area that its bucket shows: the smaller aspect ratio over the larger."""
    a, b = photo[0] / photo[1], bucket[0] / bucket[1]
    return min(a / b, b / a)


def few_sizes(sizes: Sequence[Size], photos: Sequence[Size], shown: Sequence[int], num: int) -> list[Size]:
    """At most `num` of the sizes, such that the least of the photos is cropped away: the sum over the photos of the
    cropped share times how often each is shown is as small as it can be.

    Exact. Sizes and photos lie on a line by aspect ratio, and the cropped share grows with the distance on it; so a
    photo between two neighbouring chosen sizes belongs to one of those two, and a walk along the line with
    best[j] = the least cost of all photos before size j, with j chosen, sees every choice.
    """
    line = sorted(sizes, key=lambda size: (size[0] / size[1], size))
    weights: dict[Size, int] = {}
    for photo, count in zip(photos, shown, strict=True):
        weights[photo] = weights.get(photo, 0) + count
    aspects = [width / height for width, height in line]

    def between(left: int | None, right: int | None) -> float:
        low = aspects[left] if left is not None else 0.0
        high = aspects[right] if right is not None else math.inf
        ends = [line[i] for i in (left, right) if i is not None]
        return sum(weight * (1 - max(kept_share(photo, end) for end in ends))
                   for photo, weight in weights.items() if low < photo[0] / photo[1] <= high)

    gaps = {(i, j): between(i, j) for j in range(len(line)) for i in range(j)}
    best: list[tuple[float, tuple[int, ...]]] = [(between(None, j), (j,)) for j in range(len(line))]
    answers = [min((cost + between(chosen[-1], None), chosen) for cost, chosen in best)]
    for _ in range(1, min(num, len(line))):
        best = [min((cost + gaps[chosen[-1], j], (*chosen, j)) for cost, chosen in best if chosen[-1] < j)
                if any(chosen[-1] < j for _, chosen in best) else (math.inf, (j,)) for j in range(len(line))]
        answers.append(min((cost + between(chosen[-1], None), chosen) for cost, chosen in best))
    _, chosen = min(answers, key=lambda answer: (round(answer[0], 9), len(answer[1])))
    return sorted(line[i] for i in chosen)


def lay_out(config: DatasetConfig, resolution: int, photos: Sequence[Size], shown: Sequence[int]) -> list[Fit]:
    """How each photo is scaled and cropped. shown: how often an epoch shows each.

    Without buckets all are squares. With `num_buckets` a photo goes where the least of it is cropped, else to the
    nearest aspect ratio.
    """
    if not config.enable_bucket:
        return [cover(photo, (resolution, resolution)) for photo in photos]
    low, high, steps = bucket_bounds(config, resolution)
    if config.bucket_no_upscale:
        return [without_upscaling(photo, resolution, steps) for photo in photos]
    sizes = bucket_sizes(resolution, low, high, steps)
    if config.num_buckets is None:
        return [cover(photo, nearest(sizes, photo)) for photo in photos]
    few = few_sizes(sizes, photos, shown, config.num_buckets)
    return [cover(photo, max(few, key=lambda size: kept_share(photo, size))) for photo in photos]


def _multiple(length: float, steps: int) -> int:
    return int(length + 0.5) // steps * steps
