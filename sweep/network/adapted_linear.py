"""A frozen linear layer and K low-rank adapters as one step of autograd.

The base's product and the adapters' are summed in place, forward and backward, and adapters of several structures share
one output: nothing is cut out of the batch and joined again. Rank activations are kept as [K,R,T], ranks first: a
product whose last side is a rank of 8 runs at a sixth of the speed of the same product the other way round (measured
with MKL; at rank 32 they are alike).

Shapes: B rows of the batch, K adapters of a segment, T = rows of one adapter x tokens, R rank, I in, O out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_NARROW = 16  # ranks below it


@dataclass(frozen=True, slots=True)
class Share:
    """K stacked adapters and the rows of the batch that are theirs."""

    rows: slice
    down_KRI: Tensor
    up_KOR: Tensor
    scale_K: Tensor  # alpha / dim x strength


def adapted_linear(module: torch.nn.Linear, x: Tensor, shares: Sequence[Share]) -> Tensor:
    """W x + b, plus scale * up(down(x)) (Hu et al. 2021, Eq. 3) of each adapter on its own rows. x [B,...,I]."""
    tensors = [tensor for share in shares for tensor in (share.down_KRI, share.up_KOR)]
    output: Tensor = _AdaptedLinear.apply(x, module.weight, module.bias, [share.rows for share in shares],
                                          [share.scale_K for share in shares],
                                          [is_cheaper_merged(x, share) for share in shares], *tensors)
    return output


def is_cheaper_merged(x: Tensor, share: Share) -> bool:
    """Whether adapters cost less as part of the weights, W + scale * up @ down, than beside them: where the rank is not
    small against the layer. In fp32 alone: in half precision small adapters would drown in W's rounding."""
    if _compute_dtype(x) != torch.float32:
        return False
    (num_adapters, rank, num_in), num_out = share.down_KRI.shape, share.up_KOR.shape[1]
    tokens = x[share.rows].numel() // num_in // num_adapters
    beside, product = tokens * rank * (num_in + num_out), num_in * num_out * rank
    if torch.is_grad_enabled():  # the gradient of W's size, and from it those of up and down
        return 4 * product + tokens * num_in * num_out < 3 * beside
    return product < beside


class _AdaptedLinear(torch.autograd.Function):
    """The base's weight and bias have no gradient; under autocast everything is computed in its precision."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, rows: list[slice], scales: list[Tensor],
                merged: list[bool], *tensors: Tensor) -> Tensor:
        dtype = _compute_dtype(x)
        with torch.autocast(x.device.type, enabled=False):
            x, weight = x.to(dtype).contiguous(), weight.to(dtype)
            bias = None if bias is None else bias.to(dtype)
            tensors = tuple(tensor.to(dtype) for tensor in tensors)
            scales = [scale_K.view(-1, 1, 1) for scale_K in scales]  # in fp32: a rounded scale is another strength
            output = x.new_empty(*x.shape[:-1], len(weight))
            for part in _others(len(x), [part for part, is_in in zip(rows, merged, strict=True) if is_in]):
                _linear(x[part], weight, bias, output[part])
            activations = []
            for i, (part, scale_K11) in enumerate(zip(rows, scales, strict=True)):
                down_KRI, up_KOR = tensors[2 * i], tensors[2 * i + 1]
                x_KTI, output_KTO = (_stacked(tensor, part, len(down_KRI)) for tensor in (x, output))
                if merged[i]:
                    torch.bmm(x_KTI, _merged(weight, down_KRI, up_KOR, scale_K11).transpose(1, 2), out=output_KTO)
                    if bias is not None:
                        output_KTO.add_(bias)
                    continue
                h_KRT = torch.bmm(down_KRI, x_KTI.transpose(1, 2)).mul_(scale_K11)
                output_KTO.baddbmm_(h_KRT.transpose(1, 2), up_KOR.transpose(1, 2))
                activations.append(h_KRT)
        ctx.save_for_backward(x, weight, *tensors, *activations)
        ctx.rows, ctx.scales, ctx.merged = rows, scales, merged
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, *saved = ctx.saved_tensors
        tensors, activations = saved[:2 * len(ctx.rows)], iter(saved[2 * len(ctx.rows):])
        grad = grad.to(x.dtype).contiguous()
        grad_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        if grad_x is not None:
            for part in _others(len(x), [part for part, is_in in zip(ctx.rows, ctx.merged, strict=True) if is_in]):
                _linear(grad[part], weight.T, None, grad_x[part])
        grads: list[Tensor] = []
        for i, (part, scale_K11, is_in) in enumerate(zip(ctx.rows, ctx.scales, ctx.merged, strict=True)):
            down_KRI, up_KOR = tensors[2 * i], tensors[2 * i + 1]
            x_KTI, grad_KTO = (_stacked(tensor, part, len(down_KRI)) for tensor in (x, grad))
            into_KTI = None if grad_x is None else _stacked(grad_x, part, len(down_KRI))
            if is_in:
                if into_KTI is not None:  # merged once more rather than kept: K weights of a layer may be large
                    torch.bmm(grad_KTO, _merged(weight, down_KRI, up_KOR, scale_K11), out=into_KTI)
                grad_KOI = torch.bmm(grad_KTO.transpose(1, 2), x_KTI).mul_(scale_K11)
                grads += [torch.bmm(up_KOR.transpose(1, 2), grad_KOI), torch.bmm(grad_KOI, down_KRI.transpose(1, 2))]
                continue
            grad_h_KRT = torch.bmm(up_KOR.transpose(1, 2), grad_KTO.transpose(1, 2)).mul_(scale_K11)
            if into_KTI is not None:
                into_KTI.baddbmm_(grad_h_KRT.transpose(1, 2), down_KRI)
            grads += [torch.bmm(grad_h_KRT, x_KTI), _grad_up(next(activations), grad_KTO)]
        return grad_x, None, None, None, None, None, *grads


def _compute_dtype(x: Tensor) -> torch.dtype:
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def _merged(weight: Tensor, down_KRI: Tensor, up_KOR: Tensor, scale_K11: Tensor) -> Tensor:
    """W + scale * up @ down, [K,O,I]."""
    return torch.baddbmm(weight.expand(len(down_KRI), -1, -1), up_KOR * scale_K11, down_KRI)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, output: Tensor) -> None:
    """Into output: x W' + b."""
    flat, into = x.view(-1, x.shape[-1]), output.view(-1, output.shape[-1])
    if bias is None:
        torch.mm(flat, weight.T, out=into)
    else:
        torch.addmm(bias, flat, weight.T, out=into)


def _others(num_rows: int, taken: Sequence[slice]) -> list[slice]:
    """The runs of rows between those taken, which are in order."""
    edges = [0, *(edge for part in taken for edge in (part.start, part.stop)), num_rows]
    return [slice(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True) if start < stop]


def _grad_up(h_KRT: Tensor, grad_KTO: Tensor) -> Tensor:
    """[K,O,R]. A wide one is made in the layout it is added in; for a narrow one the slow product would cost more."""
    if h_KRT.shape[1] < _NARROW:
        return torch.bmm(h_KRT, grad_KTO).transpose(1, 2)
    return torch.bmm(grad_KTO.transpose(1, 2), h_KRT.transpose(1, 2))


def _stacked(tensor: Tensor, rows: slice, num_adapters: int) -> Tensor:
    """The rows of K adapters as [K,T,N], a view."""
    return tensor[rows].view(num_adapters, -1, tensor.shape[-1])
