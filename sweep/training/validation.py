"""The loss on held-out photos: the plain error at fixed noise and timesteps, so that checkpoints and trials compare.

Shapes: B rows, C H W latent, M = 2C moments.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.randomness import generator
from sweep.training.objective import add_noise, target
from sweep.training.pack import Member, Pack

if TYPE_CHECKING:
    from torch import Tensor

NUM_BUCKETS = 4  # of the noise schedule's timesteps
MAX_ROWS = 32  # of one pass, over all members


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeldOut:
    """A photo of the subject that is never trained on."""

    moments_MHW: Tensor  # mean and standard deviation of its latents, unscaled, on the CPU
    caption: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """Mean squared errors of one member."""

    loss: float
    buckets: dict[str, float]  # by timesteps, "0-249" ...


@dataclass(frozen=True, slots=True)
class _Row:
    bucket: int
    caption: str
    noisy_CHW: Tensor
    timestep: int
    target_CHW: Tensor


def validation_losses(pack: Pack, members: Sequence[Member], photos: Sequence[HeldOut]) -> list[Validation]:
    """One per member, of the weights that its file gets. Photos may have several latent shapes.

    A photo is noised once in each bucket of timesteps; noise and timestep are functions of its latents alone, whatever
    else is held out and in whichever order. Masks, weights and noise offsets of the training play no part.
    """
    import torch

    assert members and photos
    rows = [row for photo in photos for row in _rows(pack, photo)]
    shapes = dict.fromkeys(row.noisy_CHW.shape for row in rows)
    errors: dict[str, list[list[float]]] = {m.train_id: [[] for _ in range(NUM_BUCKETS)] for m in members}
    chosen = [member for member in pack.members if any(member is one for one in members)]  # in the bank's order
    with torch.no_grad(), ExitStack() as stack:
        for member in chosen:
            stack.enter_context(pack.as_saved(member))
        for shape in shapes:
            same = [row for row in rows if row.noisy_CHW.shape == shape]
            size = max(1, MAX_ROWS // len(chosen))
            for group in (same[i:i + size] for i in range(0, len(same), size)):
                for member, found in zip(chosen, _errors(pack, chosen, group), strict=True):
                    for row, error in zip(group, found, strict=True):
                        errors[member.train_id][row.bucket].append(error)
    names = _bucket_names(len(pack.base.alphas_cumprod))
    results = []
    for member in members:
        means = [sum(bucket) / len(bucket) for bucket in errors[member.train_id]]
        results.append(Validation(loss=sum(means) / NUM_BUCKETS, buckets=dict(zip(names, means, strict=True))))
    return results


def _rows(pack: Pack, photo: HeldOut) -> list[_Row]:
    import torch

    base = pack.base
    digest = hashlib.blake2b(photo.moments_MHW.numpy().tobytes(), digest_size=8).digest()
    seed = int.from_bytes(digest, "little") >> 1
    latents_CHW = photo.moments_MHW.chunk(2)[0] * base.scaling_factor  # the mean: one thing less to vary
    size = len(base.alphas_cumprod) // NUM_BUCKETS
    rows = []
    for bucket in range(NUM_BUCKETS):
        noise = torch.randn(latents_CHW.shape, generator=generator(seed, bucket, "validation noise"))
        within = torch.randint(size, (), generator=generator(seed, bucket, "validation timestep"))
        timestep = bucket * size + int(within)
        a = base.alphas_cumprod[timestep]
        [noisy] = add_noise(latents_CHW[None], noise[None], a)
        [wanted] = target(latents_CHW[None], noise[None], a, base.prediction_type)
        rows.append(_Row(bucket, photo.caption, noisy, timestep, wanted))
    return rows


def _errors(pack: Pack, members: Sequence[Member], rows: Sequence[_Row]) -> list[list[float]]:
    """The squared error of each row by each member, in one pass."""
    import torch

    base = pack.base
    noisy_BCHW = torch.stack([row.noisy_CHW for row in rows]).repeat(len(members), 1, 1, 1).to(base.device)
    timesteps_B = torch.tensor([row.timestep for row in rows]).repeat(len(members)).to(base.device)
    target_BCHW = torch.stack([row.target_CHW for row in rows]).repeat(len(members), 1, 1, 1).to(base.device)
    height, width = (base.vae_scale * side for side in noisy_BCHW.shape[2:])
    reading = members[0].config  # how captions are read: a pack agrees on it
    counts = [len(rows) if any(member is one for one in members) else 0 for member in pack.members]
    with pack.forward(counts), pack.autocast():
        captions = [text for member in members for text in member.read([row.caption for row in rows])]
        text = base.text_states(captions, reading.clip_skip, reading.max_token_length)
        predicted_BCHW = base.predict(noisy_BCHW, timesteps_B, text,
                                      [(height, width, 0, 0, height, width)] * len(noisy_BCHW)).float()
    error_B = (predicted_BCHW - target_BCHW).square().mean(dim=(1, 2, 3))
    errors: list[list[float]] = error_B.unflatten(0, (len(members), -1)).tolist()
    return errors


def _bucket_names(num_timesteps: int) -> list[str]:
    size = num_timesteps // NUM_BUCKETS
    return [f"{bucket * size}-{(bucket + 1) * size - 1}" for bucket in range(NUM_BUCKETS)]
