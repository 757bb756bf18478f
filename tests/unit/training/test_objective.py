import json
from pathlib import Path

import pytest
import torch

from sweep.training.objective import add_noise, noised_batch

GOLDEN = json.loads((Path(__file__).parents[2] / "assets/kohya/min_snr.json").read_text())


def test_the_noise_schedule_is_stable_diffusions(base) -> None:
    ours = base.alphas_cumprod[GOLDEN["timesteps"]].tolist()
    assert ours == pytest.approx(GOLDEN["alphas_cumprod"], rel=1e-5)


def test_noise_is_a_function_of_seed_and_step(base) -> None:
    moments = torch.rand(2, 8, 16, 16)
    one = noised_batch(moments, base.alphas_cumprod, 0.18215, seed=3, index=7)
    torch.randn(100)  # a global draw in between must not matter
    again = noised_batch(moments, base.alphas_cumprod, 0.18215, seed=3, index=7)
    assert torch.equal(one.noisy_BCHW, again.noisy_BCHW)
    assert torch.equal(one.timesteps_B, again.timesteps_B)
    other = noised_batch(moments, base.alphas_cumprod, 0.18215, seed=3, index=8)
    assert not torch.equal(one.target_BCHW, other.target_BCHW)


def test_noising_mixes_by_the_schedule() -> None:
    latents, noise = torch.ones(2, 4, 2, 2), torch.full((2, 4, 2, 2), 2.0)
    mixed = add_noise(latents, noise, torch.tensor([1.0, 0.36]))
    assert torch.allclose(mixed[0], latents[0])
    assert torch.allclose(mixed[1], torch.full((4, 2, 2), 0.6 * 1 + 0.8 * 2))
