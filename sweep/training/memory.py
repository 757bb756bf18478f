"""How much memory a trial takes in a pack, and what running out of it looks like."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sweep.data.batches import Batch
from sweep.training import loop
from sweep.training.pack import Member, Pack, Pass

if TYPE_CHECKING:
    import torch

    from sweep.model.base import Base
    from sweep.network.targets import Target

USABLE_FRAC = {"cuda": 0.85, "cpu": 0.6}  # of the free memory; on the CPU temporaries are not counted
_OF_ADAPTER = 4  # weights, gradients and an optimizer's two states, as large as the weights each


def trial_bytes(base: Base, targets: list[Target], member: Member) -> int:
    """What one more trial like this takes at its largest batch: measured on a GPU, counted elsewhere, on fake
    tensors too.

    member: a fresh one; it is left as it was.
    """
    probe = Member(train_id=member.train_id, config=member.config, num_steps=member.num_steps, data=member.data,
                   known_text=member.known_text)
    pack = Pack(base, targets, [probe])
    one = Pass(((probe, _largest_batch(member)),))
    adapter = _OF_ADAPTER * pack.flat_of(probe).numel() * pack.flat_of(probe).element_size()
    activations = _measured(pack, one) if base.device.type == "cuda" else _counted(pack, one)
    pack.change([])
    return activations + adapter


def num_that_fit(device: torch.device, bytes_each: int, threads: int) -> int:
    """At least 1. threads: of this worker; the others are taken to be like it, and share the CPU's memory."""
    import psutil
    import torch

    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    num_workers = 1 if device.type == "cuda" else max(1, (os.cpu_count() or 1) // threads)
    return max(1, int(USABLE_FRAC[device.type] * free / num_workers / bytes_each))


def _largest_batch(member: Member) -> Batch:
    batches = (batch for step in range(min(member.data.steps_per_epoch, 512)) for batch in member.data.batches_at(step))
    return max(batches, key=lambda batch: batch.moments_BMHW.numel())


def _measured(pack: Pack, one: Pass) -> int:
    """The peak of a forward and backward pass above what stood before it."""
    import torch

    device = pack.base.device
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    with pack.forward(pack.counts(one), pack.draws(one)):
        loop.forward(pack, one).sum().backward()
    peak = torch.cuda.max_memory_allocated(device) - before
    torch.cuda.empty_cache()
    return peak


def _counted(pack: Pack, one: Pass) -> int:
    """What the forward pass keeps for the backward pass, each storage once, without weights."""
    with saved_bytes(pack) as total, pack.forward(pack.counts(one), pack.draws(one)):
        loop.forward(pack, one)
    return total[0]


@contextmanager
def saved_bytes(pack: Pack) -> Iterator[list[int]]:
    """Inside, counts the bytes that autograd keeps of what is neither a weight of the base nor an adapter's."""
    import torch

    models = [pack.base.unet, *pack.base.text_encoders]
    kept: dict[int, Any] = {}  # holding them, no other storage can get the same address
    known = {weight.untyped_storage()._cdata for model in models for weight in (*model.parameters(), *model.buffers())}
    known |= {group.params_KN.untyped_storage()._cdata for group in pack.bank.groups}
    total = [0]

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known and storage._cdata not in kept:
            kept[storage._cdata] = storage
            total[0] += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        yield total
