"""Drawing through the gallery: what is there is read, what is missing is drawn in packed batches, and each is
kept as it comes.

Shapes: B images, C H W pixels in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.evaluation.gallery import Gallery, quantised, read_images, write_image
from sweep.evaluation.generate import OnProgress, Row, generate
from sweep.evaluation.keys import drawing_id
from sweep.evaluation.settings import Sampler, ScoringConfig

if TYPE_CHECKING:
    from torch import Tensor

    from sweep.model.base import Base
    from sweep.network.targets import Target


class Drawer:
    """Images of one base. clip_skip, max_token_length: how prompts are read, as in training."""

    def __init__(self, base: Base, targets: Sequence[Target], scoring: ScoringConfig, results_dir: Path, *,
                 clip_skip: int = 1, max_token_length: int = 75, sampler: Sampler | None = None):
        self.base, self.targets, self.scoring = base, targets, scoring
        self.sampler = sampler or scoring.sampler
        self.clip_skip, self.max_token_length = clip_skip, max_token_length
        self.results_dir = results_dir
        self._galleries: dict[float, Gallery] = {}

    def draw(self, rows: Sequence[Row], digests: Sequence[str], on_progress: OnProgress | None = None) -> Tensor:
        """All rows, [B, C, H, W], as 8-bit files hold them.

        digests: SHA-256 of each row's LoRA file, "" for the base alone. on_progress: called after each batch, when its
        images are kept; what it raises ends the drawing.
        """
        import torch

        paths = [self._gallery_of(row).path_of(row, digest) for row, digest in zip(rows, digests, strict=True)]
        images = read_images(paths) if self.scoring.keep_images else [None] * len(rows)
        missing = list({paths[i]: i for i in range(len(rows)) if images[i] is None}.values())

        def keep(batch: Sequence[int], images_BCHW: Tensor) -> None:
            for i, image_CHW in zip(batch, quantised(images_BCHW), strict=True):
                write_image(paths[missing[i]], image_CHW)

        if missing:
            drawn = quantised(generate(
                self.base, self.targets, [rows[i] for i in missing], self.sampler, resolution=self.base.resolution,
                batch_size=self.scoring.batch_size, clip_skip=self.clip_skip, max_token_length=self.max_token_length,
                on_drawn=keep if self.scoring.keep_images else None, on_progress=on_progress))
            new = dict(zip([paths[i] for i in missing], drawn, strict=True))
            images = [new[path] if image is None else image for path, image in zip(paths, images, strict=True)]
        return torch.stack([image for image in images if image is not None])

    def _gallery_of(self, row: Row) -> Gallery:
        """An image lies with those of its sampler, whoever asked for its guidance scale."""
        scale = self.sampler.guidance_scale if row.guidance_scale is None else row.guidance_scale
        if scale not in self._galleries:
            key = drawing_id(replace(self.sampler, guidance_scale=scale), self.base.identity, self.base.resolution,
                             self.clip_skip, self.max_token_length, str(self.base.dtype))
            self._galleries[scale] = Gallery(self.results_dir, key)
        return self._galleries[scale]
