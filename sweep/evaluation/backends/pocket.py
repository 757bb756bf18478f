"""The pocket world's own models: face recogniser, CLIP and perceptual backbone. They know no real photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.evaluation.backends.interface import Faces

if TYPE_CHECKING:
    from torch import Tensor


def weights_folder(path: str | None) -> Path:
    """A weight set's folder; None = the one inside the package."""
    from sweep.pocket import WEIGHTS_DIR

    return WEIGHTS_DIR if path is None else Path(path).expanduser()


def face_files(path: str | None) -> list[Path]:
    return [weights_folder(path) / "face.safetensors"]


def clip_files(path: str | None) -> list[Path]:
    return [weights_folder(path) / "clip" / name for name in ("model.safetensors", "config.json", "tokenizer.json")]


def perceptual_files(path: str | None) -> list[Path]:
    return [weights_folder(path) / "perceptual.safetensors"]


@dataclass(slots=True)
class PocketFace:
    """Its locator names one face per image, the likeliest."""

    model: Any
    min_confidence: float
    SAME_FACE = 0.5

    def faces(self, images_BCHW: Tensor) -> list[Faces]:
        import torch

        with torch.no_grad():
            boxes_B4, confidence_B = self.model.locate(images_BCHW)
            embeddings_BD = self.model.embed_crops(self.model.crop(images_BCHW, boxes_B4))
        found_B = (confidence_B >= self.min_confidence).tolist()
        return [Faces(boxes_B4[i:i + 1], embeddings_BD[i:i + 1]) if found else
                Faces(boxes_B4[:0], embeddings_BD[:0]) for i, found in enumerate(found_B)]


@dataclass(slots=True)
class PocketClip:
    """CLIP of the world's images and captions."""

    model: Any
    tokenizer: Any

    def image_features(self, images_BCHW: Tensor) -> Tensor:
        import torch

        from sweep.pocket.models import clip_image_features

        with torch.no_grad():
            return clip_image_features(self.model, images_BCHW)

    def text_features(self, texts: Sequence[str]) -> Tensor:
        import torch

        from sweep.pocket.models import clip_text_features

        with torch.no_grad():
            return clip_text_features(self.model, self.tokenizer, list(texts))

    @property
    def logit_scale(self) -> float:
        return float(self.model.logit_scale.exp())


@dataclass(slots=True)
class PocketPerceptual:
    """LPIPS (Zhang et al. 2018, Eq. 1) on the world's own backbone.

    That distance is a weighted mean of squared differences of normalised feature maps, so roots of the weights go into
    the vectors once and distances of all pairs are one matrix product.
    """

    model: Any

    def vectors(self, images_BCHW: Tensor) -> Tensor:
        import torch
        import torch.nn.functional as F

        weights = self.model.get_buffer("stage_weights")
        with torch.no_grad():
            maps = self.model(images_BCHW)
        parts = [F.normalize(map_BCHW, dim=1, eps=1e-6).flatten(1) * (weight / map_BCHW[0, 0].numel()).sqrt()
                 for map_BCHW, weight in zip(maps, weights, strict=True)]
        return torch.cat(parts, dim=1)


def load_face(path: str | None, min_confidence: float) -> PocketFace:
    from sweep.pocket.models import load_face

    return PocketFace(load_face(face_files(path)[0]), min_confidence)


def load_clip(path: str | None) -> PocketClip:
    from sweep.pocket.models import load_clip

    return PocketClip(*load_clip(clip_files(path)[0].parent))


def load_perceptual(path: str | None) -> PocketPerceptual:
    from sweep.pocket.models import load_perceptual

    return PocketPerceptual(load_perceptual(perceptual_files(path)[0]))
