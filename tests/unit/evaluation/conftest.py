"""LoRA files and photos for tests that really draw."""

from pathlib import Path

import pytest

from sweep.data.folder import Dataset, read_dataset
from tests.conftest import dataset_config


@pytest.fixture(scope="session")
def subject_dataset() -> Dataset:
    """The smaller set of the pocket's own subject."""
    return read_dataset(dataset_config(num_images=14), trigger=None, class_noun=None, repeats=None)


@pytest.fixture(scope="session")
def make_lora(targets):
    """Writes a LoRA of random weights."""
    import torch

    from sweep.network.bank import AdapterBank, AdapterSpec
    from sweep.network.lora_file import write_lora

    def make(path: Path, *, dim: int = 4, seed: int = 0, size: float = 0.1, metadata: dict[str, str] | None = None
             ) -> Path:
        generator = torch.Generator().manual_seed(seed)
        bank = AdapterBank(targets, [AdapterSpec(dim=dim, alpha=dim)])
        for tensors in bank.weights(0).values():
            for name in ("lora_down.weight", "lora_up.weight"):
                tensors[name].copy_(torch.randn(tensors[name].shape, generator=generator) * size)
        write_lora(path, bank.weights(0), dtype=torch.float16, metadata=metadata or {})
        return path

    return make
