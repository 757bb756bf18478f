"""dlib's detector, landmarks and recogniser for faces in photographs: where they lie and what they say.

Needs the extra `dlib`; asking where they are does not. Imports no torch.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LANDMARKS = "shape_predictor_5_face_landmarks.dat"
"""Four corners of the eyes and the nose's base. The 68-point predictor beside it forbids commercial use and is never
touched."""
RECOGNISER = "dlib_face_recognition_resnet_model_v1.dat"
DLIB_FILES = (LANDMARKS, RECOGNISER)
INSTALL = "pip install 'lora-sweep[dlib]'"
SAME_PERSON = 0.91
"""Cosine from which on two faces are one person's. King 2009 says so below a distance of 0.6 between embeddings, which
are 1.38 long (mean of 89 faces of skimage.data's; 1.28 to 1.50): 1 - 0.6^2 / (2 * 1.38^2) = 0.906."""
UPSAMPLE = 1  # the picture is doubled once; the detector then finds faces from 40 pixels on


def is_installed() -> bool:
    return importlib.util.find_spec("dlib") is not None


def models_folder() -> Path | None:
    """Of the package face_recognition_models; None without it. Found, not imported: its import needs pkg_resources,
    which new setuptools lack."""
    spec = importlib.util.find_spec("face_recognition_models")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "models"


def usable_folder() -> Path | None:
    """The models' folder if dlib is there to read them and nothing is missing."""
    folder = models_folder() if is_installed() else None
    return folder if folder is not None and all((folder / name).is_file() for name in DLIB_FILES) else None


class FaceFinder:
    """King 2009's detector, and the landmarks of what it finds."""

    def __init__(self, folder: Path):
        """Raises ModelError naming the folder if a model in it can't be read."""
        import dlib

        self._detector: Any = dlib.get_frontal_face_detector()
        self._landmarks: Any = _read(dlib.shape_predictor, folder / LANDMARKS)

    def found(self, pixels_HWC: NDArray[np.uint8], min_confidence: float) -> list[tuple[Any, Any]]:
        """dlib's rectangle and its landmarks for each face, the surest first."""
        boxes, confidences, _ = self._detector.run(pixels_HWC, UPSAMPLE, min_confidence)
        surest = sorted(range(len(boxes)), key=lambda i: -confidences[i])
        return [(boxes[i], self._landmarks(pixels_HWC, boxes[i])) for i in surest]


class FaceRecogniser:
    """With King's ResNet; good for near-frontal photos."""

    def __init__(self, folder: Path):
        import dlib

        self._finder = FaceFinder(folder)
        self._recogniser: Any = _read(dlib.face_recognition_model_v1, folder / RECOGNISER)

    def found(self, pixels_HWC: NDArray[np.uint8], min_confidence: float) -> list[tuple[Any, NDArray[np.float64]]]:
        """dlib's rectangle and the embedding, [128], of each face, the surest first."""
        import numpy as np

        return [(box, np.array(self._recogniser.compute_face_descriptor(pixels_HWC, points)))
                for box, points in self._finder.found(pixels_HWC, min_confidence)]


def _read(kind: Callable[[str], Any], path: Path) -> Any:
    try:
        return kind(str(path))
    except RuntimeError as error:
        raise ModelError(f"dlib can't read its models in {path.parent}: {error}") from error
