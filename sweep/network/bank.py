"""The adapter bank: K LoRAs over one frozen base, in one forward pass.

The rows of a batch are laid out adapter after adapter; each row goes through the base once and through its own
adapter beside it. Adapters of one rank are stacked, so that a layer costs two batched matrix products per rank and
not two products per trial.

Shapes: K adapters of a rank group, B rows, L tokens, C channels, H W latent, R rank, I in, O out, N parameters of one
adapter.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.network.targets import PARTS, Part, Target
from sweep.randomness import generator

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterSpec:
    """What the bank needs to know of one LoRA. Its output is scaled by strength * alpha / dim (Hu et al. 2021, 4.1)."""

    dim: int
    alpha: float
    strength: float = 1.0

    @property
    def scale(self) -> float:
        return self.strength * self.alpha / self.dim


@dataclass(frozen=True, slots=True)
class AdapterParameter:
    """One trained matrix of an adapter. tensor, grad: views into the bank."""

    part: Part
    is_up: bool  # the matrix that starts at zero
    tensor: Tensor
    grad: Tensor


class RankGroup:
    """The adapters of one rank, stacked: one flat matrix of parameters and one of gradients, a row per adapter.

    `down[t]` [K,R,I] and `up[t]` [K,O,R] are leaves that look into the matrix, so autograd writes each layer's gradient
    to its place, and clipping or an elementwise optimizer sees all layers of an adapter as one row.
    """

    def __init__(self, targets: Sequence[Target], dim: int, scales: Sequence[float], device: torch.device | str):
        import torch

        self.dim = dim
        self.size = len(scales)
        self.columns, num_params = _columns(targets, dim)
        self.params_KN = torch.zeros(self.size, num_params, device=device)
        self.grads_KN = torch.zeros_like(self.params_KN)
        self.scale_K11 = torch.tensor(scales, device=device).view(-1, 1, 1)
        self.down: list[Tensor] = []
        self.up: list[Tensor] = []
        for target, (start, middle, end) in zip(targets, _offsets(targets, dim), strict=True):
            self.down.append(self._leaf(start, middle, (dim, target.in_features)))
            self.up.append(self._leaf(middle, end, (target.out_features, dim)))

    def _leaf(self, start: int, end: int, shape: tuple[int, int]) -> Tensor:
        # autograd warns that gradients with gaps between rows may be slow; they are what makes one row of an adapter
        warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout contract")
        leaf = self.params_KN[:, start:end].unflatten(1, shape).detach().requires_grad_()
        leaf.grad = self.grads_KN[:, start:end].unflatten(1, shape)
        return leaf


class AdapterBank:
    """K adapters over one base. Adapters must be ordered so that equal ranks stand together (`packing` sees to it).

    rows: how many rows of the batch belong to each adapter, in order; set before every forward pass.
    """

    def __init__(self, targets: Sequence[Target], specs: Sequence[AdapterSpec], device: torch.device | str = "cpu"):
        dims = [spec.dim for spec in specs]
        assert len(_runs(dims)) == len(set(dims)), "adapters of one rank must stand together"
        self.targets = list(targets)
        self.specs = list(specs)
        self.groups = [RankGroup(targets, dims[start], [spec.scale for spec in specs[start:end]], device)
                       for start, end in _runs(dims)]
        self._index_of = {id(target.module): index for index, target in enumerate(targets)}
        self._segments: list[_Segment] = []

    def group_of(self, adapter: int) -> tuple[RankGroup, int]:
        """The rank group of an adapter and its row there."""
        for group in self.groups:
            if adapter < group.size:
                return group, adapter
            adapter -= group.size
        raise IndexError(adapter)

    def init_weights(self, adapter: int, seed: int) -> None:
        """down: kaiming-uniform(a = sqrt 5), i.e. U(-1/sqrt(I), 1/sqrt(I)); up: zeros. A function of (seed, layer)."""
        import torch

        group, row = self.group_of(adapter)
        with torch.no_grad():
            for target, down, up in zip(self.targets, group.down, group.up, strict=True):
                bound = 1 / math.sqrt(target.in_features)
                uniform = torch.rand(down.shape[1:], generator=generator(seed, 0, f"init/{target.key}"))
                down[row].copy_((2 * uniform - 1) * bound)
                up[row].zero_()

    def load_weights(self, adapter: int, weights: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """weights: (down [R,I], up [O,R]) by target key; layers that it lacks contribute nothing."""
        import torch

        group, row = self.group_of(adapter)
        with torch.no_grad():
            for target, down, up in zip(self.targets, group.down, group.up, strict=True):
                pair = weights.get(target.key)
                if pair is None:
                    up[row].zero_()
                    continue
                down[row].copy_(pair[0].reshape(down.shape[1:]))
                up[row].copy_(pair[1].reshape(up.shape[1:]))

    def weights(self, adapter: int) -> dict[str, tuple[Tensor, Tensor]]:
        """(down [R,I], up [O,R]) by target key, as views."""
        group, row = self.group_of(adapter)
        return {target.key: (down.detach()[row], up.detach()[row])
                for target, down, up in zip(self.targets, group.down, group.up, strict=True)}

    def flat(self, adapter: int) -> Tensor:
        """All parameters of one adapter as a row [N], a view."""
        group, row = self.group_of(adapter)
        return group.params_KN[row]

    def flat_grad(self, adapter: int) -> Tensor:
        group, row = self.group_of(adapter)
        return group.grads_KN[row]

    def spans(self, adapter: int) -> list[tuple[Part, bool, slice]]:
        """Contiguous runs of one (part, is_up) in `flat`, in order."""
        return [run for target, (start, middle, end) in
                zip(self.targets, _offsets(self.targets, self.specs[adapter].dim), strict=True)
                for run in ((target.part, False, slice(start, middle)), (target.part, True, slice(middle, end)))]

    def parameters_of(self, adapter: int) -> list[AdapterParameter]:
        """Every matrix of one adapter, as views."""
        group, row = self.group_of(adapter)
        found = []
        for target, down, up in zip(self.targets, group.down, group.up, strict=True):
            for is_up, leaf in ((False, down), (True, up)):
                assert leaf.grad is not None
                found.append(AdapterParameter(target.part, is_up, leaf.detach()[row], leaf.grad[row]))
        return found

    def columns(self, adapter: int, part: Part) -> slice:
        """Where a part's parameters stand in `flat`."""
        return self.group_of(adapter)[0].columns[part]

    def zero_grad(self) -> None:
        for group in self.groups:
            group.grads_KN.zero_()

    @contextmanager
    def rows(self, counts: Sequence[int]) -> Iterator[None]:
        """Inside, the batch's first counts[0] rows belong to adapter 0, the next counts[1] to adapter 1, ..."""
        assert len(counts) == len(self.specs), "one count per adapter"
        previous, self._segments = self._segments, self._plan(counts)
        try:
            yield
        finally:
            self._segments = previous

    @contextmanager
    def attached(self) -> Iterator[AdapterBank]:
        """Inside, the base's target layers add their adapters' outputs."""
        handles = [target.module.register_forward_hook(self._hook) for target in self.targets]
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()

    def _plan(self, counts: Sequence[int]) -> list[_Segment]:
        """Runs of adapters of one rank with equally many rows go through one stacked product."""
        segments, first_adapter, first_row = [], 0, 0
        for group in self.groups:
            group_counts = counts[first_adapter:first_adapter + group.size]
            for start, end in _runs(group_counts):
                num_rows = group_counts[start] * (end - start)
                if num_rows:
                    segments.append(_Segment(group, start, end, first_row, first_row + num_rows))
                first_row += num_rows
            first_adapter += group.size
        return segments

    def _hook(self, module: torch.nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        import torch

        index = self._index_of[id(module)]
        x = args[0]
        assert self._segments and self._segments[-1].last_row == x.shape[0], "the batch does not match bank.rows"
        if len(self._segments) == 1:
            return self._segments[0].add(index, x, output)
        return torch.cat([segment.add(index, x[segment.first_row:segment.last_row],
                                      output[segment.first_row:segment.last_row]) for segment in self._segments])


@dataclass(frozen=True, slots=True)
class _Segment:
    """Rows [first_row, last_row) of the batch, which belong to rows [start, end) of a rank group."""

    group: RankGroup
    start: int
    end: int
    first_row: int
    last_row: int

    def add(self, index: int, x: Tensor, output: Tensor) -> Tensor:
        """output + scale * up(down(x)); x [B,L,I] or [B,I,H,W]."""
        import torch

        group, is_whole = self.group, self.end - self.start == self.group.size
        down_KRI, up_KOR, scale_K11 = group.down[index], group.up[index], group.scale_K11
        if not is_whole:
            span = slice(self.start, self.end)
            down_KRI, up_KOR, scale_K11 = down_KRI[span], up_KOR[span], scale_K11[span]
        num_adapters = self.end - self.start
        if x.ndim == 4:
            return self._add_conv(x, output, down_KRI, up_KOR, scale_K11)
        x_KTI = x.reshape(num_adapters, -1, x.shape[-1])
        out_KTO = output.reshape(num_adapters, -1, output.shape[-1])
        h_KTR = torch.bmm(x_KTI, down_KRI.transpose(1, 2)) * scale_K11
        return torch.baddbmm(out_KTO, h_KTR, up_KOR.transpose(1, 2)).view_as(output)

    def _add_conv(self, x: Tensor, output: Tensor, down_KRI: Tensor, up_KOR: Tensor, scale_K11: Tensor) -> Tensor:
        import torch

        num_adapters, (height, width) = self.end - self.start, x.shape[2:]
        x_KBIP = x.reshape(num_adapters, -1, x.shape[1], height * width)
        h_KBRP = torch.matmul(down_KRI.unsqueeze(1), x_KBIP) * scale_K11.unsqueeze(1)
        return output + torch.matmul(up_KOR.unsqueeze(1), h_KBRP).reshape(output.shape)


def _offsets(targets: Sequence[Target], dim: int) -> Iterator[tuple[int, int, int]]:
    """For each target where its down begins, its up begins, and its up ends, in a row of parameters."""
    end = 0
    for target in targets:
        start, middle = end, end + dim * target.in_features
        end = middle + dim * target.out_features
        yield start, middle, end


def _columns(targets: Sequence[Target], dim: int) -> tuple[dict[Part, slice], int]:
    """Each part's columns; targets come part by part."""
    bounds: dict[Part, slice] = {part: slice(0, 0) for part in PARTS}
    end = 0
    for target, (start, _, end) in zip(targets, _offsets(targets, dim), strict=True):
        first = bounds[target.part].start if bounds[target.part].stop else start
        bounds[target.part] = slice(first, end)
    return bounds, end


def _runs(values: Sequence[int]) -> list[tuple[int, int]]:
    """[start, end) of each run of equal neighbours."""
    starts = [i for i in range(len(values)) if i == 0 or values[i] != values[i - 1]]
    return list(zip(starts, [*starts[1:], len(values)], strict=False))
