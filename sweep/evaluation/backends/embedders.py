"""Whole-image models for real photographs: CLIP and SigLIP, DINO, SSCD, LPIPS.

Shapes: B images, D width of an embedding, P of a vector, T texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.errors import ModelError
from sweep.evaluation.backends.interface import ImageBackend, VectorBackend

if TYPE_CHECKING:
    from torch import Tensor

SSCD_SIDE = 288  # pixels; what its authors resize to
LPIPS_SIDE = 128  # pixels; it was fitted on patches of 64
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(slots=True)
class TransformersImages:
    """An image model of transformers with its own preprocessing: DINOv2 (Oquab et al. 2023)."""

    model: Any
    processor: Any

    def image_features(self, images_BCHW: Tensor) -> Tensor:
        import torch

        with torch.no_grad():
            return _unit(self._features(**self._prepared(images_BCHW)))

    def _prepared(self, images_BCHW: Tensor) -> Any:
        from sweep.evaluation.gallery import image_of

        return self.processor(images=[image_of(image) for image in images_BCHW], return_tensors="pt")

    def _features(self, **inputs: Any) -> Any:
        return self.model(**inputs)


@dataclass(slots=True)
class TransformersClip(TransformersImages):
    """CLIP (Radford et al. 2021), SigLIP (Zhai et al. 2023)."""

    tokenizer: Any
    padding: Any  # SigLIP was trained on texts padded to a fixed length

    def text_features(self, texts: Sequence[str]) -> Tensor:
        import torch

        inputs = self.tokenizer(list(texts), return_tensors="pt", truncation=True, **self.padding)
        with torch.no_grad():
            return _unit(self.model.get_text_features(**inputs))

    @property
    def logit_scale(self) -> float:
        return float(self.model.logit_scale.exp())

    def _features(self, **inputs: Any) -> Any:
        return self.model.get_image_features(**inputs)


def load_dino(folder: Path) -> TransformersImages:
    model, processor = _model_of(folder)
    return TransformersImages(model, processor)


def load_clip(folder: Path, *, is_siglip: bool) -> TransformersClip:
    model, processor = _model_of(folder)
    from transformers import AutoTokenizer

    text = model.config.text_config
    padding = {"padding": "max_length" if is_siglip else True, "max_length": text.max_position_embeddings}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder} holds no tokenizer that transformers can read: {error}") from error
    return TransformersClip(model, processor, tokenizer, padding)


def _model_of(folder: Path) -> tuple[Any, Any]:
    """Model in float32, frozen, and image processor."""
    from sweep.model.torchvision_ops import declare_missing_operators

    declare_missing_operators()
    import torch
    from transformers import AutoImageProcessor, AutoModel

    try:
        model = AutoModel.from_pretrained(folder, dtype=torch.float32, local_files_only=True, use_safetensors=True)
        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(f"{folder} can't be loaded with transformers: {error}") from error
    return model.eval().requires_grad_(False), processor


def _unit(output: Any) -> Tensor:
    """Unit-norm rows of an answer of transformers, a tensor or an object around one."""
    import torch

    features_BD: Tensor = output if isinstance(output, torch.Tensor) else output.pooler_output
    return torch.nn.functional.normalize(features_BD.float(), dim=1)


@dataclass(slots=True)
class Sscd:
    """Self-supervised copy detection (Pizzi et al. 2022): squared distance = 2 - 2 cos; copies are below .5."""

    model: Any

    def vectors(self, images_BCHW: Tensor) -> Tensor:
        import torch

        prepared = (_resized(images_BCHW, SSCD_SIDE) - _column(_IMAGENET_MEAN)) / _column(_IMAGENET_STD)
        with torch.no_grad():
            return torch.nn.functional.normalize(self.model(prepared).float(), dim=1)


def load_sscd(path: Path) -> Sscd:
    import torch

    try:
        return Sscd(torch.jit.load(str(path), map_location="cpu").eval())
    except RuntimeError as error:
        raise ModelError(f"{path} can't be read as TorchScript: {str(error).splitlines()[0]}") from error


@dataclass(slots=True)
class Lpips:
    """LPIPS (Zhang et al. 2018, Eq. 1) of the package `lpips`, as vectors: roots of its weights go into them."""

    model: Any

    def vectors(self, images_BCHW: Tensor) -> Tensor:
        import torch

        with torch.no_grad():
            maps = self.model.net(self.model.scaling_layer(_resized(images_BCHW, LPIPS_SIDE) * 2 - 1))
            parts = []
            for map_BCHW, head in zip(maps, self.model.lins, strict=True):
                weights_C = head.model[-1].weight.flatten().clamp(min=0)
                unit_BCHW = map_BCHW / (map_BCHW.square().sum(1, keepdim=True).sqrt() + 1e-10)
                parts.append((unit_BCHW * weights_C.sqrt()[:, None, None] / map_BCHW[0, 0].numel() ** 0.5).flatten(1))
        return torch.cat(parts, dim=1)


def load_lpips(backbone: Path) -> Lpips:
    """backbone: torchvision's AlexNet; the heads come with the package."""
    from sweep.model.torchvision_ops import declare_missing_operators

    declare_missing_operators()
    import lpips
    import torch

    model = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    try:
        weights = torch.load(backbone, map_location="cpu", weights_only=True)
        trunk = model.net.state_dict()
        model.net.load_state_dict({name: weights[f"features.{name.split('.', 1)[1]}"] for name in trunk})
    except Exception as error:  # a torn file, another kind of file, another network
        raise ModelError(f"{backbone} is not torchvision's AlexNet: {error}") from error
    return Lpips(model.eval().requires_grad_(False))


@dataclass(slots=True)
class DinoLpips:
    """For copies where there is no SSCD: half of each one's distance, 1 - cos of DINO and LPIPS."""

    dino: ImageBackend
    perceptual: VectorBackend

    def vectors(self, images_BCHW: Tensor) -> Tensor:
        import torch

        return torch.cat([self.dino.image_features(images_BCHW) * 0.5,
                          self.perceptual.vectors(images_BCHW) * 0.5 ** 0.5], dim=1)


def _resized(images_BCHW: Tensor, side: int) -> Tensor:
    import torch

    if images_BCHW.shape[-2:] == (side, side):
        return images_BCHW
    return torch.nn.functional.interpolate(images_BCHW, (side, side), mode="bilinear", antialias=True,
                                           align_corners=False)


def _column(values: Sequence[float]) -> Tensor:
    import torch

    return torch.tensor(values)[:, None, None]
