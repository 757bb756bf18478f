"""Tags by an ONNX tagger of the WD14 kind: `model.onnx` beside `selected_tags.csv`, as SmilingWolf publishes them.

Its picture: square, white beside what is not square, [1, side, side, 3] as BGR of 0 to 255. Its answer: a probability
per row of the table, whose categories are 0 general, 4 characters, 9 ratings.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.data.caption.models import model_folder
from sweep.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

EXAMPLE = "SmilingWolf/wd-vit-tagger-v3"
MODEL, TABLE = "model.onnx", "selected_tags.csv"
_GENERAL, _CHARACTER = 0, 4
_FACE_MARK_CHARS = 3  # of Danbooru's ":d", "^_^" and "o_o", whose underscore is part of the mark


@dataclass(frozen=True, slots=True)
class Tag:
    name: str  # as people write it, "blue hair"
    category: int


class Tagger:
    """threshold: probability from which on a tag is said; characters have their own."""

    def __init__(self, given: str, *, threshold: float, character_threshold: float, download: bool = False) -> None:
        """Raises ModelError if the folder is missing or not whole, or its parts don't belong together."""
        folder = model_folder(given, (MODEL, TABLE), download=download, example=EXAMPLE)
        self._tags = read_tags(folder / TABLE)
        self._session: Any = _session(folder / MODEL)
        picture, answer = self._session.get_inputs()[0], self._session.get_outputs()[0]
        if len(picture.shape) != 4 or picture.shape[3] != 3 or picture.shape[1] != picture.shape[2]:
            raise ModelError(f"{folder / MODEL} takes {picture.shape}; a tagger of this kind takes [1, side, side, 3].")
        if answer.shape[-1] != len(self._tags):
            raise ModelError(f"{folder}: {MODEL} answers with {answer.shape[-1]} probabilities, {TABLE} has "
                             f"{len(self._tags)} tags; they are not of one model.")
        self._input, self._side = picture.name, int(picture.shape[1])
        self._thresholds = {_GENERAL: threshold, _CHARACTER: character_threshold}

    def __call__(self, image: Image) -> str:
        """Tags between commas, the surest first."""
        probabilities = self._session.run(None, {self._input: picture_of(image, self._side)})[0][0]
        said = [(float(p), tag.name) for p, tag in zip(probabilities, self._tags, strict=True)
                if p >= self._thresholds.get(tag.category, 2.0)]
        return ", ".join(name for _, name in sorted(said, key=lambda row: -row[0]))


def read_tags(path: Path) -> Sequence[Tag]:
    """Raises ModelError for another kind of table."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [Tag(_as_written(row["name"]), int(row["category"])) for row in csv.DictReader(file)]
    except (KeyError, ValueError, TypeError) as error:
        raise ModelError(f"{path} is no table of tags with the columns tag_id, name, category, count: {error}"
                         ) from error


def picture_of(image: Image, side: int) -> NDArray[np.float32]:
    """[1, side, side, 3], BGR, 0 to 255."""
    import numpy as np
    from PIL import Image as Pillow

    square = Pillow.new("RGB", (max(image.size),) * 2, "white")
    square.paste(image, ((square.width - image.width) // 2, (square.height - image.height) // 2))
    pixels = np.asarray(square.resize((side, side), Pillow.Resampling.BICUBIC), dtype=np.float32)
    return np.ascontiguousarray(pixels[None, :, :, ::-1])


def _as_written(name: str) -> str:
    return name if len(name) <= _FACE_MARK_CHARS else name.replace("_", " ")


def _session(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError("--tagger needs the package onnxruntime, which is not installed: "
                         "pip install 'lora-sweep[tagger]'.") from error
    try:
        return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own errors share no base
        raise ModelError(f"{path} can't be read as ONNX: {error}") from error
