"""Random numbers from a counter: a value is a hash of (key, position), so it is the same on every device, in every
pack, and when a forward pass is computed again under gradient checkpointing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.randomness import derived_seed

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# SplitMix64 (Steele, Lea and Flood 2014, Fig. 18): its increment and the two multipliers of its finaliser, as int64
_GAMMA = 0x9E3779B97F4A7C15 - 2**64
_MULTIPLIERS = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)
_SHIFTS = (30, 27, 31)
_BITS = 24  # exact in float32


def keys_of(draws: list[tuple[int, int]], purpose: str, device: torch.device | str) -> Tensor:
    """One key [K] per (trial seed, batch index)."""
    import torch

    return torch.tensor([derived_seed(seed, index, purpose) for seed, index in draws], device=device)


def layer_keys(keys_K: Tensor, layer: str) -> Tensor:
    """Keys [K] of one layer."""
    return _mixed(keys_K ^ derived_seed(0, 0, layer))


def uniform(keys_K: Tensor, num_values: int) -> Tensor:
    """[K, num_values] in [0, 1): row k is a function of its key alone, value n of (key, n) alone."""
    import torch

    counters_N = torch.arange(1, num_values + 1, device=keys_K.device)
    mixed_KN = _mixed(keys_K[:, None] + counters_N * _GAMMA)
    return ((mixed_KN >> (64 - _BITS)) & (2**_BITS - 1)).float() * 2.0**-_BITS


def _mixed(z: Tensor) -> Tensor:
    """SplitMix64's finaliser. int64 products wrap around as uint64's do; shifts are made logical by a mask."""
    for shift, multiplier in zip(_SHIFTS[:2], _MULTIPLIERS, strict=True):
        z = (z ^ ((z >> shift) & (2**(64 - shift) - 1))) * multiplier
    return z ^ ((z >> _SHIFTS[2]) & (2**(64 - _SHIFTS[2]) - 1))
