"""The models that look at images: who is it, what does it show, how alike are two. Images are [0, 1], NCHW, on the CPU.

Shapes: B images, D width of an embedding, P width of a perceptual vector, T texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.errors import ModelError
from sweep.files import sha256_of, stable_hash

if TYPE_CHECKING:
    from torch import Tensor


def backend_identities(weights_dir: str | None) -> dict[str, str]:
    """Hash of each backend's files, by role. Raises ModelError naming what is missing."""
    folder = _folder(weights_dir)
    files = {"face": [folder / "face.safetensors"], "perceptual": [folder / "perceptual.safetensors"],
             "prompt": [folder / "clip" / name for name in ("model.safetensors", "config.json", "tokenizer.json")]}
    missing = [str(path) for paths in files.values() for path in paths if not path.is_file()]
    if missing:
        raise ModelError(f"Scoring lacks {', '.join(missing)}. `python -m sweep.pocket.build` makes a set of weights; "
                         "scoring=none trains without scoring.")
    return {role: stable_hash([sha256_of(path) for path in paths]) for role, paths in files.items()}


def _folder(weights_dir: str | None) -> Path:
    from sweep.pocket import WEIGHTS_DIR

    return WEIGHTS_DIR if weights_dir is None else Path(weights_dir).expanduser()


@dataclass(slots=True)
class PocketBackends:
    """Face recogniser, CLIP and perceptual backbone of the pocket world."""

    face: Any
    clip: Any
    clip_tokenizer: Any
    perceptual: Any
    identities: dict[str, str]

    def faces(self, images_BCHW: Tensor, min_confidence: float) -> tuple[Tensor, Tensor]:
        """Unit-norm embeddings [B, D] of the faces, and whether there is one [B]."""
        import torch

        with torch.no_grad():
            boxes_B4, confidence_B = self.face.locate(images_BCHW)
            embeddings_BD = self.face.embed_crops(self.face.crop(images_BCHW, boxes_B4))
        return embeddings_BD, confidence_B >= min_confidence

    def image_features(self, images_BCHW: Tensor) -> Tensor:
        """Unit-norm CLIP features [B, D]."""
        import torch

        from sweep.pocket.models import clip_image_features

        with torch.no_grad():
            return clip_image_features(self.clip, images_BCHW)

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Unit-norm CLIP features [T, D]."""
        import torch

        from sweep.pocket.models import clip_text_features

        with torch.no_grad():
            return clip_text_features(self.clip, self.clip_tokenizer, list(texts))

    @property
    def logit_scale(self) -> float:
        """CLIP's learned inverse temperature (Radford et al. 2021, 2.3)."""
        return float(self.clip.logit_scale.exp())

    def perceptual_vectors(self, images_BCHW: Tensor) -> Tensor:
        """[B, P]: the squared Euclidean distance of two rows is their LPIPS distance (Zhang et al. 2018, Eq. 1).

        That distance is a weighted mean of squared differences of normalised feature maps, so roots of the weights go
        into the vectors once and distances of all pairs are one matrix product.
        """
        import torch
        import torch.nn.functional as F

        weights = self.perceptual.get_buffer("stage_weights")
        with torch.no_grad():
            maps = self.perceptual(images_BCHW)
        parts = [F.normalize(map_BCHW, dim=1, eps=1e-6).flatten(1) * (weight / map_BCHW[0, 0].numel()).sqrt()
                 for map_BCHW, weight in zip(maps, weights, strict=True)]
        return torch.cat(parts, dim=1)


def perceptual_distances(a_AP: Tensor, b_BP: Tensor) -> Tensor:
    """LPIPS of all pairs, [A, B]."""
    squares = a_AP.square().sum(1, keepdim=True) + b_BP.square().sum(1) - 2 * a_AP @ b_BP.T
    return squares.clamp(min=0)


def load_backends(weights_dir: str | None) -> PocketBackends:
    """Load all three, frozen, on the CPU. Raises ModelError naming what is missing."""
    identities = backend_identities(weights_dir)
    from sweep.pocket.models import load_clip, load_face, load_perceptual

    folder = _folder(weights_dir)
    clip, tokenizer = load_clip(folder / "clip")
    return PocketBackends(face=load_face(folder / "face.safetensors"), clip=clip, clip_tokenizer=tokenizer,
                          perceptual=load_perceptual(folder / "perceptual.safetensors"), identities=identities)
