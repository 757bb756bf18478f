"""What K stacked adapters add to one layer's output, or put in its place.

Shapes: K adapters, B rows of the batch, b rows of one adapter, T = b x tokens, P = height x width, R rank, I in, O out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweep.network.counter_random import layer_keys, uniform
from sweep.network.forms import LOW_RANK, WORDS, Form
from sweep.network.own_weights import own_layer, own_tokens
from sweep.network.targets import Target

if TYPE_CHECKING:
    from torch import Tensor

    from sweep.network.adapted_linear import Share


@dataclass(frozen=True, slots=True)
class Draws:
    """Where K trials' dropout comes from: a key each per purpose, and its rates, all [K]."""

    keys: Mapping[str, Tensor]
    rates: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Stack:
    """K adapters of one form on one layer. draws: None where nothing is dropped (generation)."""

    target: Target
    form: Form
    tensors: Mapping[str, Tensor]  # by file name, [K, *shape]
    scale_K: Tensor  # alpha / dim
    strength_K: Tensor
    factor_K: Tensor  # their product
    draws: Draws | None
    replaces: bool = False  # the frozen layer's output is not needed: all are layers of their own at full strength

    @property
    def size(self) -> int:
        return len(self.scale_K)


def is_plain(stack: Stack) -> bool:
    """Whether it adds scale * up(down(x)) and no more: such stacks on a matrix product have a step of their own."""
    if stack.draws is None:
        return stack.form.algorithm in LOW_RANK and stack.form.algorithm != "dora"
    return stack.form.algorithm == "lora" and not {"network_dropout", "rank_dropout"} & stack.draws.rates.keys()


def share_of(stack: Stack, rows: slice) -> Share:
    """A plain stack as what `adapted_linear` takes."""
    from sweep.network.adapted_linear import Share

    return Share(rows, stack.tensors["lora_down.weight"], stack.tensors["lora_up.weight"],
                 _factor(stack).view(-1, 1, 1))


def add_to(output: Tensor, x: Tensor, stack: Stack) -> Tensor:
    """output [B,...] of the frozen layer for x [B,...], plus each adapter's share on its own b = B / K rows."""
    algorithm = stack.form.algorithm
    if algorithm == "whole":
        own = own_layer(x, stack.target, stack.tensors)
        return own if stack.replaces else output + _per_adapter(stack.strength_K, output) * (own - output)
    if algorithm == "words":
        return own_tokens(output, x, stack.tensors[WORDS])
    if algorithm == "ia3":
        return output + _per_adapter(_strength(stack), output) * _ia3(output, x, stack)
    if algorithm == "dora":
        return output + _per_adapter(_strength(stack), output) * _dora(output, x, stack)
    if algorithm in LOW_RANK:
        return _add_low_rank(output, x, stack, _factor(stack))
    return output + _difference(x, stack)


def _strength(stack: Stack) -> Tensor:
    """[K]; module_dropout takes a layer's adapter out for the trial's whole batch, without rescaling (sd-scripts)."""
    return _if_kept(stack.strength_K, stack)


def _factor(stack: Stack) -> Tensor:
    """alpha / dim x strength, [K]."""
    return _if_kept(stack.factor_K, stack)


def _if_kept(values_K: Tensor, stack: Stack) -> Tensor:
    if stack.draws is None or "module_dropout" not in stack.draws.rates:
        return values_K
    return values_K * _kept(stack, "module_dropout", 1)[:, 0]


def _kept(stack: Stack, purpose: str, num_values: int) -> Tensor:
    """[K, num_values] of 0 and 1: 0 with the trial's rate of this dropout."""
    assert stack.draws is not None
    keys_K = layer_keys(stack.draws.keys[purpose], stack.target.key)
    return (uniform(keys_K, num_values) >= stack.draws.rates[purpose][:, None]).float()


def _add_low_rank(output: Tensor, x: Tensor, stack: Stack, scale_K: Tensor) -> Tensor:
    """output + scale * up(down(x)) (Hu et al. 2021, Eq. 3)."""
    import torch

    down, up = _ranks_in_play(stack)
    up_KOR = up.flatten(2)
    h = _dropped(_down(x, down, stack.target), x, stack) * scale_K.view(-1, *[1] * (3 if x.ndim == 4 else 2))
    if x.ndim == 4:
        return output + torch.matmul(up_KOR.unsqueeze(1), h).reshape(output.shape)
    out_KTO = output.reshape(stack.size, -1, output.shape[-1])
    return torch.baddbmm(out_KTO, h, up_KOR.transpose(1, 2)).view_as(output)


def _down(x: Tensor, weight: Tensor, target: Target) -> Tensor:
    """x through K weights [K,R,I(,kh,kw)]: [K,T,R], or [K,b,R,P] for a convolution."""
    import torch

    num_adapters, num_ranks = weight.shape[:2]
    if x.ndim < 4:
        return torch.bmm(x.reshape(num_adapters, -1, x.shape[-1]), weight.flatten(2).transpose(1, 2))
    if not target.is_spatial and target.stride == (1, 1):
        x_KbIP = x.reshape(num_adapters, -1, x.shape[1], math.prod(x.shape[2:]))
        return torch.matmul(weight.flatten(2).unsqueeze(1), x_KbIP)
    # one convolution of K groups: the adapters' rows side by side as channels
    x_bKIHW = x.unflatten(0, (num_adapters, -1)).transpose(0, 1).flatten(1, 2)
    h = torch.nn.functional.conv2d(x_bKIHW, weight.flatten(0, 1), stride=target.stride, padding=target.padding,
                                   groups=num_adapters)
    return h.unflatten(1, (num_adapters, num_ranks)).transpose(0, 1).flatten(3)


def _dropped(h: Tensor, x: Tensor, stack: Stack) -> Tensor:
    """network_dropout on each rank activation, rank_dropout on whole ranks per sample; both rescaled (sd-scripts)."""
    if stack.draws is None:
        return h
    rates, num_rows = stack.draws.rates, len(x) // stack.size
    tail = [1] * (h.ndim - 1)
    if "network_dropout" in rates:
        kept = _kept(stack, "network_dropout", h[0].numel()).view(h.shape)
        h = h * (kept / (1 - rates["network_dropout"]).view(-1, *tail)).to(h.dtype)
    if "rank_dropout" in rates:
        kept_KbR = _kept(stack, "rank_dropout", num_rows * stack.form.dim).view(stack.size, num_rows, stack.form.dim)
        kept_KbR = (kept_KbR / (1 - rates["rank_dropout"]).view(-1, 1, 1)).to(h.dtype)
        if h.ndim == 4:
            return h * kept_KbR.unsqueeze(3)
        return (h.unflatten(1, (num_rows, -1)) * kept_KbR.unsqueeze(2)).flatten(1, 2)
    return h


def _ranks_in_play(stack: Stack) -> tuple[Tensor, Tensor]:
    """down [K,R,...] and up [K,O,R,...]. DyLoRA: the ranks up to a block drawn for this batch, of which only that block
    has a gradient (Valipour et al. 2023, 3.2, the frozen variant). The others' is 0, so that they hold still under
    plain SGD alone: an optimizer's momentum and weight decay move them too (docs/networks.md)."""
    import torch

    down, up = stack.tensors["lora_down.weight"], stack.tensors["lora_up.weight"]
    if stack.form.algorithm != "dylora" or stack.draws is None:
        return down, up
    dim, unit = stack.form.dim, stack.form.option
    drawn_K = uniform(layer_keys(stack.draws.keys["dylora"], stack.target.key), 1)[:, 0]
    block_K1 = (drawn_K * (dim // unit)).floor()[:, None]
    block_of_R = torch.arange(dim, device=down.device) // unit
    learns_KR, earlier_KR = (block_of_R == block_K1).float(), (block_of_R < block_K1).float()

    def blocks(tensor: Tensor, rank_dim: int) -> Tensor:
        shape = [1] * tensor.ndim
        shape[0], shape[rank_dim] = stack.size, dim
        return tensor * learns_KR.view(shape) + tensor.detach() * earlier_KR.view(shape)

    return blocks(down, 1), blocks(up, 2)


def _dora(output: Tensor, x: Tensor, stack: Stack) -> Tensor:
    """(m / ||W + BA||) (W + BA) x - W x (Liu et al. 2024, Eq. 5), the norm held constant for the gradient (4.3)."""
    import torch

    down_KRI, up_KOR = _ranks_in_play(stack)
    weight, bare = _weight(stack), _without_bias(output, stack)
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        scaled_KOR = up_KOR.flatten(2) * stack.scale_K.view(-1, 1, 1)
        merged = torch.baddbmm(weight.flatten(1).expand(stack.size, -1, -1), scaled_KOR, down_KRI.flatten(2))
        norm_KO = merged.norm(dim=2) + torch.finfo(merged.dtype).eps
    ratio = _per_output(stack.tensors["dora_scale"].flatten(1) / norm_KO, output)
    return ratio * _add_low_rank(bare, x, stack, stack.scale_K) - bare


def _ia3(output: Tensor, x: Tensor, stack: Stack) -> Tensor:
    """(l * W) x, or W (l * x) for a layer scaled at its input (Liu et al. 2022, 3.3); l starts at 0 beside the base."""
    import torch

    scales_KN = stack.tensors["weight"].flatten(1)
    if not stack.form.option:
        return _per_output(scales_KN, output) * _without_bias(output, stack)
    module: Any = stack.target.module
    scaled = x * _per_output(scales_KN, x)
    if stack.target.is_conv:
        return torch.nn.functional.conv2d(scaled, module.weight, None, stack.target.stride, stack.target.padding)
    return torch.nn.functional.linear(scaled, module.weight)


def _difference(x: Tensor, stack: Stack) -> Tensor:
    """x through K weight differences, [K,O,I(,kh,kw)], built in fp32 one adapter after the other."""
    import torch

    with torch.autocast(x.device.type, enabled=False):
        delta = torch.stack([weight_difference(stack.form, stack.target, {n: t[k] for n, t in stack.tensors.items()},
                                               stack.scale_K[k]) for k in range(stack.size)])
        delta = delta * _strength(stack).view(-1, *[1] * (delta.ndim - 1))
    added = _down(x, delta, stack.target)
    if x.ndim < 4:
        return added.reshape(*x.shape[:-1], -1)
    height, width = (_size(n, k, p, s) for n, k, p, s in zip(
        x.shape[2:], stack.target.kernel_size, stack.target.padding, stack.target.stride, strict=True))
    return added.flatten(0, 1).unflatten(2, (height, width))


def weight_difference(form: Form, target: Target, tensors: Mapping[str, Tensor], scale: Tensor) -> Tensor:
    """What one adapter adds to a layer's weight, [O,I] or [O,I,kh,kw]. scale: alpha / dim, a scalar tensor."""
    if form.algorithm == "diff":
        return tensors["diff"]
    if form.algorithm in ("lora", "dylora"):
        product = tensors["lora_up.weight"].flatten(1) @ tensors["lora_down.weight"].flatten(1) * scale
    elif form.algorithm == "loha":
        from lycoris.functional import loha

        product = loha.diff_weight(tensors["hada_w1_b"], tensors["hada_w1_a"], tensors["hada_w2_b"],
                                   tensors["hada_w2_a"], None, None, gamma=scale, backend="torch")
    elif form.algorithm == "lokr":
        from lycoris.functional import lokr

        w2a, w2b = tensors.get("lokr_w2_a"), tensors.get("lokr_w2_b")
        product = lokr.diff_weight(tensors["lokr_w1"], None, None, tensors.get("lokr_w2"), w2a, w2b, None,
                                   gamma=form.dim, backend="torch")
        if w2a is not None:  # a whole second factor is not scaled (LyCORIS)
            product = product * scale
    else:
        raise AssertionError(f"{form.algorithm} depends on the layer's weight")
    return product.reshape(target.weight_shape)


def _weight(stack: Stack) -> Tensor:
    module: Any = stack.target.module
    weight: Tensor = module.weight.detach().float()
    return weight


def _without_bias(output: Tensor, stack: Stack) -> Tensor:
    module: Any = stack.target.module
    if module.bias is None:
        return output
    return output - (module.bias.view(-1, 1, 1) if output.ndim == 4 else module.bias)


def _per_adapter(values_K: Tensor, like: Tensor) -> Tensor:
    """A value per adapter for each of its rows, [B,1,...]."""
    return values_K.repeat_interleave(len(like) // len(values_K)).view(-1, *[1] * (like.ndim - 1)).to(like.dtype)


def _per_output(values_KO: Tensor, like: Tensor) -> Tensor:
    """A value per adapter and channel for each of its rows, [B,O,1,1] or [B,1,O]."""
    values_BO = values_KO.repeat_interleave(len(like) // len(values_KO), dim=0).to(like.dtype)
    if like.ndim == 4:
        return values_BO[:, :, None, None]
    return values_BO.view(len(like), *[1] * (like.ndim - 2), -1)


def _size(num: int, kernel: int, padding: int, stride: int) -> int:
    return (num + 2 * padding - kernel) // stride + 1
