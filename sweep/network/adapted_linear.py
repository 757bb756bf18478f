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
                                          [share.scale_K for share in shares], *tensors)
    return output


class _AdaptedLinear(torch.autograd.Function):
    """The base's weight and bias have no gradient; under autocast everything is computed in its precision."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, rows: list[slice], scales: list[Tensor],
                *tensors: Tensor) -> Tensor:
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        with torch.autocast(device, enabled=False):
            x, weight = x.to(dtype).contiguous(), weight.to(dtype)
            output = torch.nn.functional.linear(x, weight, None if bias is None else bias.to(dtype))
            tensors = tuple(tensor.to(dtype) for tensor in tensors)
            scales = [scale_K.view(-1, 1, 1) for scale_K in scales]  # in fp32: a rounded scale is another strength
            activations = []
            for i, scale_K11 in enumerate(scales):
                down_KRI, up_KOR = tensors[2 * i], tensors[2 * i + 1]
                h_KRT = torch.bmm(down_KRI, _stacked(x, rows[i], len(down_KRI)).transpose(1, 2)).mul_(scale_K11)
                _stacked(output, rows[i], len(down_KRI)).baddbmm_(h_KRT.transpose(1, 2), up_KOR.transpose(1, 2))
                activations.append(h_KRT)
        ctx.save_for_backward(x, weight, *tensors, *activations)
        ctx.rows, ctx.scales = rows, scales
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, *saved = ctx.saved_tensors
        num = len(ctx.rows)
        grad = grad.to(x.dtype).contiguous()
        grad_x = torch.matmul(grad, weight) if ctx.needs_input_grad[0] else None
        grads: list[Tensor] = []
        for i, (rows, scale_K11) in enumerate(zip(ctx.rows, ctx.scales, strict=True)):
            down_KRI, up_KOR, h_KRT = saved[2 * i], saved[2 * i + 1], saved[2 * num + i]
            grad_KTO = _stacked(grad, rows, len(down_KRI))
            grad_h_KRT = torch.bmm(up_KOR.transpose(1, 2), grad_KTO.transpose(1, 2)).mul_(scale_K11)
            if grad_x is not None:
                _stacked(grad_x, rows, len(down_KRI)).baddbmm_(grad_h_KRT.transpose(1, 2), down_KRI)
            grads += [torch.bmm(grad_h_KRT, _stacked(x, rows, len(down_KRI))), _grad_up(h_KRT, grad_KTO)]
        return grad_x, None, None, None, None, *grads


def _grad_up(h_KRT: Tensor, grad_KTO: Tensor) -> Tensor:
    """[K,O,R]. A wide one is made in the layout it is added in; for a narrow one the slow product would cost more."""
    if h_KRT.shape[1] < _NARROW:
        return torch.bmm(h_KRT, grad_KTO).transpose(1, 2)
    return torch.bmm(grad_KTO.transpose(1, 2), h_KRT.transpose(1, 2))


def _stacked(tensor: Tensor, rows: slice, num_adapters: int) -> Tensor:
    """The rows of K adapters as [K,T,N], a view."""
    return tensor[rows].view(num_adapters, -1, tensor.shape[-1])
