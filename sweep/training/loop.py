"""The training loop: one pass over the frozen base trains every member of a pack by a step."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.network.targets import Part
from sweep.training.pack import Member, MemberBatch, Pack

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
    """Step all members until none is left; yields a row per member after each pass.

    Between two passes the caller may save, score and drop members; it must drop those that are finished. A member whose
    loss or gradient is not finite is not stepped: it is marked diverged, and the others go on.
    """
    while pack.members:
        assert not any(member.is_finished for member in pack.members), "finished members must be dropped"
        started = time.perf_counter()
        batches = [pack.batch_of(member) for member in pack.members]
        pack.bank.zero_grad()
        losses_K = forward(pack, batches)
        losses_K.sum().backward()
        norms_K = pack.clip_gradients()
        rates_K = [_step(pack, *each) for each in zip(pack.members, losses_K.tolist(), norms_K, strict=True)]
        second_per_row = (time.perf_counter() - started) / sum(batch.num_rows for batch in batches)
        yield [StepRow(member=member, step=member.step, loss=loss, grad_norm=norm, unet_lr=rates.get("unet", 0.0),
                       text_encoder_lr=rates.get("text_encoder", 0.0), share_s=second_per_row * batch.num_rows)
               for member, batch, loss, norm, rates
               in zip(pack.members, batches, losses_K.tolist(), norms_K, rates_K, strict=True)]


def forward(pack: Pack, batches: Sequence[MemberBatch]) -> Tensor:
    """Each member's loss [K]: mean squared error of the predicted noise (Ho et al. 2020, eq. 14) over its own rows."""
    import torch

    base, counts = pack.base, [batch.num_rows for batch in batches]
    captions = [caption for batch in batches for caption in batch.captions]
    noisy_BCHW = torch.cat([batch.noised.noisy_BCHW for batch in batches]).to(base.device)
    timesteps_B = torch.cat([batch.noised.timesteps_B for batch in batches]).to(base.device)
    target_BCHW = torch.cat([batch.noised.target_BCHW for batch in batches]).to(base.device)
    trains_text = any("text_encoder" in member.trained_parts for member in pack.members)
    with pack.bank.attached(), pack.bank.rows(counts), pack.autocast():
        with torch.set_grad_enabled(trains_text):
            states_BLD = base.text_states(captions)
        predicted_BCHW = base.unet(noisy_BCHW, timesteps_B, encoder_hidden_states=states_BLD).sample
    error_B = (predicted_BCHW.float() - target_BCHW).square().mean(dim=(1, 2, 3))
    return torch.stack([rows.mean() for rows in error_B.split(counts)])


def _step(pack: Pack, member: Member, loss: float, grad_norm: float) -> dict[Part, float]:
    if not (math.isfinite(loss) and math.isfinite(grad_norm)):
        member.diverged = f"loss {loss} with gradient norm {grad_norm} at step {member.step + 1}"
        return {}
    return pack.step_optimizer(member)
