"""What only a GPU shows. `.venv/bin/pytest -m gpu`

The contracts are the tests of tests/equivalence themselves, over a base on the GPU (conftest.py): packs and resumes
with every optimizer, bitsandbytes' kernels for 8-bit states among them, half precision, loss scale, checkpointing.
"""

import pytest
import torch

from sweep.network.targets import find_targets
from sweep.training.pack import Pack
from sweep.worker.probe import memory_gib
from tests.equivalence.test_optimizers import (
    test_a_pack_trains_what_its_members_train_alone,
    test_interrupted_equals_uninterrupted,
)
from tests.equivalence.test_pack_equals_solo import test_gradients_of_every_network
from tests.equivalence.test_ways_to_train import (
    test_an_overflow_costs_its_trial_one_update_and_no_one_else,
    test_checkpointing_gives_the_same_gradients,
    test_half_precision_is_near_full_and_the_same_in_a_pack,
)
from tests.equivalence.trials import member, run
from tests.gpu.conftest import loaded

__all__ = [
    "test_a_pack_trains_what_its_members_train_alone", "test_an_overflow_costs_its_trial_one_update_and_no_one_else",
    "test_checkpointing_gives_the_same_gradients", "test_gradients_of_every_network",
    "test_half_precision_is_near_full_and_the_same_in_a_pack", "test_interrupted_equals_uninterrupted",
]

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]


@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
def test_a_pack_trains_on_the_gpu_as_on_the_cpu(base, targets, precision: str) -> None:
    """Draws come from the CPU, so the same trial sees the same noise; the rest is rounding."""
    def members():
        return [member(name, dim=dim, mixed_precision=precision) for name, dim in (("a", 4), ("b", 16))]

    on_cpu = loaded("cpu")
    gpu, cpu = run(Pack(base, targets, members())), run(Pack(on_cpu, find_targets(on_cpu), members()))
    for name in ("a", "b"):
        assert gpu[name] == pytest.approx(cpu[name], rel=1e-2 if precision == "no" else 5e-2)


def test_the_noise_schedule_stays_where_noise_is_drawn(base) -> None:
    assert base.device.type == "cuda" and base.alphas_cumprod.device.type == "cpu"


def test_a_steps_memory_is_the_most_since_the_step_before(base) -> None:
    gib = 2**30
    memory_gib(base.device)
    before = memory_gib(base.device)
    large = torch.empty(gib // 4, dtype=torch.uint8, device=base.device)
    del large
    assert memory_gib(base.device) == pytest.approx(before + 0.25, abs=0.01)
    assert memory_gib(base.device) == pytest.approx(before, abs=0.01)
