"""The training loop: shared passes over the frozen base take every member of a pack one update further."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.network.targets import Part
from sweep.training.objective import noised_batch
from sweep.training.pack import Member, Pack, Pass

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRow:
    """What one step of one member came to."""

    member: Member
    step: int  # the step just made, from 1
    loss: float
    grad_norm: float
    unet_lr: float
    text_encoder_lr: float
    share_s: float  # its share of the pass's time, by rows


def train(pack: Pack) -> Iterator[list[StepRow]]:
    """Step all members until none is left; yields a row per member after each update.

    Between two updates the caller may save, score and drop members; it must drop those that are finished. A member
    whose loss or gradient is not finite is not stepped: it is marked diverged, and the others go on.
    """
    while pack.members:
        assert not any(member.is_finished for member in pack.members), "finished members must be dropped"
        started = time.perf_counter()
        pack.bank.zero_grad()
        losses: dict[str, float] = {member.train_id: 0.0 for member in pack.members}
        num_rows: dict[str, int] = {member.train_id: 0 for member in pack.members}
        for one in pack.passes():
            losses_K = forward(pack, one)
            losses_K.sum().backward()
            for (member, batch), loss in zip(one.batches, losses_K.tolist(), strict=True):
                losses[member.train_id] += loss
                num_rows[member.train_id] += batch.num_rows
        norms_K = pack.clip_gradients()
        rates_K = [_step(pack, member, losses[member.train_id], norm)
                   for member, norm in zip(pack.members, norms_K, strict=True)]
        second_per_row = (time.perf_counter() - started) / sum(num_rows.values())
        yield [StepRow(member=member, step=member.step, loss=losses[member.train_id], grad_norm=norm,
                       unet_lr=rates.get("unet", 0.0), text_encoder_lr=rates.get("text_encoder", 0.0),
                       share_s=second_per_row * num_rows[member.train_id])
               for member, norm, rates in zip(pack.members, norms_K, rates_K, strict=True)]


def forward(pack: Pack, one: Pass) -> Tensor:
    """The loss of each member in the pass: mean squared error of the predicted noise (Ho et al. 2020, eq. 14) over its
    own rows."""
    import torch

    base = pack.base
    captions = [caption for _, batch in one.batches for caption in batch.captions]
    noised = [noised_batch(batch.moments_BMHW, base.alphas_cumprod.cpu(), base.scaling_factor, member.config.seed,
                           batch.index) for member, batch in one.batches]
    noisy_BCHW = torch.cat([each.noisy_BCHW for each in noised]).to(base.device)
    timesteps_B = torch.cat([each.timesteps_B for each in noised]).to(base.device)
    target_BCHW = torch.cat([each.target_BCHW for each in noised]).to(base.device)
    trains_text = any("text_encoder" in member.trained_parts for member, _ in one.batches)
    with pack.bank.attached(), pack.bank.rows(pack.counts(one), pack.draws(one)), pack.autocast():
        with torch.set_grad_enabled(trains_text):
            text = base.text_states(captions)
        predicted_BCHW = base.predict(noisy_BCHW, timesteps_B, text)
    error_B = (predicted_BCHW.float() - target_BCHW).square().mean(dim=(1, 2, 3))
    return torch.stack([rows.mean() for rows in error_B.split([batch.num_rows for _, batch in one.batches])])


def _step(pack: Pack, member: Member, loss: float, grad_norm: float) -> dict[Part, float]:
    if not (math.isfinite(loss) and math.isfinite(grad_norm)):
        member.diverged = f"loss {loss} with gradient norm {grad_norm} at step {member.step + 1}"
        return {}
    return pack.step_optimizer(member)
