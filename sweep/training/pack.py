"""A pack: trials that train at the same time over one frozen base, each with its own adapter, optimizer and step.

Shapes: K trials, B images, N photos, C H W latent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sweep.data.batches import Batch, TrainData
from sweep.methods import TEXTUAL_INVERSION
from sweep.model.text import with_new_words
from sweep.network.bank import AdapterBank
from sweep.network.spec import spec_of
from sweep.network.targets import PARTS, Part, Target
from sweep.train_config import TrainConfig
from sweep.training.loss_scale import LossScale
from sweep.training.optimizer_settings import Group
from sweep.training.precision import autocast, check_precision
from sweep.training.scheduler import learning_rate
from sweep.training.trial_optimizer import TrialOptimizer

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sweep.model.base import Base, TextStates


@dataclass(slots=True, kw_only=True)
class Member:
    """One trial of a pack."""

    train_id: str
    config: TrainConfig
    num_steps: int
    data: TrainData
    known_text: Mapping[str, TextStates] | None = None  # of all its captions, where nothing makes them vary
    step: int = 0
    diverged: str = ""  # why, if it has
    handles: list[Tensor] = field(default_factory=list)  # what its optimizer steps: views into the bank
    optimizer: TrialOptimizer | None = None
    loss_scale: LossScale | None = None  # in fp16
    ema_N: Tensor | None = None  # running mean of its parameters

    @property
    def trained_parts(self) -> list[Part]:
        return [part for part in PARTS if self.base_lr(part) > 0]

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        return self.step // self.data.steps_per_epoch

    @property
    def is_finished(self) -> bool:
        return self.step >= self.num_steps or bool(self.diverged)

    @property
    def is_at_checkpoint(self) -> bool:
        """Whether a LoRA file is due after the step just made."""
        every, per_epoch = self.config.save_every_n_steps, self.data.steps_per_epoch
        at_epoch = self.step % per_epoch == 0 and self.epoch % self.config.save_every_n_epochs == 0
        return self.step == self.num_steps or at_epoch or (every is not None and self.step % every == 0)

    def read(self, captions: Sequence[str]) -> list[str]:
        """The captions as the text encoder gets them: textual inversion's new tokens in the trigger's place."""
        method = self.config.method
        if method.name != TEXTUAL_INVERSION:
            return list(captions)
        assert self.config.trigger is not None, "known once the photos are read"
        return [with_new_words(caption, self.config.trigger, method.num_vectors) for caption in captions]

    def base_lr(self, part: Part) -> float:
        return self.config.unet_lr if part == "unet" else self.config.text_encoder_lr

    def lr(self, part: Part) -> float:
        """The rate that the next update of a part uses."""
        return learning_rate(self.config.scheduler, self.base_lr(part), self.step, self.num_steps,
                             self.config.lr_warmup_steps)


@dataclass(frozen=True, slots=True)
class Pass:
    """Rows of several members that go through the base together: one latent shape, at most one batch of each."""

    batches: tuple[tuple[Member, Batch], ...]  # in the bank's order

    @property
    def num_rows(self) -> int:
        return sum(batch.num_rows for _, batch in self.batches)


class Pack:
    """The members over one bank. Membership changes at step boundaries only."""

    def __init__(self, base: Base, targets: Sequence[Target], members: Sequence[Member]):
        self.base = base
        self.targets = list(targets)
        self.members: list[Member] = []
        self.bank = AdapterBank(targets, [])
        self.change(members)

    def passes(self) -> list[Pass]:
        """The passes of each member's next update: batches that a member accumulates come one after the other, and
        rows of other latent shapes in a pass of their own."""
        waiting = [(member, member.data.batches_at(member.step)) for member in self.members]
        passes = []
        for i in range(max(len(batches) for _, batches in waiting)):
            by_shape: dict[tuple[int, int], list[tuple[Member, Batch]]] = {}
            for member, batches in waiting:
                if i < len(batches):
                    by_shape.setdefault(batches[i].latent_shape, []).append((member, batches[i]))
            passes += [Pass(tuple(group)) for group in by_shape.values()]
        return passes

    def counts(self, one: Pass) -> list[int]:
        """How many rows of a pass belong to each member, in the bank's order."""
        rows = {id(member): batch.num_rows for member, batch in one.batches}
        return [rows.get(id(member), 0) for member in self.members]

    def autocast(self) -> torch.autocast:
        """The precision that its members agree on (`packing` sees to that)."""
        return autocast(self.base.device, self.members[0].config.mixed_precision)

    @contextmanager
    def forward(self, counts: Sequence[int], draws: Sequence[tuple[int, int] | None] | None = None) -> Iterator[None]:
        """Inside, the base's layers add the adapters of `counts` rows each, with the dropout that `draws` give. A
        backward pass belongs inside too: under gradient checkpointing it runs the layers again."""
        with self.bank.attached(), self.bank.rows(counts, draws):
            yield

    def clip_gradients(self) -> list[float]:
        """Take the loss scale out of each member's gradients and scale them to its `max_grad_norm`; returns the norms
        before.

        A part that is not trained has no parameters.
        """
        import torch

        for k, member in enumerate(self.members):
            if member.loss_scale is not None:
                self.bank.flat_grad(k).mul_(1 / member.loss_scale.value)
        norms_K = torch.stack([torch.linalg.vector_norm(self.bank.flat_grad(k)) for k in range(len(self.members))])
        norms: list[float] = norms_K.tolist()  # one wait for the device, not one each
        for k, (member, norm) in enumerate(zip(self.members, norms, strict=True)):
            factor = member.config.max_grad_norm / (norm + 1e-6)
            if 0 < factor < 1:
                self.bank.flat_grad(k).mul_(factor)
        return norms

    def step_optimizer(self, member: Member) -> dict[Part, float]:
        """One update of a member; returns the rates that it really took (for Prodigy d times the rate)."""
        assert member.optimizer is not None
        used = member.optimizer.step({part: member.lr(part) for part in member.trained_parts})
        if member.config.scale_weight_norms is not None:
            self.bank.scale_weight_norms(self._index(member), member.config.scale_weight_norms)
        member.step += 1
        if member.ema_N is not None:
            assert member.config.ema_decay is not None
            # early means reach back over fewer steps, so that the initial weights do not linger
            decay = min(member.config.ema_decay, member.step / (member.step + 9))
            member.ema_N.lerp_(self.flat_of(member).detach(), 1 - decay)
        return used

    @contextmanager
    def as_saved(self, member: Member) -> Iterator[None]:
        """Inside, the member's row of the bank holds what its file gets: a schedule-free optimizer's average, or the
        EMA. Afterwards it holds the training weights again, bit for bit."""
        assert member.optimizer is not None
        flat_N = self.flat_of(member).detach()
        kept_N = flat_N.clone()
        try:
            with member.optimizer.averaged():
                if member.ema_N is not None:
                    flat_N.copy_(member.ema_N)
                yield
        finally:
            flat_N.copy_(kept_N)

    def change(self, members: Sequence[Member]) -> None:
        """From now on these, in this order. Who stays keeps its weights, optimizer state and step; who is new starts
        from its seed."""
        staying = {id(member) for member in self.members}
        self._rebuild(members)
        for k, member in enumerate(self.members):
            if id(member) not in staying:
                self._start(k, member)
        if self.members:
            check_precision(self.base.device, self.members[0].config.mixed_precision)
            set_gradient_checkpointing(self.base, self.members[0].config.gradient_checkpointing)

    def drop(self, leaving: Iterable[Member]) -> None:
        """Take members out."""
        gone = {id(member) for member in leaving}
        self.change([member for member in self.members if id(member) not in gone])

    def draws(self, one: Pass) -> list[tuple[int, int] | None]:
        """What each member's dropout is drawn from, in the bank's order."""
        index_of = {id(member): batch.index for member, batch in one.batches}
        return [(member.config.seed, index_of.get(id(member), 0)) for member in self.members]

    def weights_of(self, member: Member) -> dict[str, dict[str, Tensor]]:
        """The tensors of its file by target key and name."""
        return self.bank.weights(self._index(member))

    def flat_of(self, member: Member) -> Tensor:
        """All its parameters as a row, a view."""
        return self.bank.flat(self._index(member))

    def _index(self, member: Member) -> int:
        return next(k for k, other in enumerate(self.members) if other is member)

    def _start(self, k: int, member: Member) -> None:
        self.bank.init_weights(k, member.config.seed)
        member.optimizer = TrialOptimizer(member.config.optimizer, _groups(self.bank, k, member))
        if member.config.mixed_precision == "fp16":
            member.loss_scale = LossScale()
        if member.config.ema_decay is not None:
            member.ema_N = self.bank.flat(k).detach().clone()

    def _rebuild(self, members: Sequence[Member]) -> None:
        """Lay out a new bank for `members` and carry over the weights of those that were in the old one, by way of the
        CPU: two banks at a time may not fit."""
        import torch

        staying = {id(member) for member in members}
        old = {id(member): self.bank.flat(k).detach().to("cpu", copy=True) for k, member in enumerate(self.members)
               if id(member) in staying}
        for member in self.members:  # nobody may hold on to the old bank
            for handle in member.handles:
                handle.grad = None
                handle.data = torch.empty(0, device=handle.device) if id(member) in staying else handle.clone()
        self.bank = AdapterBank(self.targets, [])
        self.bank = AdapterBank(self.targets, [spec_of(member.config) for member in members], self.base.device)
        self.members = list(members)
        for k, member in enumerate(self.members):
            flat_N = self.bank.flat(k)
            if id(member) in old:
                with torch.no_grad():
                    flat_N.copy_(old[id(member)])
            self._point_handles(k, member)

    def _point_handles(self, k: int, member: Member) -> None:
        """Let the tensors that the member's optimizer knows look at the member's row of the bank."""
        pairs = [pair for _, _, pairs in _grouped(self.bank, k, member) for pair in pairs]
        member.handles = member.handles or [param.detach() for param, _ in pairs]
        for handle, (param, grad) in zip(member.handles, pairs, strict=True):
            handle.data = param
            handle.grad = grad


def set_gradient_checkpointing(base: Base, is_on: bool) -> None:
    """Of the UNet, whose activations fill the memory. It acts only where gradients are taken."""
    if is_on:
        base.unet.enable_gradient_checkpointing()
    else:
        base.unet.disable_gradient_checkpointing()


def _groups(bank: AdapterBank, k: int, member: Member) -> list[Group]:
    """The member's handles by their rates."""
    handles = iter(member.handles)
    return [Group(part, factor, tuple(next(handles) for _ in pairs))
            for part, factor, pairs in _grouped(bank, k, member)]


def _grouped(bank: AdapterBank, k: int, member: Member) -> list[tuple[Part, float, list[tuple[Tensor, Tensor]]]]:
    """(part, factor on its rate, (parameter, gradient) views): runs of the adapter's row as long as can be for an
    elementwise optimizer, else a pair per matrix. LoRA+ (Hayou et al. 2024, section 4) gives up matrices a higher rate.
    """
    groups: dict[tuple[Part, float], list[tuple[Tensor, Tensor]]] = {}
    ratio = member.config.loraplus_lr_ratio or 1.0

    def views(part: Part, is_up: bool) -> list[tuple[Tensor, Tensor]]:
        return groups.setdefault((part, ratio if is_up else 1.0), [])

    if member.config.optimizer.is_elementwise:
        flat_N, grad_N = bank.flat(k), bank.flat_grad(k)
        runs: list[tuple[list[tuple[Tensor, Tensor]], int, int]] = []
        for part, is_up, span in bank.spans(k):
            if part not in member.trained_parts:
                continue
            place = views(part, is_up)
            if runs and runs[-1][0] is place and runs[-1][2] == span.start:
                runs[-1] = (place, runs[-1][1], span.stop)
            else:
                runs.append((place, span.start, span.stop))
        for place, start, stop in runs:
            place.append((flat_N[start:stop], grad_N[start:stop]))
    else:
        for parameter in bank.parameters_of(k):
            if parameter.part in member.trained_parts:
                views(parameter.part, parameter.is_up).append((parameter.tensor, parameter.grad))
    return [(part, factor, pairs) for (part, factor), pairs in groups.items()]
