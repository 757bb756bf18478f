"""The adapter bank: K adapters of any algorithms over one frozen base, in one forward pass.

The rows of a batch are laid out adapter after adapter; each row goes through the base once and through its own
adapter beside it. Neighbours of one structure (same layers, forms and ranks) are stacked, so that a layer costs two
batched matrix products per structure and not two products per trial.

Shapes: K adapters of a group, N parameters of one adapter, T layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sweep.network.apply import Draws, Stack, add_to, is_plain, share_of
from sweep.network.counter_random import keys_of
from sweep.network.forms import LOW_RANK, initial_tensors
from sweep.network.group import Group, Spec
from sweep.network.own_weights import own_layer
from sweep.network.spec import AdapterSpec
from sweep.network.targets import Part, Target

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sweep.network.adapted_linear import Step

__all__ = ["AdapterBank", "AdapterParameter", "AdapterSpec"]


@dataclass(frozen=True, slots=True)
class AdapterParameter:
    """One tensor of an adapter with its gradient, both views into the bank."""

    part: Part
    is_up: bool  # starts at zero
    tensor: Tensor
    grad: Tensor


class AdapterBank:
    """K adapters over one base. Those of one structure are stacked where they are neighbours (`packing` sees to it).

    rows: how many rows of the batch belong to each adapter, in order; set before every forward pass.
    """

    def __init__(self, targets: Sequence[Target], specs: Sequence[Spec], device: torch.device | str = "cpu"):
        self.targets = list(targets)
        self.specs = list(specs)
        self._device = device
        structures = [{key: layer.form for key, layer in spec.layers(targets).items()} for spec in specs]
        self.groups = [Group(targets, specs[start:end], device) for start, end in _runs(structures)]
        self._layout = _Layout([])
        self._layouts: dict[Sequence[tuple[int, bool]], _Layout] = {}  # without dropout one serves all batches like it

    def group_of(self, adapter: int) -> tuple[Group, int]:
        """The group of an adapter and its row there."""
        for group in self.groups:
            if adapter < group.size:
                return group, adapter
            adapter -= group.size
        raise IndexError(adapter)

    def init_weights(self, adapter: int, seed: int) -> None:
        """The weights training starts from, a function of (seed, layer): they change nothing of the base's answer."""
        import torch

        group, row = self.group_of(adapter)
        with torch.no_grad():
            for target in group.targets:
                drawn = initial_tensors(group.layers_K[row][target.key].form, target, seed)
                for name, leaf in group.leaves[target.key].items():
                    leaf[row].copy_(drawn[name])

    def load_weights(self, adapter: int, weights: Mapping[str, Mapping[str, Tensor]]) -> None:
        """weights: the tensors of a file by target key and name; layers that it lacks contribute nothing."""
        import torch

        group, row = self.group_of(adapter)
        with torch.no_grad():
            for key, leaves in group.leaves.items():
                for name, leaf in leaves.items():
                    if key in weights:
                        leaf[row].copy_(weights[key][name].reshape(leaf.shape[1:]))
                    else:
                        leaf[row].zero_()

    def weights(self, adapter: int) -> dict[str, dict[str, Tensor]]:
        """By target key and file name: the parameters as views, and the constants (alpha...) a file holds."""
        group, row = self.group_of(adapter)
        return {key: {**{name: leaf.detach()[row] for name, leaf in leaves.items()},
                      **group.layers_K[row][key].constants()} for key, leaves in group.leaves.items()}

    def flat(self, adapter: int) -> Tensor:
        """All parameters of one adapter as a row [N], a view."""
        group, row = self.group_of(adapter)
        return group.params_KN[row]

    def flat_grad(self, adapter: int) -> Tensor:
        group, row = self.group_of(adapter)
        return group.grads_KN[row]

    def spans(self, adapter: int) -> list[tuple[Part, bool, slice]]:
        """Contiguous runs of `flat` of one (part, is_up), in order; runs without parameters are left out."""
        places = self.group_of(adapter)[0].places
        runs = _runs([(place.part, place.is_up) for place in places])
        return [(places[start].part, places[start].is_up,
                 slice(places[start].columns.start, places[end - 1].columns.stop)) for start, end in runs]

    def parameters_of(self, adapter: int) -> list[AdapterParameter]:
        """Tensor by tensor, in the order of `flat`."""
        group, row = self.group_of(adapter)
        found = []
        for place in group.places:
            leaf = group.leaves[place.key][place.name]
            assert leaf.grad is not None
            found.append(AdapterParameter(place.part, place.is_up, leaf.detach()[row], leaf.grad[row]))
        return found

    def zero_grad(self) -> None:
        for group in self.groups:
            group.grads_KN.zero_()

    def scale_weight_norms(self, adapter: int, max_norm: float) -> tuple[Tensor, Tensor]:
        """Scale back the layers whose ||alpha / dim * up @ down|| exceeds max_norm, up and down by the same factor
        (sd-scripts' scale_weight_norms).

        Returns the norms before and after, [T] each, left on the device: this runs at every step.
        """
        import torch

        group, row = self.group_of(adapter)
        pairs = [(leaves["lora_down.weight"][row].detach(), leaves["lora_up.weight"][row].detach(),
                  group.scales[key][row]) for key, leaves in group.leaves.items()
                 if group.layers_K[row][key].form.algorithm in LOW_RANK]
        if not pairs:
            return torch.zeros(0), torch.zeros(0)
        # ||U D||^2 = <U'U, DD'>, without the product itself
        norms_T = torch.stack([scale * (_gram(up.flatten(1).T) * _gram(down.flatten(1))).sum().clamp(min=0).sqrt()
                               for down, up, scale in pairs])
        ratios_T = (max_norm / norms_T).clamp(max=1.0)
        for (down, up, _), ratio in zip(pairs, ratios_T.sqrt(), strict=True):
            down.mul_(ratio)
            up.mul_(ratio)
        return norms_T, norms_T * ratios_T

    @contextmanager
    def rows(self, counts: Sequence[int], draws: Sequence[tuple[int, int] | None] | None = None) -> Iterator[None]:
        """Inside, the batch's first counts[0] rows belong to adapter 0, the next counts[1] to adapter 1, ...

        draws: (trial seed, batch index) per adapter, from which its dropout is drawn; None = nothing is dropped.
        A layer may see a whole multiple of these rows (a long prompt's chunks, each prompt's together). Under gradient
        checkpointing the backward pass belongs inside too, since it goes through the layers again.
        """
        assert len(counts) == len(self.specs), "one count per adapter"
        previous, self._layout = self._layout, self._plan(counts, draws or [None] * len(counts))
        try:
            yield
        finally:
            self._layout = previous

    @contextmanager
    def attached(self) -> Iterator[AdapterBank]:
        """Inside, the base's target layers add their adapters' outputs."""
        taken = {key for group in self.groups for key in group.leaves}
        before = {target.key: vars(target.module).get("forward") for target in self.targets if target.key in taken}
        for target in self.targets:
            if target.key in taken:
                target.module.forward = self._forward_of(target)  # type: ignore[method-assign]
        try:
            yield self
        finally:
            for target in self.targets:
                if target.key in taken:
                    del target.module.forward  # the class's own again
                    if before[target.key] is not None:
                        target.module.forward = before[target.key]  # type: ignore[method-assign, assignment]

    def _plan(self, counts: Sequence[int], draws: Sequence[tuple[int, int] | None]) -> _Layout:
        """Neighbours of one structure with equally many rows go through one stacked product."""
        segments, first_adapter, first_row = [], 0, 0
        for group in self.groups:
            mine = slice(first_adapter, first_adapter + group.size)
            kinds = [(count, draw is None) for count, draw in zip(counts[mine], draws[mine], strict=True)]
            for start, end in _runs(kinds):
                num_rows = kinds[start][0] * (end - start)
                if num_rows:
                    drawn = _draws(group, start, end, draws[mine][start:end], self._device)
                    segments.append(_Segment(group, slice(start, end), first_row, first_row + num_rows, drawn))
                first_row += num_rows
            first_adapter += group.size
        layout = _Layout(segments)
        if any(segment.draws is not None or not segment.is_whole for segment in segments):
            return layout  # what it finds out holds for this batch alone
        return self._layouts.setdefault(tuple((count, draw is None) for count, draw in zip(counts, draws, strict=True)),
                                        layout)

    def _forward_of(self, target: Target) -> Callable[[Tensor], Tensor]:
        """What the layer does while adapters are attached."""
        import torch

        from sweep.network.adapted_linear import adapted_linear, compute_dtype, is_cheaper_merged, step_of

        module: Any = target.module
        frozen, is_product = module.forward, target.is_product
        if target.kind == "tokens":
            table = module.forward

            def frozen(ids: Tensor) -> Tensor:  # new tokens have ids below 0, for which the table has no row
                return table(ids.clamp(min=0))

        def forward(x: Tensor) -> Tensor:
            fused = self._layout.fused
            signature = (target.key, x.shape, compute_dtype(x), torch.is_grad_enabled())
            if signature in fused:
                return adapted_linear(module, x, fused[signature])
            pieces = self._pieces(target.key, x)
            stacks = [stack for _, stack in pieces if stack is not None]
            if len(stacks) == len(pieces) and all(stack.replaces for stack in stacks):
                owned = [own_layer(x[rows], stack.target, stack.tensors) for rows, stack in pieces if stack is not None]
                return owned[0] if len(owned) == 1 else torch.cat(owned)
            if is_product and all(is_plain(stack) for stack in stacks):
                shares = [share_of(stack, rows) for rows, stack in pieces if stack is not None]
                # alone and beside its layer, an adapter is quicker through autograd's own operators
                if len(self.specs) > 1 or any(is_cheaper_merged(x, share) for share in shares):
                    fused[signature] = step = step_of(x, shares)
                    return adapted_linear(module, x, step)
            output: Tensor = frozen(x)
            if len(pieces) == 1 and stacks:
                return add_to(output, x, stacks[0])
            return torch.cat([output[rows] if stack is None else add_to(output[rows], x[rows], stack)
                              for rows, stack in pieces])

        return forward

    def _pieces(self, key: str, x: Tensor) -> list[tuple[slice, Stack | None]]:
        """The rows of x by segment, with what adds to them there; None where a structure leaves the layer out."""
        segments = self._layout.segments
        assert segments and len(x) % segments[-1].last_row == 0, "the batch does not match bank.rows"
        times = len(x) // segments[-1].last_row
        return [(slice(segment.first_row * times, segment.last_row * times),
                 segment.stack(key) if key in segment.group.leaves else None) for segment in segments]


@dataclass(slots=True)
class _Layout:
    """Whose the rows of a batch are. fused: what was found out for its layers, by layer, shape, precision and whether
    gradients are wanted."""

    segments: Sequence[_Segment]
    fused: dict[tuple[object, ...], Step] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Segment:
    """Rows [first_row, last_row) of the batch, which belong to some neighbours of a group."""

    group: Group
    members: slice
    first_row: int
    last_row: int
    draws: Draws | None

    @property
    def is_whole(self) -> bool:
        return self.members.stop - self.members.start == self.group.size

    def stack(self, key: str) -> Stack:
        whole, members = self.group.stacks[key], self.members
        if self.is_whole:
            return whole if self.draws is None else replace(whole, draws=self.draws)
        return Stack(whole.target, whole.form, {name: leaf[members] for name, leaf in whole.tensors.items()},
                     whole.scale_K[members], whole.strength_K[members], whole.factor_K[members], self.draws,
                     whole.replaces)


def _draws(group: Group, start: int, end: int, draws: Sequence[tuple[int, int] | None],
           device: torch.device | str) -> Draws | None:
    """The dropout of some neighbours; None if there is none, so that it costs nothing."""
    import torch

    given = [draw for draw in draws if draw is not None]
    if not given:
        return None
    specs = group.specs[start:end]
    rates = {name: [getattr(spec, name) for spec in specs]
             for name in ("network_dropout", "rank_dropout", "module_dropout")}
    rates = {name: values for name, values in rates.items() if any(values)}
    is_dylora = any(layer.form.algorithm == "dylora" for layer in group.layers_K[start].values())
    if not rates and not is_dylora:
        return None
    return Draws({name: keys_of(given, name, device) for name in (*rates, "dylora")},
                 {name: torch.tensor(values, device=device) for name, values in rates.items()})


def _gram(rows_RN: Tensor) -> Tensor:
    return rows_RN @ rows_RN.T


def _runs(values: Sequence[object]) -> list[tuple[int, int]]:
    """[start, end) of each run of equal neighbours."""
    starts = [i for i in range(len(values)) if i == 0 or values[i] != values[i - 1]]
    return list(zip(starts, [*starts[1:], len(values)], strict=False))
