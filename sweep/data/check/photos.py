"""What the photos look like: number, size, sharpness, light, copies, shape and background. Imports no torch.

Shapes: N photos, H W pixels.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.data.buckets import kept_share, lay_out
from sweep.data.check.findings import (
    BUCKETS,
    COPIES,
    CROP,
    NUMBER_OF_PHOTOS,
    QUALITY,
    VARIETY,
    Finding,
    listed,
)
from sweep.data.dataset import Photo
from sweep.data.images import open_upright
from sweep.data.settings import DatasetConfig

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

FEW, MANY = 20, 50
HARDLY_ANY = 5
WORKING_SIDE = 512  # pixels of the shorter side that photos are looked at; smaller ones as they are
HASH_SIDE = 32
QUARTER_SIDE = 128
NEAR_COPY_BITS = 6
"""Of 64. Of the 2,400 pairs of photos of eight rendered subjects, mirrored or not, the nearest differ in 10;
recompressed and brightened copies in 0 to 4, cropped by a sixtieth on all sides in 3 to 10."""
DARK, BRIGHT = 40.0, 215.0  # mean of 0 to 255
CLIPPED_FRAC = 0.5  # of the pixels at either end
FLAT = 12.0  # standard deviation of brightness
SAME_BACKGROUND = 0.25  # half the L1 distance of two colour histograms, 0 to 1
SAME_LIGHT = 6.0  # standard deviation over the photos of their mean brightness
LEAST_KEPT = 0.6  # share of a photo that its crop should show
MANY_BUCKETS = 5


@dataclass(frozen=True, slots=True)
class Look:
    """One photo, looked at."""

    name: str
    size: tuple[int, int]
    blur: float  # Crete et al. 2007, 0 sharp to 1 blurred, of the sharpest quarter: a soft background is no fault
    brightness: float
    contrast: float
    clipped_frac: float
    bits: NDArray[np.bool_]  # perceptual hash
    mirrored_bits: NDArray[np.bool_]
    border: NDArray[np.float64]  # colour histogram of its rim, sums to 1


def look_at(photos: Sequence[Photo]) -> list[Look]:
    """Read every photo once."""
    return [_look(photo.path) for photo in photos]


def photo_findings(photos: Sequence[Photo], looks: Sequence[Look], config: DatasetConfig, resolution: int,
                   *, is_style: bool = False) -> list[Finding]:
    """resolution: pixels that the base is trained at."""
    return [*number_and_size(photos, config, resolution, is_style=is_style), *_sharpness(looks), *_light(looks),
            *_copies(looks), *_variety(looks)]


def number_and_size(photos: Sequence[Photo], config: DatasetConfig, resolution: int,
                    *, is_style: bool = False) -> list[Finding]:
    """What can be told without looking at pixels."""
    found = []
    num, (few, many) = len(photos), (50, 200) if is_style else (FEW, MANY)
    if num < few:
        found.append(Finding(
            kind="few_photos", topic="photos", level="problem" if num < HARDLY_ANY else "advice",
            advice=NUMBER_OF_PHOTOS,
            text=f"{num} photos; advised are {few} to {many}. Add photos that differ from these, or expect that poses, "
                 "clothes and places of these few come back."))
    elif num > many:
        found.append(Finding(kind="many_photos", topic="photos", level="note", advice=NUMBER_OF_PHOTOS,
                             text=f"{num} photos; {few} to {many} are usual. More do no harm if they are as good; "
                                  "lower the repeats to keep the number of steps."))
    small = [photo for photo in photos if min(photo.size) < resolution]
    if small:
        sizes = ", ".join(f"{p.path.name} {p.size[0]}x{p.size[1]}" for p in small[:3])
        found.append(Finding(
            kind="low_resolution", topic="photos", level="advice", advice=QUALITY, photos=_names(small),
            text=f"{len(small)} photos are smaller than the training's {resolution} pixels and would be enlarged "
                 f"({sizes}{', ...' if len(small) > 3 else ''}). Find larger ones, or upscale them with a good model."))
    return [*found, *_shapes(photos, config, resolution)]


def _shapes(photos: Sequence[Photo], config: DatasetConfig, resolution: int) -> list[Finding]:
    fits = lay_out(config, resolution, [photo.size for photo in photos], [photo.repeats for photo in photos])
    cut = [photo for photo, fit in zip(photos, fits, strict=True) if kept_share(photo.size, fit.bucket) < LEAST_KEPT]
    found = []
    if cut:
        how = ("Crop them yourself around the subject" if config.enable_bucket
               else "Crop them yourself around the subject, or set dataset.enable_bucket=true")
        found.append(Finding(
            kind="cropped", topic="photos", level="advice", advice=CROP, photos=_names(cut),
            text=f"{len(cut)} photos lose more than {1 - LEAST_KEPT:.0%} of their area to the centre crop. {how}."))
    buckets = Counter(fit.bucket for fit in fits)
    if len(buckets) > MANY_BUCKETS:
        found.append(Finding(
            kind="many_buckets", topic="photos", level="note", advice=BUCKETS,
            text=f"the photos fall into {len(buckets)} sizes; dataset.num_buckets=5 picks the five that cut off "
                 "least."))
    return found


def _sharpness(looks: Sequence[Look]) -> list[Finding]:
    blurred = [look for look in looks if look.blur > blur_limit(min(look.size))]
    if not blurred:
        return []
    worst = max(blurred, key=lambda look: look.blur)
    return [Finding(kind="blurred", topic="photos", level="problem", advice=QUALITY, photos=_look_names(blurred),
                    text=f"{len(blurred)} photos are blurred all over (blur {worst.blur:.2f} on a scale of 0 to 1, "
                         f"sharp ones of this size stay below {blur_limit(min(worst.size)):.2f}): leave them out; "
                         "softness is learned too.")]


def blur_limit(short_side: int) -> float:
    """What sharp photos stay below. Measured: 200 rendered photos of 64 pixels 0.18 to 0.44, under a Gaussian of 2
    pixels 0.47 to 0.75; five photographs at 512 pixels 0.40 to 0.51, under one of 2 pixels 0.69 to 0.73."""
    octaves = math.log2(min(max(short_side, 64), WORKING_SIDE) / 64)
    return 0.45 + 0.05 * octaves


def _light(looks: Sequence[Look]) -> list[Finding]:
    odd = {"too dark": [k for k in looks if k.brightness < DARK],
           "too bright": [k for k in looks if k.brightness > BRIGHT],
           "without contrast": [k for k in looks if k.contrast < FLAT],
           "blown out or black in most places": [k for k in looks if k.clipped_frac > CLIPPED_FRAC]}
    found, said = [], set[str]()
    for word, those in odd.items():
        names = [name for name in _look_names(those) if name not in said]
        said |= set(names)
        if names:
            found.append(Finding(kind="exposure", topic="photos", level="advice", advice=QUALITY, photos=tuple(names),
                                 text=f"{len(names)} photos are {word}: correct or leave out."))
    return found


def _copies(looks: Sequence[Look]) -> list[Finding]:
    """Groups of photos that are nearly the same, mirrored or not."""
    group = list(range(len(looks)))
    for i, a in enumerate(looks):
        for j in range(i):
            b = looks[j]
            bits = min(int((a.bits != b.bits).sum()), int((a.mirrored_bits != b.bits).sum()))
            if bits <= NEAR_COPY_BITS:
                group = [group[j] if g == group[i] else g for g in group]
    members: dict[int, list[str]] = {}
    for look, number in zip(looks, group, strict=True):
        members.setdefault(number, []).append(look.name)
    return [Finding(kind="near_duplicates", topic="photos", level="problem", advice=COPIES, photos=tuple(names),
                    text=f"{listed(names)} are nearly the same picture: keep the best one; it counts {len(names)} "
                         "times as it is, and what is seen more often is memorised first.")
            for names in members.values() if len(names) > 1]


def _variety(looks: Sequence[Look]) -> list[Finding]:
    import numpy as np

    if len(looks) < HARDLY_ANY:
        return []
    found = []
    rims = np.stack([look.border for look in looks])
    distances = np.abs(rims[:, None] - rims[None]).sum(-1) / 2
    median = float(np.median(distances[np.triu_indices(len(looks), 1)]))
    if median < SAME_BACKGROUND:
        found.append(Finding(
            kind="same_background", topic="photos", level="advice", advice=VARIETY,
            text=f"the backgrounds are nearly all alike (median difference of their colours {median:.2f}, different "
                 f"places have more than {SAME_BACKGROUND}): take photos in other places, or the background becomes "
                 "part of the subject."))
    spread = float(np.std([look.brightness for look in looks]))
    if spread < SAME_LIGHT:
        found.append(Finding(
            kind="same_light", topic="photos", level="advice", advice=VARIETY,
            text=f"all photos have the same light (their mean brightness varies by {spread:.1f} of 255): take some at "
                 "another time or place."))
    return found


def _look(path: Path) -> Look:
    import numpy as np
    from PIL import Image as Pillow

    image = open_upright(path)
    size = image.size
    scale = WORKING_SIDE / min(size)
    if scale < 1:
        image = image.resize((round(size[0] * scale), round(size[1] * scale)), Pillow.Resampling.BOX)
    grey_HW = np.asarray(image.convert("L"), dtype=np.float64)
    clipped = float(((grey_HW <= 2) | (grey_HW >= 253)).mean())
    return Look(name=path.name, size=size, blur=_blur(grey_HW), brightness=float(grey_HW.mean()),
                contrast=float(grey_HW.std()), clipped_frac=clipped, bits=_hash(image),
                mirrored_bits=_hash(image.transpose(Pillow.Transpose.FLIP_LEFT_RIGHT)), border=_rim(np.asarray(image)))


def _blur(grey_HW: NDArray[np.float64]) -> float:
    """Of the whole picture, or of its sharpest quarter where a quarter is large enough to tell."""
    from skimage.measure import blur_effect

    half_h, half_w = grey_HW.shape[0] // 2, grey_HW.shape[1] // 2
    parts = [grey_HW]
    if min(half_h, half_w) >= QUARTER_SIDE:
        parts += [grey_HW[top:top + half_h, left:left + half_w] for top in (0, half_h) for left in (0, half_w)]
    return min((float(blur_effect(part / 255)) for part in parts if part.std() > 1), default=1.0)


def _hash(image: Image) -> NDArray[np.bool_]:
    """Zauner 2010, 3.2.1: the signs of the lowest 8 x 8 cosine coefficients against their median."""
    import numpy as np
    from PIL import Image as Pillow
    from scipy.fft import dctn

    grey = np.asarray(image.convert("L").resize((HASH_SIDE, HASH_SIDE), Pillow.Resampling.LANCZOS), dtype=np.float64)
    low = dctn(grey, norm="ortho")[:8, :8].flatten()
    bits: NDArray[np.bool_] = low > np.median(low)
    return bits


def _rim(pixels_HWC: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Colours of the outer sixth at the left, the right and the top, where the subject seldom is: 4 x 4 x 4 bins."""
    import numpy as np

    height, width = pixels_HWC.shape[:2]
    side, top = max(1, width // 6), max(1, height // 6)
    parts = (pixels_HWC[:, :side], pixels_HWC[:, width - side:], pixels_HWC[:top, side:width - side])
    rim = np.concatenate([part.reshape(-1, 3) for part in parts])
    bins = rim // 64 @ np.array([16, 4, 1])
    counts = np.bincount(bins, minlength=64).astype(np.float64)
    share: NDArray[np.float64] = counts / counts.sum()
    return share


def _names(photos: Sequence[Photo]) -> tuple[str, ...]:
    return tuple(photo.path.name for photo in photos)


def _look_names(looks: Sequence[Look]) -> tuple[str, ...]:
    return tuple(look.name for look in looks)
