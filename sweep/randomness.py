"""Randomness as a function of (seed, step, purpose): no global generator, no dependence on companions or workers."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derived_seed(seed: int, step: int, purpose: str) -> int:
    """63 bits that depend on all three and on nothing else."""
    digest = hashlib.blake2b(f"{seed}/{step}/{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, step: int, purpose: str) -> torch.Generator:
    """A fresh CPU generator; drawing on the CPU keeps results the same on every device."""
    import torch

    return torch.Generator().manual_seed(derived_seed(seed, step, purpose))
