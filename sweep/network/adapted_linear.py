"""A frozen linear layer, or 1x1 convolution, and K low-rank adapters as one step of autograd.

The base's product and the adapters' are summed in place, forward and backward, and adapters of several structures share
one output: nothing is cut out of the batch and joined again. Everything is written for columns, y = W x with x [I,T],
as an image lies in memory; a linear layer's rows of tokens are their transposed view. Rank activations are [K,R,T],
ranks first: a product whose last side is a rank of 8 runs at a sixth of the speed of the same product the other way
round (measured with MKL; at rank 32 they are alike). At the sizes of a small layer the calls cost as much as the
products: hence slices, `mT` and `shape[0]`, which are the cheapest of their kind.

Shapes: B rows of the batch, K adapters of a segment, P products of a segment over T columns each (a linear layer: K
products over all tokens of an adapter's rows; a convolution: one per row over its pixels), R rank, I in, O out.
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
    down_KRI: Tensor
    up_KOR: Tensor
    scale_K: Tensor  # alpha / dim x strength


def adapted_linear(module: torch.nn.Linear | torch.nn.Conv2d, x: Tensor, shares: Sequence[Share]) -> Tensor:
    """W x + b, plus scale * up(down(x)) (Hu et al. 2021, Eq. 3) of each adapter on its own rows. x [B,...,I], or
    [B,I,H,W] for a 1x1 convolution. shares: in the order of their rows."""
    tensors = [tensor for share in shares for tensor in (share.down_KRI, share.up_KOR)]
    is_image = x.ndim == 4
    output: Tensor = _AdaptedLinear.apply(
        x.flatten(2) if is_image else x, module.weight.flatten(1) if is_image else module.weight, module.bias, is_image,
        [share.rows for share in shares], [share.scale_K for share in shares],
        [is_cheaper_merged(x, share) for share in shares], *tensors)
    return output.unflatten(2, x.shape[2:]) if is_image else output


def is_cheaper_merged(x: Tensor, share: Share) -> bool:
    """Whether adapters cost less as part of the weights, W + scale * up @ down, than beside them: where the rank is not
    small against the layer. In fp32 alone: in half precision small adapters would drown in W's rounding."""
    if _compute_dtype(x) != torch.float32:
        return False
    (num_adapters, rank, num_in), num_out = share.down_KRI.shape, share.up_KOR.shape[1]
    tokens = x.numel() // x.shape[0] * (share.rows.stop - share.rows.start) // num_in // num_adapters
    beside, product = tokens * rank * (num_in + num_out), num_in * num_out * rank
    if torch.is_grad_enabled():  # the gradient of W's size, and from it those of up and down
        return _MERGING * (3 * product + tokens * num_in * num_out) < 3 * beside
    return _MERGING * product < beside


class _AdaptedLinear(torch.autograd.Function):
    """The base's weight and bias have no gradient; under autocast everything is computed in its precision."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, is_image: bool, rows: list[slice],
                scales: list[Tensor], merged: list[bool], *tensors: Tensor) -> Tensor:
        dtype = _compute_dtype(x)
        if dtype != torch.float32:  # of the weights; the same for everything else here
            x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
            tensors = tuple(tensor.to(dtype) for tensor in tensors)
        x = x.contiguous()
        scales = [scale_K.view(-1, 1, 1) for scale_K in scales]  # in fp32: a rounded scale is another strength
        output = _frozen(x, weight, bias, is_image, rows, merged)
        kept = []
        for i, part in enumerate(rows):
            down_KRI, up_KOR, scale_K11 = tensors[2 * i], tensors[2 * i + 1], scales[i]
            times = _times(part, down_KRI, is_image)
            x_PIT = _columns(x, part, down_KRI, is_image)
            output_POT = _columns(output, part, down_KRI, is_image)
            if merged[i]:
                # kept for the way back: it is not larger than what x takes, or merging would not be cheaper
                merged_KOI = torch.baddbmm(weight.expand(down_KRI.shape[0], -1, -1), up_KOR * scale_K11, down_KRI)
                _product(output_POT, _each(merged_KOI, times), x_PIT, is_image)
                if bias is not None:
                    output_POT.add_(bias.unsqueeze(1))
                kept.append(merged_KOI)
                continue
            h_PRT = torch.bmm(_each(down_KRI, times), x_PIT).mul_(_each(scale_K11, times))
            _add_product(output_POT, _each(up_KOR, times), h_PRT, is_image)
            kept.append(h_PRT)
        ctx.save_for_backward(x, weight, *tensors, *kept)
        ctx.rows, ctx.scales, ctx.merged, ctx.is_image = rows, scales, merged, is_image
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, *saved = ctx.saved_tensors
        rows, is_image = ctx.rows, ctx.is_image
        grad = grad.to(x.dtype).contiguous()
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = _frozen(grad, weight.mT, None, is_image, rows, ctx.merged)
        grads: list[Tensor] = []
        for i, part in enumerate(rows):
            down_KRI, up_KOR, scale_K11, kept = saved[2 * i], saved[2 * i + 1], ctx.scales[i], saved[2 * len(rows) + i]
            times = _times(part, down_KRI, is_image)
            x_PIT = _columns(x, part, down_KRI, is_image)
            grad_POT = _columns(grad, part, down_KRI, is_image)
            into_PIT = None if grad_x is None else _columns(grad_x, part, down_KRI, is_image)
            if ctx.merged[i]:
                if into_PIT is not None:
                    _product(into_PIT, _each(kept, times).mT, grad_POT, is_image)
                grad_KOI = _sum(torch.bmm(grad_POT, x_PIT.mT), times).mul_(scale_K11)
                grads += [torch.bmm(up_KOR.mT, grad_KOI), torch.bmm(grad_KOI, down_KRI.mT)]
                continue
            grad_h_PRT = torch.bmm(_each(up_KOR, times).mT, grad_POT).mul_(_each(scale_K11, times))
            if into_PIT is not None:
                _add_product(into_PIT, _each(down_KRI, times).mT, grad_h_PRT, is_image)
            grads += [_sum(torch.bmm(grad_h_PRT, x_PIT.mT), times), _sum(_grad_up(kept, grad_POT), times)]
        return grad_x, None, None, None, None, None, None, *grads


def _compute_dtype(x: Tensor) -> torch.dtype:
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def _frozen(x: Tensor, weight: Tensor, bias: Tensor | None, is_image: bool, rows: Sequence[slice],
            merged: Sequence[bool]) -> Tensor:
    """W x + b; the rows of merged adapters are left empty."""
    if not is_image and not any(merged):
        return torch.nn.functional.linear(x, weight, bias)
    output = x.new_empty((x.shape[0], weight.shape[0], x.shape[2]) if is_image else (*x.shape[:-1], weight.shape[0]))
    for part in _others(x.shape[0], rows, merged):
        into = output[part]
        if is_image:
            torch.bmm(weight.expand(into.shape[0], -1, -1), x[part], out=into)
            if bias is not None:
                into.add_(bias.unsqueeze(1))
        else:
            flat, into = x[part].view(-1, x.shape[-1]), into.view(-1, into.shape[-1])
            torch.mm(flat, weight.mT, out=into) if bias is None else torch.addmm(bias, flat, weight.mT, out=into)
    return output


def _others(num_rows: int, rows: Sequence[slice], merged: Sequence[bool]) -> list[slice]:
    """The runs of rows that go through the frozen weights themselves."""
    taken = [part for part, is_in in zip(rows, merged, strict=True) if is_in]
    edges = [0, *(edge for part in taken for edge in (part.start, part.stop)), num_rows]
    return [slice(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True) if start < stop]


def _columns(tensor: Tensor, rows: slice, down_KRI: Tensor, is_image: bool) -> Tensor:
    """Some rows of a contiguous [B,...,N], or [B,N,T] of images, as [P,N,T], a view."""
    return tensor[rows] if is_image else tensor[rows].view(down_KRI.shape[0], -1, tensor.shape[-1]).mT


def _times(rows: slice, down_KRI: Tensor, is_image: bool) -> int:
    """How many products each adapter has part in."""
    return (rows.stop - rows.start) // down_KRI.shape[0] if is_image else 1


def _each(values_KMN: Tensor, times: int) -> Tensor:
    """An adapter's matrix for each of its products, [P,M,N]."""
    return values_KMN if times == 1 else values_KMN.repeat_interleave(times, 0)


def _sum(values_PMN: Tensor, times: int) -> Tensor:
    """Over each adapter's products, [K,M,N]."""
    return values_PMN if times == 1 else values_PMN.unflatten(0, (-1, times)).sum(1)


def _product(into: Tensor, a: Tensor, b: Tensor, is_image: bool) -> None:
    """into = a @ b. Only a contiguous result comes from the fast kernels: that of tokens, which is a transposed view,
    is made as the matrix that it looks at."""
    if is_image:
        torch.bmm(a, b, out=into)
    else:
        torch.bmm(b.mT, a.mT, out=into.mT)


def _add_product(into: Tensor, a: Tensor, b: Tensor, is_image: bool) -> None:
    """into += a @ b."""
    if is_image:
        into.baddbmm_(a, b)
    else:
        into.mT.baddbmm_(b.mT, a.mT)


def _grad_up(h_PRT: Tensor, grad_POT: Tensor) -> Tensor:
    """[P,O,R]. A wide one is made in the layout it is added in; for a narrow one the slow product would cost more."""
    return torch.bmm(h_PRT, grad_POT.mT).mT if h_PRT.shape[1] < _NARROW else torch.bmm(grad_POT, h_PRT.mT)
