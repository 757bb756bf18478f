"""The head in a photograph, by the landmarks of its face: where `dataset.mask=head` lets the loss count.

Needs the extra `dlib`. Imports no torch. Lengths are pixels of the upright photo.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.data.dlib_models import INSTALL, FaceFinder, usable_folder
from sweep.data.images import open_upright
from sweep.errors import DataError
from sweep.files import stable_hash

if TYPE_CHECKING:
    from PIL.Image import Image

DETECTED_SIDE = 800  # pixels of the longer side at which faces are looked for, doubled once by the detector
MIN_CONFIDENCE = 0.3  # of dlib's detector: below, patterns on clothes pass for faces

HALF_WIDTH, HALF_HEIGHT = 1.6, 2.2
"""The head with its hair as an ellipse around the middle of the eyes, in distances between the eyes. Those are about
63 mm, a head is 150 by 230 mm with the eyes at half its height; the rest is hair."""
EYES_TO_NOSE = 0.75  # from the eyes' middle to the nose's base, in distances between the eyes
_SMOOTH = 4  # the ellipse is drawn so many times larger, for a soft rim


@dataclass(frozen=True, slots=True)
class Head:
    """An ellipse that holds face, ears and hair. angle: of its long axis from upright, in radians, clockwise."""

    centre: tuple[float, float]
    half_width: float
    half_height: float
    angle: float

    @property
    def identity(self) -> str:
        """Changes with what the mask shows, to a tenth of a pixel."""
        return stable_hash(["head", *(round(value, 1) for value in (*self.centre, self.half_width, self.half_height)),
                            round(self.angle, 3)])


def find_head(photo: Path) -> Head | None:
    """The head of the face that the detector is surest of; None if it sees none.

    Raises DataError if the detector is not installed.
    """
    stat = photo.stat()
    return _find_head(photo, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4096)
def _find_head(photo: Path, num_bytes: int, changed_ns: int) -> Head | None:
    import numpy as np

    finder = _face_finder()
    image = open_upright(photo)
    scale = min(1.0, DETECTED_SIDE / max(image.size))
    small = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    found = finder.found(np.asarray(small), MIN_CONFIDENCE)
    if not found:
        return None
    _, landmarks = found[0]
    points = [(point.x / scale, point.y / scale) for point in landmarks.parts()]
    return head_around(points)


def head_around(points: list[tuple[float, float]]) -> Head:
    """From the five landmarks: two corners of one eye, two of the other, the nose's base.

    On a face turned aside the eyes come together, on one that nods the nose comes nearer; the longer of the two sets
    the size.
    """
    one, other = (tuple((a + b) / 2 for a, b in zip(points[i], points[i + 1], strict=True)) for i in (0, 2))
    left, right = sorted((one, other))
    centre = (left[0] + right[0]) / 2, (left[1] + right[1]) / 2
    nose = math.dist(centre, points[4])
    unit = max(math.dist(left, right), nose / EYES_TO_NOSE)
    angle = math.atan2(right[1] - left[1], right[0] - left[0])
    return Head(centre, HALF_WIDTH * unit, HALF_HEIGHT * unit, angle)


def head_mask(head: Head, size: tuple[int, int]) -> Image:
    """8-bit grey of a photo's size: white within the head."""
    from PIL import Image, ImageDraw

    shrink = max(1.0, max(size) / 512)  # a mask is averaged over latents of 8 pixels; more detail is not seen
    width, height = (max(1, round(side / shrink)) for side in size)
    large = Image.new("L", (width * _SMOOTH, height * _SMOOTH), 0)
    factor = _SMOOTH / shrink
    cos, sin = math.cos(head.angle), math.sin(head.angle)
    rim = []
    for step in range(180):
        turn = step * math.tau / 180
        x, y = head.half_width * math.cos(turn), head.half_height * math.sin(turn)
        rim.append(((head.centre[0] + x * cos - y * sin) * factor, (head.centre[1] + x * sin + y * cos) * factor))
    ImageDraw.Draw(large).polygon(rim, fill=255)
    return large.resize((width, height), Image.Resampling.BOX).resize(size, Image.Resampling.BILINEAR)


@lru_cache(maxsize=1)
def _face_finder() -> FaceFinder:
    folder = usable_folder()
    if folder is None:
        raise DataError("dataset.mask=head finds heads in photographs with dlib and the landmark model of "
                        f"face_recognition_models: {INSTALL}. Or give masks of your own with "
                        "dataset.masked_loss=folder dataset.mask_dir=FOLDER.")
    return FaceFinder(folder)
