"""A pack: trials that train at the same time over one frozen base, each with its own adapter, optimizer and step.

Shapes: K trials, B images, N photos, C H W latent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sweep.data.batches import Batch, TrainData
from sweep.network.bank import AdapterBank
from sweep.network.spec import spec_of
from sweep.network.targets import PARTS, Part, Target
from sweep.train_config import TrainConfig
from sweep.training.scheduler import learning_rate

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sweep.model.base import Base


@dataclass(slots=True, kw_only=True)
class Member:
    """One trial of a pack."""

    train_id: str
    config: TrainConfig
    num_steps: int
    data: TrainData
    step: int = 0
    diverged: str = ""  # why, if it has
    handles: dict[Part, list[Tensor]] = field(default_factory=dict)  # what its optimizer steps: views into the bank
    optimizer: torch.optim.Optimizer | None = None

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
        self._rebuild(members)
        for k, member in enumerate(self.members):
            self.bank.init_weights(k, member.config.seed)
            member.optimizer = member.config.optimizer.build([member.handles[part] for part in member.trained_parts])

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
        import torch

        return torch.autocast(self.base.device.type, torch.bfloat16,
                              enabled=self.members[0].config.mixed_precision == "bf16")

    def clip_gradients(self) -> list[float]:
        """Scale each member's gradients to its `max_grad_norm`; returns the norms before.

        A part that is not trained has no parameters.
        """
        import torch

        norms = []
        for k, member in enumerate(self.members):
            grad_N = self.bank.flat_grad(k)
            norm = torch.linalg.vector_norm(grad_N)
            limit = member.config.max_grad_norm
            if limit > 0:
                grad_N.mul_((limit / (norm + 1e-6)).clamp(max=1.0))
            norms.append(float(norm))
        return norms

    def step_optimizer(self, member: Member) -> dict[Part, float]:
        """One update of a member; returns the rates it used."""
        assert member.optimizer is not None
        rates = {part: member.lr(part) for part in member.trained_parts}
        for group, rate in zip(member.optimizer.param_groups, rates.values(), strict=True):
            group["lr"] = rate
        member.optimizer.step()
        if member.config.scale_weight_norms is not None:
            self.bank.scale_weight_norms(self._index(member), member.config.scale_weight_norms)
        member.step += 1
        return rates

    def drop(self, leaving: Iterable[Member]) -> None:
        """Take members out; the others keep their weights, optimizer states and steps."""
        gone = {id(member) for member in leaving}
        self._rebuild([member for member in self.members if id(member) not in gone])

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

    def _rebuild(self, members: Sequence[Member]) -> None:
        """Lay out a new bank for `members` and carry over the weights of those that were in the old one."""
        import torch

        old = {id(member): self.bank.flat(k) for k, member in enumerate(self.members)}
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
        views = _views(self.bank, k, member)
        for part, pairs in views.items():
            handles = member.handles.setdefault(part, [param.detach() for param, _ in pairs])
            for handle, (param, grad) in zip(handles, pairs, strict=True):
                handle.data = param
                handle.grad = grad


def _views(bank: AdapterBank, k: int, member: Member) -> Mapping[Part, list[tuple[Tensor, Tensor]]]:
    """(parameter, gradient) views per part: a flat pair for an elementwise optimizer, else a pair per layer tensor."""
    flat_N, grad_N = bank.flat(k), bank.flat_grad(k)
    if member.config.optimizer.is_elementwise:
        columns = {part: bank.columns(k, part) for part in member.trained_parts}
        return {part: [(flat_N[span], grad_N[span])] for part, span in columns.items()}
    views: dict[Part, list[tuple[Tensor, Tensor]]] = {part: [] for part in member.trained_parts}
    for parameter in bank.parameters_of(k):
        views[parameter.part].append((parameter.tensor, parameter.grad))
    return views
