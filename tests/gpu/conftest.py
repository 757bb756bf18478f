"""The pocket base on a GPU takes the place of the one on the CPU, so that the same tests run on both."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts; without it sums vary


def loaded(device: str):
    from sweep.model.base import BaseModelConfig
    from sweep.model.loading import load_base

    return load_base(BaseModelConfig(name="pocket", path=None, resolution=64), "pocket", device)


@pytest.fixture(scope="session")
def base():
    return loaded("cuda:0")


@pytest.fixture(scope="session")
def targets(base):
    from sweep.network.targets import find_targets

    return find_targets(base)


@pytest.fixture(autouse=True)
def same_bits_every_time() -> Iterator[None]:
    """Full fp32 products, and algorithms that add up in one order: what is compared here is ours alone."""
    import torch

    before = torch.backends.cudnn.allow_tf32, torch.are_deterministic_algorithms_enabled()
    torch.backends.cudnn.allow_tf32 = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.backends.cudnn.allow_tf32 = before[0]
    torch.use_deterministic_algorithms(before[1])
