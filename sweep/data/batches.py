"""Which photos at which step: a function of (seed, step), the same on any number of cores and after any resume.

Shapes: B images, N views of photos, C H W latent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from sweep.data.captions import drawn_caption
from sweep.data.settings import DatasetConfig
from sweep.randomness import derived_seed, generator

if TYPE_CHECKING:
    from torch import Tensor

MicroConditioning = tuple[int, ...]
"""(original height, original width, crop top, crop left, target height, target width) in pixels, as SDXL takes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one forward pass sees of one trial: rows of one latent shape."""

    index: int  # counts the trial's batches from 0; with the seed it decides noise and timesteps
    captions: tuple[str, ...]  # of each row
    moments_BMHW: Tensor  # mean and standard deviation of the rows' latents, [B, 2C, H, W], unscaled, on the CPU
    loss_weights_B: Tensor  # 1 for photos, prior_loss_weight for regularisation images
    masks_B1HW: Tensor | None  # weight of the loss per latent pixel, 0 to 1; None = all 1
    sizes: tuple[MicroConditioning, ...]  # of each row; () = not known

    @property
    def num_rows(self) -> int:
        return len(self.captions)

    @property
    def latent_shape(self) -> tuple[int, int]:
        """(H, W); batches of other shapes can't share a pass."""
        height, width = self.moments_BMHW.shape[2:]
        return int(height), int(width)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainData:
    """One trial's photos as it trains on them. Of a photo's views (crops, mirrored) one is drawn per batch."""

    moments_NMHW: Sequence[Tensor]  # latents' mean and standard deviation of each view, [2C, H, W], on the CPU
    captions: tuple[str, ...]  # of each photo; what captions are drawn from, if `drawing` says so
    plan: BatchPlan
    views: tuple[tuple[int, ...], ...] = ()  # each photo's views; () = view i is photo i
    drawing: DatasetConfig | None = None  # how captions are drawn; None = they are as they stand
    loss_weights: tuple[float, ...] = ()  # of each photo; () = all 1
    masks_N1HW: Sequence[Tensor] | None = None  # of each view, [1, H, W]
    sizes: tuple[MicroConditioning, ...] = ()  # of each view

    @property
    def steps_per_epoch(self) -> int:
        return self.plan.steps_per_epoch

    def batches_at(self, step: int) -> list[Batch]:
        """The batches whose gradients update `step` (from 0) adds up; never empty, all of one epoch."""
        return [self._batch(index) for index in self.plan.batches_at(step)]

    def _batch(self, index: int) -> Batch:
        import torch

        photos = self.plan.photos_at(index)
        views = [self._view(photo, index, row) for row, photo in enumerate(photos)]
        return Batch(
            index=index,
            captions=tuple(self._caption(photo, index, row) for row, photo in enumerate(photos)),
            moments_BMHW=torch.stack([self.moments_NMHW[view] for view in views]),
            loss_weights_B=torch.tensor([self.loss_weights[photo] if self.loss_weights else 1.0 for photo in photos]),
            masks_B1HW=None if self.masks_N1HW is None else torch.stack([self.masks_N1HW[view] for view in views]),
            sizes=tuple(self.sizes[view] for view in views) if self.sizes else ())

    def _view(self, photo: int, index: int, row: int) -> int:
        views = self.views[photo] if self.views else (photo,)
        return views[derived_seed(self.plan.seed, index, f"view {row}") % len(views)] if len(views) > 1 else views[0]

    def _caption(self, photo: int, index: int, row: int) -> str:
        if self.drawing is None:
            return self.captions[photo]
        return drawn_caption(self.captions[photo], self.drawing, seed=self.plan.seed, index=index, row=row,
                             epoch=index // self.plan.batches_per_epoch + 1)


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """An epoch shows each photo `repeats` times in an order of its own. A batch is of one bucket; each bucket's last
    batch may be partial. An update adds up `accumulation` batches, the epoch's last what is left."""

    repeats: tuple[int, ...]  # of each photo
    batch_size: int
    seed: int
    accumulation: int = 1
    buckets: tuple[int, ...] = ()  # of each photo; () = all in one

    @property
    def batches_per_epoch(self) -> int:
        shown: dict[int, int] = {}
        for bucket, count in zip(self._buckets, self.repeats, strict=True):
            shown[bucket] = shown.get(bucket, 0) + count
        return sum(math.ceil(count / self.batch_size) for count in shown.values())

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.batches_per_epoch / self.accumulation)

    def num_steps(self, max_epochs: int, max_steps: int | None) -> int:
        """Steps of a whole training; max_steps overrides the epochs, as in sd-scripts."""
        return max_steps if max_steps is not None else max_epochs * self.steps_per_epoch

    def batches_at(self, step: int) -> range:
        """Indices of the batches of update `step` (both from 0)."""
        per_epoch = self.batches_per_epoch
        epoch, update = divmod(step, self.steps_per_epoch)
        first = update * self.accumulation
        return range(epoch * per_epoch + first, epoch * per_epoch + min(first + self.accumulation, per_epoch))

    def photos_at(self, index: int) -> list[int]:
        """Indices of the photos in batch `index` (from 0)."""
        epoch, batch = divmod(index, self.batches_per_epoch)
        return list(_epoch_batches(self.repeats, self._buckets, self.batch_size, self.seed, epoch)[batch])

    @property
    def _buckets(self) -> tuple[int, ...]:
        return self.buckets or (0,) * len(self.repeats)


@lru_cache(maxsize=64)
def _epoch_batches(repeats: tuple[int, ...], buckets: tuple[int, ...], batch_size: int, seed: int,
                   epoch: int) -> tuple[tuple[int, ...], ...]:
    """The epoch's batches. The photos are shuffled, cut into batches bucket by bucket, and the batches shuffled again
    if there are several buckets."""
    import torch

    shown = [photo for photo, count in enumerate(repeats) for _ in range(count)]
    permutation = torch.randperm(len(shown), generator=generator(seed, epoch, "epoch order"))
    of_bucket: dict[int, list[int]] = {bucket: [] for bucket in sorted(set(buckets))}
    for i in permutation.tolist():
        of_bucket[buckets[shown[i]]].append(shown[i])
    batches = [tuple(photos[i:i + batch_size]) for photos in of_bucket.values()
               for i in range(0, len(photos), batch_size)]
    if len(of_bucket) > 1:
        order = torch.randperm(len(batches), generator=generator(seed, epoch, "batch order"))
        batches = [batches[i] for i in order.tolist()]
    return tuple(batches)
