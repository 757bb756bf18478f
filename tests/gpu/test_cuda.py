"""What only a GPU shows. `.venv/bin/pytest -m gpu`"""

import pytest
import torch

from sweep.training.pack import Pack
from tests.equivalence.trials import member, run

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]


def test_a_pack_trains_on_the_gpu_as_on_the_cpu(base, targets) -> None:
    """Draws come from the CPU, so the same trial sees the same noise; the rest is rounding."""
    from sweep.model.base import BaseModelConfig
    from sweep.model.loading import load_base
    from sweep.network.targets import find_targets

    on_gpu = load_base(BaseModelConfig(name="pocket", path=None, resolution=64), base.identity, "cuda:0")
    members = [("a", 4), ("b", 16)]
    gpu = run(Pack(on_gpu, find_targets(on_gpu), [member(name, dim=dim) for name, dim in members]))
    cpu = run(Pack(base, targets, [member(name, dim=dim) for name, dim in members]))
    for name, _ in members:
        assert gpu[name] == pytest.approx(cpu[name], rel=1e-2)
