"""Face recognisers for real photographs: dlib's ResNet, and InsightFace's or AuraFace's ONNX models.

Shapes: B images, F faces of one image, D width of an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.errors import ModelError
from sweep.evaluation.backends.interface import Faces

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from sweep.data.dlib_models import FaceRecogniser


def pixels_of(image_CHW: Tensor) -> NDArray[np.uint8]:
    """[H, W, C] bytes, as these libraries read images."""
    import numpy as np

    pixels = (image_CHW.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return np.ascontiguousarray(pixels)


def faces_of(boxes: Sequence[Sequence[float]], embeddings: Sequence[Any], width: int) -> Faces:
    """Sorted by size, embeddings at unit norm."""
    import numpy as np
    import torch

    if not boxes:
        return Faces(torch.zeros(0, 4), torch.zeros(0, width))
    boxes_F4 = torch.tensor([list(map(float, box)) for box in boxes])
    areas_F = (boxes_F4[:, 2] - boxes_F4[:, 0]) * (boxes_F4[:, 3] - boxes_F4[:, 1])
    order = areas_F.argsort(descending=True, stable=True)
    embeddings_FD = torch.from_numpy(np.stack([np.asarray(e, dtype=np.float32) for e in embeddings]))
    return Faces(boxes_F4[order], torch.nn.functional.normalize(embeddings_FD, dim=1)[order])


@dataclass(slots=True)
class DlibFace:
    """Of photographs."""

    recogniser: FaceRecogniser
    min_confidence: float
    WIDTH = 128
    SAME_FACE = 0.91  # the model's own distance of .6

    def faces(self, images_BCHW: Tensor) -> list[Faces]:
        return [self._faces(pixels_of(image)) for image in images_BCHW]

    def _faces(self, pixels: NDArray[np.uint8]) -> Faces:
        found = self.recogniser.found(pixels, self.min_confidence)
        return faces_of([(box.left(), box.top(), box.right() + 1, box.bottom() + 1) for box, _ in found],
                        [embedding for _, embedding in found], self.WIDTH)


@dataclass(slots=True)
class InsightFace:
    """SCRFD (Guo et al. 2021) finds faces, ArcFace (Deng et al. 2019) tells whose they are."""

    detector: Any
    recogniser: Any
    side: int
    SAME_FACE = 0.35  # a proposal: verification thresholds of ArcFace models lie at .3 to .4

    def faces(self, images_BCHW: Tensor) -> list[Faces]:
        return [self._faces(pixels_of(image)[:, :, ::-1].copy()) for image in images_BCHW]

    def _faces(self, pixels_bgr: NDArray[np.uint8]) -> Faces:
        from insightface.utils import face_align

        boxes, points = self.detector.detect(pixels_bgr, input_size=(self.side, self.side))
        size = self.recogniser.input_size[0]
        crops = [face_align.norm_crop(pixels_bgr, landmark=point, image_size=size) for point in points]
        embeddings = [self.recogniser.get_feat(crop).flatten() for crop in crops]
        return faces_of([box[:4] for box in boxes], embeddings, int(self.recogniser.output_shape[-1]))


def load_insightface(files: Sequence[Path], min_confidence: float, side: int = 640) -> InsightFace:
    """files: .onnx files of which one detects (5 outputs and more) and one recognises (112 x 112 pixels in).

    Raises ModelError naming the folder if either is missing.
    """
    from insightface.model_zoo import model_zoo

    models: dict[str, Any] = {}
    for path in files:
        try:
            model = model_zoo.get_model(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own errors share no base
            raise ModelError(f"{path} can't be read as ONNX: {error}") from error
        if model is not None:
            models.setdefault(model.taskname, model)
    missing = [task for task in ("detection", "recognition") if task not in models]
    if missing:
        raise ModelError(f"{files[0].parent} holds no model for {' and '.join(missing)} among "
                         f"{', '.join(path.name for path in files)}.")
    models["detection"].prepare(-1, det_thresh=min_confidence, input_size=(side, side))
    return InsightFace(models["detection"], models["recognition"], side)
