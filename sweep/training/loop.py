"""The training loop: shared passes over the frozen base take every member of a pack one update further."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sweep.model.base import Base, TextStates
from sweep.network.targets import Part
from sweep.training.objective import losses, noised_batch
from sweep.training.pack import Member, Pack, Pass
from sweep.training.precision import dtype_named

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRow:
    """What one step of one member came to."""

    member: Member
    step: int  # the step just made, from 1
    loss: float  # mean over the batches that it adds up
    grad_norm: float
    unet_lr: float  # as scheduled
    text_encoder_lr: float
    used_rates: dict[Part, float]  # as the optimizer took them: d times the scheduled one for Prodigy and D-Adaptation
    loss_scale: float | None  # in fp16
    is_skipped: bool  # its gradients overflowed in fp16
    share_s: float  # its share of the passes' time, by rows, and what its own optimizer took


@dataclass(slots=True)
class _Update:
    """What the passes of one update come to for one member."""

    losses: list[float] = field(default_factory=list)
    num_rows: int = 0

    @property
    def loss(self) -> float:
        return sum(self.losses) / len(self.losses)


def train(pack: Pack) -> Iterator[list[StepRow]]:
    """Step all members until none is left; yields a row per member after each update.

    Between two updates the caller may save, score and drop members; it must drop those that are finished. A member
    whose loss or gradient is not finite is not stepped: it is marked diverged, and the others go on; so it is if its
    optimizer fails. In fp16 a gradient that overflows only costs its trial that step.
    """
    while pack.members:
        assert not any(member.is_finished for member in pack.members), "finished members must be dropped"
        started = time.perf_counter()
        pack.bank.zero_grad()
        updates = {member.train_id: _Update() for member in pack.members}
        for one in pack.passes():
            with pack.forward(pack.counts(one), pack.draws(one)):
                losses_K = forward(pack, one)
                (losses_K * _factors(one).to(losses_K)).sum().backward()
            for (member, batch), loss in zip(one.batches, losses_K.tolist(), strict=True):
                updates[member.train_id].losses.append(loss)
                updates[member.train_id].num_rows += batch.num_rows
        norms_K = pack.clip_gradients()
        second_per_row = (time.perf_counter() - started) / sum(update.num_rows for update in updates.values())
        yield [_step(pack, member, updates[member.train_id].loss, norm,
                     second_per_row * updates[member.train_id].num_rows)
               for member, norm in zip(list(pack.members), norms_K, strict=True)]


def forward(pack: Pack, one: Pass) -> Tensor:
    """The loss of each member in the pass, [K]: the mean over its own rows. Inside `pack.forward`."""
    import torch

    base = pack.base
    sizes = [size for _, batch in one.batches for size in batch.sizes]
    noised = [noised_batch(batch, base.alphas_cumprod, base.scaling_factor, base.prediction_type, member.config)
              for member, batch in one.batches]
    noisy_BCHW = torch.cat([each.noisy_BCHW for each in noised]).to(base.device)
    timesteps_B = torch.cat([each.timesteps_B for each in noised]).to(base.device)
    with pack.autocast():
        text = _text_states(base, one)
        predicted_BCHW = base.predict(noisy_BCHW, timesteps_B, text, sizes).float()
    rows_of = predicted_BCHW.split([batch.num_rows for _, batch in one.batches])
    return torch.stack([
        losses(rows_BCHW, each, batch, base.alphas_cumprod, base.prediction_type, member.config).mean()
        for (member, batch), each, rows_BCHW in zip(one.batches, noised, rows_of, strict=True)])


def _text_states(base: Base, one: Pass) -> TextStates:
    """Of all rows: from what is known if that is enough, else through the text encoder."""
    import torch

    known = [member.known_text[caption] for member, batch in one.batches if member.known_text is not None
             for caption in batch.captions]
    if len(known) == sum(batch.num_rows for _, batch in one.batches):
        return TextStates.joined(known)
    reading = one.batches[0][0].config  # how captions are read: a pack agrees on it
    captions = [caption for member, batch in one.batches for caption in member.read(batch.captions)]
    with torch.set_grad_enabled(any("text_encoder" in member.trained_parts for member, _ in one.batches)):
        return base.text_states(captions, reading.clip_skip, reading.max_token_length)


def _factors(one: Pass) -> Tensor:
    """What each member's loss is multiplied by for its gradient, [K]: its loss scale, and its share of the batches that
    an update adds up."""
    import torch

    return torch.tensor([(1.0 if member.loss_scale is None else member.loss_scale.value)
                         / member.config.gradient_accumulation_steps for member, _ in one.batches])


def _step(pack: Pack, member: Member, loss: float, grad_norm: float, passes_s: float) -> StepRow:
    started = time.perf_counter()
    rates = {part: member.lr(part) for part in member.trained_parts}
    used: dict[Part, float] = dict.fromkeys(rates, 0.0)
    scale = member.loss_scale
    value = None if scale is None else scale.value
    is_skipped = scale is not None and math.isfinite(loss) and not math.isfinite(grad_norm)
    if is_skipped:
        assert scale is not None
        scale.note_overflow()
        if scale.is_exhausted:
            member.diverged = _divergence(member, loss, grad_norm) + f", at a loss scale of {value:g}"
        else:
            member.step += 1
    elif math.isfinite(loss) and math.isfinite(grad_norm):
        used = _stepped(pack, member, used)
        if scale is not None:
            scale.note_good()
    else:
        member.diverged = _divergence(member, loss, grad_norm)
    return StepRow(member=member, step=member.step, loss=loss, grad_norm=grad_norm, unet_lr=rates.get("unet", 0.0),
                   text_encoder_lr=rates.get("text_encoder", 0.0), used_rates=used, loss_scale=value,
                   is_skipped=is_skipped, share_s=passes_s + time.perf_counter() - started)


def _stepped(pack: Pack, member: Member, used: dict[Part, float]) -> dict[Part, float]:
    """The rates that its optimizer took. What goes wrong in it, or leaves weights that no file should hold, ends this
    member alone. Weights are looked at where they are about to be saved; in between the next loss tells."""
    import torch

    try:
        used = pack.step_optimizer(member)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        member.diverged = f"its optimizer failed at step {member.step + 1} with {type(error).__name__}: {error}"
        return used
    precision = member.config.save_precision
    limit = torch.finfo(dtype_named(precision)).max
    if member.is_at_checkpoint and not float(pack.flat_of(member).abs().max()) <= limit:  # NaN is not either
        member.diverged = f"weights that {precision} can't hold after step {member.step}"
    return used


def _divergence(member: Member, loss: float, grad_norm: float) -> str:
    return f"loss {loss} with gradient norm {grad_norm} at step {member.step + 1}"
