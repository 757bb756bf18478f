"""One image file: what is known of it before training, and its pixels. Imports no torch.

A size is (width, height) in pixels, upright.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.data.buckets import Fit
from sweep.files import sha256_of

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
OTHER_IMAGE_SUFFIXES = (".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jxl")
"""Pictures that are left out, and said to be."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What a look at a file found. problem: why it can't be used; "" = it can."""

    problem: str
    sha256: str = ""
    size: tuple[int, int] = (0, 0)
    notes: tuple[str, ...] = ()  # what is changed when its pixels are read
    has_alpha: bool = False


def image_facts(path: Path) -> ImageFacts:
    """Decode the whole file; a file that has not changed since is not decoded again in this process."""
    try:
        stat = path.stat()
    except OSError as error:  # also a link that leads nowhere or in a circle
        return ImageFacts(f"can't be opened ({error.strerror or error})")
    return _facts(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=65536)
def _facts(path: Path, num_bytes: int, changed_ns: int) -> ImageFacts:
    from PIL import Image

    if num_bytes == 0:
        return ImageFacts("not a readable image (the file is empty)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large, but Pillow still reads it
            with Image.open(path) as opened:
                notes = _notes(opened)
                opened.load()
                size = _upright_size(opened)
                return ImageFacts("", sha256_of(path), size, notes, opened.has_transparency_data)
    except Image.DecompressionBombError:
        return ImageFacts("far too many pixels to open safely (Pillow's limit is "
                          f"{2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} million); scale it down")
    except (OSError, ValueError, SyntaxError) as error:
        return ImageFacts(f"not a readable image ({error})")


def _notes(image: Image) -> tuple[str, ...]:
    notes = []
    if getattr(image, "is_animated", False) and image.format != "MPO":  # MPO: a phone's photo with previews
        notes.append("animated: its first frame is used")
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        notes.append(f"{image.mode} converted to RGB without its colour profile")
    if image.mode in ("P", "PA"):
        notes.append("palette converted to RGB")
    if image.mode.startswith("I"):
        notes.append("16 bits reduced to 8")
    if image.getexif().get(0x0112, 1) != 1:
        notes.append("turned upright by its EXIF flag")
    if image.has_transparency_data:
        notes.append("transparency laid over white")
    return tuple(notes)


def _upright_size(image: Image) -> tuple[int, int]:
    width, height = image.size
    return (height, width) if image.getexif().get(0x0112, 1) in (5, 6, 7, 8) else (width, height)


def open_upright(path: Path) -> Image:
    """The image as RGB: its first frame, upright, transparency laid over white, 16 bits reduced to 8."""
    from PIL import Image

    image = _upright(path)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def open_mask(path: Path, size: tuple[int, int], *, from_alpha: bool) -> Image:
    """A mask as 8-bit grey of a photo's size: the alpha channel of the photo itself, or a file's brightness."""
    from PIL import Image

    image = _upright(path)
    if from_alpha:
        if not image.has_transparency_data:
            return Image.new("L", size, 255)
        image = image.convert("RGBA").getchannel("A")
    elif image.has_transparency_data:
        image = open_upright(path)
    return image.convert("L").resize(size, Image.Resampling.BILINEAR) if image.size != size else image.convert("L")


def _upright(path: Path) -> Image:
    import numpy as np
    from PIL import Image, ImageOps

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path) as opened:
            if opened.mode.startswith("I"):  # Pillow would clip 16 bits at 255
                bytes_HW = (np.asarray(opened).astype(np.int64).clip(0, 65535) / 257).round().astype(np.uint8)
                exif = opened.getexif()
                image = Image.fromarray(bytes_HW)
                image.getexif()[0x0112] = exif.get(0x0112, 1)
                return ImageOps.exif_transpose(image)
            return ImageOps.exif_transpose(opened)


def cropped(image: Image, fit: Fit, position: float = 0.5) -> Image:
    """The part of an image that its bucket shows. position: where along the slack, 0 (left, top) to 1."""
    from PIL import Image as Pillow
    from PIL import ImageOps

    if 0 in fit.slack:  # one side just fits: scale and crop in one go
        return ImageOps.fit(image, fit.bucket, Pillow.Resampling.LANCZOS, centering=(position, position))
    if image.size != fit.resized:
        image = image.resize(fit.resized, Pillow.Resampling.LANCZOS)
    left, top = crop_corner(fit, position)
    return image.crop((left, top, left + fit.bucket[0], top + fit.bucket[1]))


def crop_corner(fit: Fit, position: float) -> tuple[int, int]:
    """(left, top) of the crop in pixels of the resized photo."""
    return int(fit.slack[0] * position), int(fit.slack[1] * position)
