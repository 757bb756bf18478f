"""Captions by BLIP (Li et al. 2022), with the tutorial's settings: 10 beams, at least 25 tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.data.caption.models import model_folder
from sweep.errors import ModelError
from sweep.model.header import read_header

if TYPE_CHECKING:
    from PIL.Image import Image

EXAMPLE = "Salesforce/blip-image-captioning-base"
_FILES = ("config.json", "model.safetensors")


class Blip:
    """num_beams: of the search. min_length, max_length: tokens of a caption."""

    def __init__(self, given: str, *, num_beams: int, min_length: int, max_length: int, download: bool = False,
                 device: str = "cpu") -> None:
        """Raises ModelError if the folder is missing, not whole, or another kind of model."""
        from sweep.model.torchvision_ops import declare_missing_operators

        folder = model_folder(given, _FILES, download=download, example=EXAMPLE)
        declare_missing_operators()
        self._processor, self._model = _loaded(folder)
        self._model.to(device).eval()
        self._settings = {"num_beams": num_beams, "min_length": min_length, "max_length": max_length}
        self._device = device

    def __call__(self, image: Image) -> str:
        import torch

        inputs = self._processor(images=image, return_tensors="pt").to(self._device)
        with torch.no_grad():
            ids = self._model.generate(**inputs, **self._settings)
        text: str = self._processor.decode(ids[0], skip_special_tokens=True)
        return " ".join(text.split())


def _loaded(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoConfig, BlipForConditionalGeneration, BlipProcessor
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    read_header(folder / _FILES[1])  # says what is wrong with a damaged file
    try:
        config = AutoConfig.from_pretrained(folder)
        if config.model_type != "blip":
            raise ModelError(f"{folder} holds a model of the kind {config.model_type!r}; --blip reads BLIP, e.g. "
                             f"{EXAMPLE}.")
        processor = BlipProcessor.from_pretrained(folder)
        model, report = BlipForConditionalGeneration.from_pretrained(folder, use_safetensors=True,
                                                                     output_loading_info=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"The BLIP model in {folder} can't be loaded: {error}") from error
    if report["missing_keys"]:  # transformers would draw them at random, with no more than a warning
        missing = sorted(report["missing_keys"])
        raise ModelError(f"The BLIP model in {folder} lacks {len(missing)} tensors, e.g. {', '.join(missing[:3])}; is "
                         "it one for captions?")
    return processor, model
