"""A frozen linear layer, or 1x1 convolution, and K low-rank adapters as one step of autograd.

The base's product and the adapters' are summed in place, forward and backward, and adapters of several structures share
one output: nothing is cut out of the batch and joined again. Rank activations are kept as [K,R,T], ranks first: a
product whose last side is a rank of 8 runs at a sixth of the speed of the same product the other way round (measured
with MKL; at rank 32 they are alike). At the sizes of a small layer the calls cost as much as the products: hence two
ways written out, and slices, `mT` and `shape[0]`, which are the cheapest of their kind.

Shapes: B rows of the batch, K adapters of a segment, T = tokens of an adapter's rows, P pixels of one row, b rows of a
segment, R rank, I in, O out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_NARROW = 16  # ranks below it
_MERGING = 1.25  # what merging has to save in arithmetic to pay for building the weights


@dataclass(frozen=True, slots=True)
class Share:
    """K stacked adapters and the rows of the batch that are theirs."""

    rows: slice
    down_KRI: Tensor  # of a convolution with sides of 1 behind
    up_KOR: Tensor
    scale_K11: Tensor  # alpha / dim x strength; in fp32, since rounded it would be another strength


@dataclass(frozen=True, slots=True)
class Step:
    """How one layer's batch goes through its adapters: the same for all batches of one shape and layout, so that it is
    found out once."""

    shares: Sequence[Share]
    merged: Sequence[bool]  # whether a share's adapters go into its weights
    lengths: Sequence[int]  # of the runs of rows: each share's, and what is nobody's between them
    places: Sequence[int]  # of the shares among the runs
    frozen: Sequence[slice]  # the rows that go through the frozen weights themselves


def step_of(x: Tensor, shares: Sequence[Share]) -> Step:
    """Of a batch like x. shares: in the order of their rows."""
    lengths, places, end = [], [], 0
    for share in shares:
        if share.rows.start > end:
            lengths.append(share.rows.start - end)
        places.append(len(lengths))
        lengths.append(share.rows.stop - share.rows.start)
        end = share.rows.stop
    if end < x.shape[0]:
        lengths.append(x.shape[0] - end)
    merged = [is_cheaper_merged(x, share) for share in shares]
    taken = [share.rows for share, is_in in zip(shares, merged, strict=True) if is_in]
    edges = [0, *(edge for part in taken for edge in (part.start, part.stop)), x.shape[0]]
    frozen = [slice(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True) if start < stop]
    return Step(shares, merged, lengths, places, frozen)


def adapted_linear(module: torch.nn.Linear | torch.nn.Conv2d, x: Tensor, step: Step) -> Tensor:
    """W x + b, plus scale * up(down(x)) (Hu et al. 2021, Eq. 3) of each adapter on its own rows. x [B,...,I], or
    [B,I,H,W] for a 1x1 convolution. Under autocast in its precision."""
    weight, bias = module.weight, module.bias
    tensors = [tensor.flatten(2) for share in step.shares for tensor in (share.down_KRI, share.up_KOR)]
    dtype = compute_dtype(x)
    if dtype != torch.float32:
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        tensors = [tensor.to(dtype) for tensor in tensors]
    if x.ndim < 4:
        output: Tensor = _Tokens.apply(x, weight, bias, step, *tensors)
    else:
        output = _Pixels.apply(x.flatten(2), weight.flatten(1), bias, step, *tensors)
    return output.unflatten(2, x.shape[2:]) if x.ndim == 4 else output


def is_cheaper_merged(x: Tensor, share: Share) -> bool:
    """Whether adapters cost less as part of the weights, W + scale * up @ down, than beside them: where the rank is not
    small against the layer. In fp32 alone: in half precision small adapters would drown in W's rounding."""
    if compute_dtype(x) != torch.float32:
        return False
    (num_adapters, rank, num_in), num_out = share.down_KRI.shape[:3], share.up_KOR.shape[1]
    tokens = x.numel() // x.shape[0] * (share.rows.stop - share.rows.start) // num_in // num_adapters
    beside, product = tokens * rank * (num_in + num_out), num_in * num_out * rank
    if torch.is_grad_enabled():  # the gradient of W's size, and from it those of up and down
        return _MERGING * (3 * product + tokens * num_in * num_out) < 3 * beside
    return _MERGING * product < beside


class _Tokens(torch.autograd.Function):
    """Of x [B,...,I]. The base's weight and bias have no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, step: Step,
                *tensors: Tensor) -> Tensor:
        x = x.contiguous()
        output = _frozen_tokens(x, weight, bias, step)
        x_parts, output_parts = x.split(step.lengths), output.split(step.lengths)
        kept = []
        for i, (share, place) in enumerate(zip(step.shares, step.places, strict=True)):
            down_KRI, up_KOR = tensors[2 * i], tensors[2 * i + 1]
            x_KTI, output_KTO = _stacked(x_parts[place], down_KRI), _stacked(output_parts[place], down_KRI)
            if step.merged[i]:
                merged_KOI = _merged(weight, down_KRI, up_KOR, share)
                torch.bmm(x_KTI, merged_KOI.mT, out=output_KTO)
                if bias is not None:
                    output_KTO.add_(bias)
                kept.append(merged_KOI)
            else:
                h_KRT = torch.bmm(down_KRI, x_KTI.mT).mul_(share.scale_K11)
                output_KTO.baddbmm_(h_KRT.mT, up_KOR.mT)
                kept.append(h_KRT)
        ctx.save_for_backward(x, weight, *tensors, *kept)
        ctx.step = step
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, *saved = ctx.saved_tensors
        step: Step = ctx.step
        grad = grad.contiguous()
        grad_x = _frozen_tokens(grad, weight.mT, None, step) if ctx.needs_input_grad[0] else None
        x_parts, grad_parts = x.split(step.lengths), grad.split(step.lengths)
        into_parts = None if grad_x is None else grad_x.split(step.lengths)
        grads: list[Tensor] = []
        for i, (share, place) in enumerate(zip(step.shares, step.places, strict=True)):
            down_KRI, up_KOR, kept = saved[2 * i], saved[2 * i + 1], saved[2 * len(step.shares) + i]
            x_KTI, grad_KTO = _stacked(x_parts[place], down_KRI), _stacked(grad_parts[place], down_KRI)
            if step.merged[i]:
                if into_parts is not None:
                    torch.bmm(grad_KTO, kept, out=_stacked(into_parts[place], down_KRI))
                grad_KOI = torch.bmm(grad_KTO.mT, x_KTI).mul_(share.scale_K11)
                grads += [torch.bmm(up_KOR.mT, grad_KOI), torch.bmm(grad_KOI, down_KRI.mT)]
                continue
            grad_h_KRT = torch.bmm(up_KOR.mT, grad_KTO.mT).mul_(share.scale_K11)
            if into_parts is not None:
                _stacked(into_parts[place], down_KRI).baddbmm_(grad_h_KRT.mT, down_KRI)
            grads += [torch.bmm(grad_h_KRT, x_KTI), _grad_up(kept, grad_KTO)]
        return grad_x, None, None, None, *grads


class _Pixels(torch.autograd.Function):
    """Of x [B,I,P], an image's rows of pixels: one product for each row of the batch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, step: Step,
                *tensors: Tensor) -> Tensor:
        x = x.contiguous()
        output = _frozen_pixels(x, weight, bias, step)
        x_parts, output_parts = x.split(step.lengths), output.split(step.lengths)
        kept = []
        for i, (share, place) in enumerate(zip(step.shares, step.places, strict=True)):
            down_KRI, up_KOR = tensors[2 * i], tensors[2 * i + 1]
            x_bIP, output_bOP = x_parts[place], output_parts[place]
            if step.merged[i]:
                merged_bOI = _for_rows(_merged(weight, down_KRI, up_KOR, share), x_bIP)
                torch.bmm(merged_bOI, x_bIP, out=output_bOP)
                if bias is not None:
                    output_bOP.add_(bias.unsqueeze(1))
                kept.append(merged_bOI)
            else:
                h_bRP = torch.bmm(_for_rows(down_KRI, x_bIP), x_bIP).mul_(_for_rows(share.scale_K11, x_bIP))
                output_bOP.baddbmm_(_for_rows(up_KOR, x_bIP), h_bRP)
                kept.append(h_bRP)
        ctx.save_for_backward(x, weight, *tensors, *kept)
        ctx.step = step
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, *saved = ctx.saved_tensors
        step: Step = ctx.step
        grad = grad.contiguous()
        grad_x = _frozen_pixels(grad, weight.mT, None, step) if ctx.needs_input_grad[0] else None
        x_parts, grad_parts = x.split(step.lengths), grad.split(step.lengths)
        into_parts = None if grad_x is None else grad_x.split(step.lengths)
        grads: list[Tensor] = []
        for i, (share, place) in enumerate(zip(step.shares, step.places, strict=True)):
            down_KRI, up_KOR, kept = saved[2 * i], saved[2 * i + 1], saved[2 * len(step.shares) + i]
            x_bIP, grad_bOP = x_parts[place], grad_parts[place]
            if step.merged[i]:
                if into_parts is not None:
                    torch.bmm(kept.mT, grad_bOP, out=into_parts[place])
                grad_KOI = _over_rows(torch.bmm(grad_bOP, x_bIP.mT), down_KRI).mul_(share.scale_K11)
                grads += [torch.bmm(up_KOR.mT, grad_KOI), torch.bmm(grad_KOI, down_KRI.mT)]
                continue
            grad_h_bRP = torch.bmm(_for_rows(up_KOR, x_bIP).mT, grad_bOP).mul_(_for_rows(share.scale_K11, x_bIP))
            if into_parts is not None:
                into_parts[place].baddbmm_(_for_rows(down_KRI, x_bIP).mT, grad_h_bRP)
            grads += [_over_rows(torch.bmm(grad_h_bRP, x_bIP.mT), down_KRI),
                      _over_rows(_grad_up(kept, grad_bOP.mT), down_KRI)]
        return grad_x, None, None, None, *grads


def compute_dtype(x: Tensor) -> torch.dtype:
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def _frozen_tokens(x: Tensor, weight: Tensor, bias: Tensor | None, step: Step) -> Tensor:
    """W x + b of x [B,...,I]; the rows of merged adapters are left empty."""
    if not any(step.merged):
        return torch.nn.functional.linear(x, weight, bias)
    output = x.new_empty(*x.shape[:-1], weight.shape[0])
    for part in step.frozen:
        flat, into = x[part].view(-1, x.shape[-1]), output[part].view(-1, output.shape[-1])
        torch.mm(flat, weight.mT, out=into) if bias is None else torch.addmm(bias, flat, weight.mT, out=into)
    return output


def _frozen_pixels(x: Tensor, weight: Tensor, bias: Tensor | None, step: Step) -> Tensor:
    """W x + b of x [B,I,P]; the rows of merged adapters are left empty."""
    output = x.new_empty(x.shape[0], weight.shape[0], x.shape[2])
    for part in step.frozen:
        into = output[part]
        torch.bmm(weight.expand(into.shape[0], -1, -1), x[part], out=into)
        if bias is not None:
            into.add_(bias.unsqueeze(1))
    return output


def _merged(weight: Tensor, down_KRI: Tensor, up_KOR: Tensor, share: Share) -> Tensor:
    """W + scale * up @ down, [K,O,I]; kept for the way back: where merging is cheaper, it is hardly larger than x."""
    return torch.baddbmm(weight.expand(down_KRI.shape[0], -1, -1), up_KOR * share.scale_K11, down_KRI)


def _stacked(part: Tensor, down_KRI: Tensor) -> Tensor:
    """The rows of K adapters as [K,T,N], a view."""
    num_adapters = down_KRI.shape[0]
    if part.ndim == 3 and part.shape[0] == num_adapters:
        return part
    return part.view(num_adapters, -1, part.shape[-1])


def _for_rows(values_KMN: Tensor, x_bIP: Tensor) -> Tensor:
    """An adapter's matrix for each of its rows, [b,M,N]."""
    times = x_bIP.shape[0] // values_KMN.shape[0]
    return values_KMN if times == 1 else values_KMN.repeat_interleave(times, 0)


def _over_rows(values_bMN: Tensor, down_KRI: Tensor) -> Tensor:
    """The sum over each adapter's rows, [K,M,N]."""
    num_adapters = down_KRI.shape[0]
    return values_bMN if values_bMN.shape[0] == num_adapters else values_bMN.unflatten(0, (num_adapters, -1)).sum(1)


def _grad_up(h_KRT: Tensor, grad_KTO: Tensor) -> Tensor:
    """[K,O,R]. A wide one is made in the layout it is added in; for a narrow one the slow product would cost more."""
    return torch.bmm(h_KRT, grad_KTO).mT if h_KRT.shape[1] < _NARROW else torch.bmm(grad_KTO.mT, h_KRT.mT)
