"""From a folder's photos to what a trial trains on: crops, latents, masks, batches.

Shapes: C H W latent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.data.batches import BatchPlan, MicroConditioning, TrainData
from sweep.data.buckets import Fit, lay_out
from sweep.data.cache import View, cached_moments
from sweep.data.dataset import Dataset, Photo
from sweep.data.heads import head_mask
from sweep.data.images import crop_corner, cropped, open_mask
from sweep.data.settings import DatasetConfig

if TYPE_CHECKING:
    from torch import Tensor

    from sweep.model.base import Base

CROP_POSITIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Where random_crop may cut, along a photo's longer side. A fixed few, so that their latents can be kept: of crops at
any pixel nearly none would come twice."""


def photo_fits(config: DatasetConfig, photos: Sequence[Photo], resolution: int) -> list[Fit]:
    """How each photo is scaled and cropped."""
    return lay_out(config, resolution, [photo.size for photo in photos], [photo.repeats for photo in photos])


def batch_plan(config: DatasetConfig, dataset: Dataset, *, resolution: int, batch_size: int, accumulation: int,
               seed: int) -> BatchPlan:
    """Which photos of `dataset.all_photos` come at which step. Loads no image and no torch."""
    photos = dataset.all_photos
    fits = photo_fits(config, photos, resolution)
    sizes = sorted({fit.bucket for fit in fits})
    return BatchPlan(tuple(photo.repeats for photo in photos), batch_size, seed, accumulation,
                     tuple(sizes.index(fit.bucket) for fit in fits) if len(sizes) > 1 else ())


def load_train_data(base: Base, config: DatasetConfig, dataset: Dataset, plan: BatchPlan, *, prior_loss_weight: float,
                    results_dir: Path, on_progress: Callable[[int, int], None] | None = None) -> TrainData:
    """Encode (or find) all that a trial trains on.

    on_progress: called after each photo with (done, in all); what it raises ends the encoding, and what was encoded is
    kept.
    """
    photos = dataset.all_photos
    moments: list[Tensor] = []
    masks: list[Tensor] = []
    sizes: list[MicroConditioning] = []
    views: list[tuple[int, ...]] = []
    is_masked = any(photo.mask.path for photo in photos)
    for photo, fit in zip(photos, photo_fits(config, photos, base.resolution), strict=True):
        seen = _views(config, fit)
        views.append(tuple(range(len(moments), len(moments) + len(seen))))
        for view in seen:
            moments.append(cached_moments(base, photo, view, results_dir))
            sizes.append(_micro_conditioning(photo, view))
            if is_masked:
                masks.append(_mask(photo, view, base.vae_scale))
        if on_progress is not None:
            on_progress(len(views), len(photos))
    weights = (1.0,) * len(dataset.photos) + (prior_loss_weight,) * len(dataset.reg_photos)
    return TrainData(moments_NMHW=moments, captions=tuple(photo.text for photo in photos), plan=plan,
                     views=tuple(views), drawing=config if config.varies_captions else None, loss_weights=weights,
                     masks_N1HW=masks if is_masked else None, sizes=tuple(sizes))


def data_notes(config: DatasetConfig, dataset: Dataset, resolution: int) -> list[str]:
    """What of the photos' way into training deserves a word in the trial's record."""
    notes = []
    if config.random_crop:
        notes.append(f"random_crop draws among {len(CROP_POSITIONS)} crops of each photo that has a side to spare")
    if dataset.reg_photos:
        num_reg, num_photos = (sum(p.repeats for p in photos) for photos in (dataset.reg_photos, dataset.photos))
        notes.append(f"{len(dataset.reg_photos)} regularisation images are shown {num_reg} times per epoch, the photos "
                     f"{num_photos} times")
    if config.enable_bucket:
        table = bucket_table(config, dataset, resolution)
        notes.append("buckets: " + ", ".join(f"{w}x{h} ({count})" for (w, h), count in table.items()))
    return notes


def bucket_table(config: DatasetConfig, dataset: Dataset, resolution: int) -> dict[tuple[int, int], int]:
    """Images that an epoch shows in each bucket, by (width, height)."""
    photos = dataset.all_photos
    table: dict[tuple[int, int], int] = {}
    for photo, fit in zip(photos, photo_fits(config, photos, resolution), strict=True):
        table[fit.bucket] = table.get(fit.bucket, 0) + photo.repeats
    return dict(sorted(table.items()))


def _views(config: DatasetConfig, fit: Fit) -> list[View]:
    positions = CROP_POSITIONS if config.random_crop and fit.slack != (0, 0) else (0.5,)
    return [View(fit, position, is_flipped) for position in positions
            for is_flipped in ((False, True) if config.flip_aug else (False,))]


def _micro_conditioning(photo: Photo, view: View) -> MicroConditioning:
    """What SDXL is told of a row (Podell et al. 2023, section 2.2)."""
    left, top = crop_corner(view.fit, view.position)
    if view.is_flipped:
        left = view.fit.slack[0] - left
    return (photo.size[1], photo.size[0], top, left, view.fit.bucket[1], view.fit.bucket[0])


def _mask(photo: Photo, view: View, vae_scale: int) -> Tensor:
    """[1, h, w] in [0, 1]: the mean of the mask over each latent's pixels; 1 everywhere for a photo without."""
    import numpy as np
    import torch
    from PIL import Image

    width, height = (side // vae_scale for side in view.fit.bucket)
    if photo.mask.path is None:
        return torch.ones(1, height, width)
    if photo.mask.head is not None:
        whole = head_mask(photo.mask.head, photo.size)
    else:
        whole = open_mask(photo.mask.path, photo.size, from_alpha=photo.mask.path == photo.path)
    mask = cropped(whole, view.fit, view.position).resize((width, height), Image.Resampling.BOX)
    mask_1HW = torch.from_numpy(np.asarray(mask, dtype=np.float32) / 255)[None]
    return mask_1HW.flip(-1) if view.is_flipped else mask_1HW
