"""K trials' own layers in place of a frozen one (DreamBooth), and their own tokens (textual inversion).

Shapes: K trials, B rows of the batch, b = B / K rows of one trial, T = b x tokens, L tokens, N vectors, I in, O out, D
width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sweep.network.targets import Target

if TYPE_CHECKING:
    from torch import Tensor


def own_layer(x: Tensor, target: Target, tensors: Mapping[str, Tensor]) -> Tensor:
    """What each trial's weight [K,...] and bias [K,O] make of its b rows of x [B,...]."""
    import torch

    module: Any = target.module
    weight, bias = tensors["weight"], tensors.get("bias")
    num_trials = len(weight)
    if num_trials > 1 and target.kind == "norm":
        output = _normed(module, x, None, None)
        output = output * _per_row(weight, output)
        return output if bias is None else output + _per_row(bias, output)
    if num_trials > 1 and not target.is_conv:
        x_KTI, weight_KIO = x.reshape(num_trials, -1, x.shape[-1]), weight.transpose(1, 2)
        output = torch.bmm(x_KTI, weight_KIO) if bias is None else torch.baddbmm(bias.unsqueeze(1), x_KTI, weight_KIO)
        return output.view(*x.shape[:-1], -1)
    # one by one: whole convolutions gain nothing by being stacked
    biases = [None] * num_trials if bias is None else list(bias)
    outputs = [_own(module, rows, *own) for rows, *own in zip(x.chunk(num_trials), weight, biases, strict=True)]
    return torch.cat(outputs) if len(outputs) > 1 else outputs[0]


def own_tokens(output: Tensor, ids_BL: Tensor, words_KND: Tensor) -> Tensor:
    """output [B,L,D] of the table of tokens; where an id is -1 - i, the i-th of the trial's own vectors."""
    import torch

    ids_KT = ids_BL.reshape(len(words_KND), -1)
    places_KT = (-1 - ids_KT).clamp(min=0, max=words_KND.shape[1] - 1)
    own_KTD = words_KND.gather(1, places_KT.unsqueeze(2).expand(-1, -1, words_KND.shape[2]))
    return torch.where(ids_BL.unsqueeze(2) < 0, own_KTD.view(output.shape).to(output.dtype), output)


def _own(module: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A layer of the module's kind with other weights."""
    from torch import nn
    from torch.nn import functional as F

    if isinstance(module, nn.Linear):
        return F.linear(x, weight, bias)
    if isinstance(module, nn.Conv2d):
        return F.conv2d(x, weight, bias, module.stride, module.padding)
    return _normed(module, x, weight, bias)


def _normed(module: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    from torch import nn
    from torch.nn import functional as F

    if isinstance(module, nn.GroupNorm):
        return F.group_norm(x, module.num_groups, weight, bias, module.eps)
    return F.layer_norm(x, module.normalized_shape, weight, bias, module.eps)


def _per_row(values_KO: Tensor, like: Tensor) -> Tensor:
    """A value per trial and channel for each of its rows, [B,O,1,1] or [B,1,O]."""
    values_BO = values_KO.repeat_interleave(len(like) // len(values_KO), dim=0)
    if like.ndim == 4:
        return values_BO[:, :, None, None]
    return values_BO.view(len(like), *[1] * (like.ndim - 2), -1)
