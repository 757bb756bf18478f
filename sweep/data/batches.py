"""Which photos at which step: a function of (seed, step), the same on any number of cores and after any resume.

Shapes: B images, N photos, C H W latent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from sweep.randomness import generator

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one forward pass sees of one trial: rows of one latent shape."""

    index: int  # counts the trial's batches from 0; with the seed it decides noise and timesteps
    captions: tuple[str, ...]  # of each row
    moments_BMHW: Tensor  # mean and standard deviation of the rows' latents, [B, 2C, H, W], unscaled, on the CPU
    loss_weights_B: Tensor  # 1 for photos of the subject, prior_loss_weight for regularisation images
    masks_B1HW: Tensor | None  # weight of each latent pixel in the loss, 0 to 1; None = all 1
    sizes: tuple[tuple[int, ...], ...]  # of each row in pixels, for SDXL: original height and width, crop top and left,
    # target height and width

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
    """One trial's photos as it trains on them."""

    moments_NMHW: Tensor  # latents' mean and standard deviation of each photo, on the CPU
    captions: tuple[str, ...]  # of each photo
    plan: BatchPlan
    vae_scale: int = 8  # pixels per latent

    @property
    def steps_per_epoch(self) -> int:
        return self.plan.steps_per_epoch

    def batches_at(self, step: int) -> list[Batch]:
        """The batches whose gradients update `step` (from 0) adds up; never empty."""
        import torch

        photos = self.plan.photos_at(step)
        height, width = (int(side) * self.vae_scale for side in self.moments_NMHW.shape[2:])
        return [Batch(index=step, captions=tuple(self.captions[i] for i in photos),
                      moments_BMHW=self.moments_NMHW[photos], loss_weights_B=torch.ones(len(photos)), masks_B1HW=None,
                      sizes=((height, width, 0, 0, height, width),) * len(photos))]


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """An epoch shows each photo `repeats` times in an order of its own; its last batch may be partial."""

    repeats: tuple[int, ...]  # of each photo
    batch_size: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(self.repeats, self.batch_size)

    def photos_at(self, step: int) -> list[int]:
        """Indices of the photos in the batch of `step` (from 0)."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        order = _epoch_order(self.repeats, self.seed, epoch)
        return list(order[batch * self.batch_size:(batch + 1) * self.batch_size])


def steps_per_epoch(repeats: Sequence[int], batch_size: int) -> int:
    return math.ceil(sum(repeats) / batch_size)


def num_steps(repeats: Sequence[int], batch_size: int, max_epochs: int, max_steps: int | None) -> int:
    """Steps of a whole training; max_steps overrides the epochs, as in sd-scripts."""
    return max_steps if max_steps is not None else max_epochs * steps_per_epoch(repeats, batch_size)


@lru_cache(maxsize=64)
def _epoch_order(repeats: tuple[int, ...], seed: int, epoch: int) -> tuple[int, ...]:
    import torch

    shown = [photo for photo, count in enumerate(repeats) for _ in range(count)]
    permutation = torch.randperm(len(shown), generator=generator(seed, epoch, "epoch order"))
    return tuple(shown[i] for i in permutation.tolist())
