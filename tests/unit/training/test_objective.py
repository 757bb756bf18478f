import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sweep.data.batches import Batch
from sweep.train_config import TrainConfig
from sweep.training.objective import (
    add_noise,
    debiased_weight,
    huber_c_of,
    losses,
    min_snr_weight,
    noised_batch,
    target,
)
from tests.equivalence.trials import member

GOLDEN = json.loads((Path(__file__).parents[2] / "assets/kohya/min_snr.json").read_text())
SCALE = 0.18215


def batch(index: int = 7, *, num_rows: int = 2, weights: torch.Tensor | None = None,
          masks: torch.Tensor | None = None) -> Batch:
    moments = torch.rand(num_rows, 8, 16, 16, generator=torch.Generator().manual_seed(1))
    return Batch(index=index, captions=("a",) * num_rows, moments_BMHW=moments, masks_B1HW=masks,
                 loss_weights_B=torch.ones(num_rows) if weights is None else weights,
                 sizes=((128, 128, 0, 0, 128, 128),) * num_rows)


def config(**changes) -> TrainConfig:
    return member("x", seed=3, **changes).config


def noised(base, one: Batch, prediction_type: str = "epsilon", **changes):
    return noised_batch(one, base.alphas_cumprod, SCALE, prediction_type, config(**changes))


def test_the_noise_schedule_is_stable_diffusions(base) -> None:
    ours = base.alphas_cumprod[GOLDEN["timesteps"]].tolist()
    assert ours == pytest.approx(GOLDEN["alphas_cumprod"], rel=1e-5)


def test_noise_is_a_function_of_seed_and_batch(base) -> None:
    one = noised(base, batch())
    torch.randn(100)  # a global draw in between must not matter
    again = noised(base, batch())
    assert torch.equal(one.noisy_BCHW, again.noisy_BCHW)
    assert torch.equal(one.timesteps_B, again.timesteps_B)
    assert not torch.equal(one.target_BCHW, noised(base, batch(index=8)).target_BCHW)


@pytest.mark.parametrize("changes", [{"noise_offset": 0.1}, {"ip_noise_gamma": 0.1}, {"multires_noise_iterations": 6}])
def test_turning_a_noise_on_leaves_the_other_draws(base, changes) -> None:
    plain, more = noised(base, batch()), noised(base, batch(), **changes)
    assert torch.equal(plain.timesteps_B, more.timesteps_B)
    assert not torch.equal(plain.noisy_BCHW, more.noisy_BCHW)
    a = base.alphas_cumprod[plain.timesteps_B].view(-1, 1, 1, 1)

    def latents(one) -> torch.Tensor:
        return one.noisy_BCHW - (1 - a).sqrt() * one.target_BCHW

    if "ip_noise_gamma" in changes:
        assert torch.equal(plain.target_BCHW, more.target_BCHW), "it is asked for the noise without the perturbation"
        extra = (more.noisy_BCHW - plain.noisy_BCHW) / (1 - a).sqrt()
        assert float(extra.std()) == pytest.approx(0.1, rel=0.1)
    else:
        assert torch.allclose(latents(plain), latents(more), atol=1e-5), "the same latents under other noise"


def test_noise_offset_is_common_to_a_channel(base) -> None:
    difference = noised(base, batch(), noise_offset=0.1).target_BCHW - noised(base, batch()).target_BCHW
    assert torch.allclose(difference, difference[:, :, :1, :1].expand_as(difference), atol=1e-6)
    assert 0.01 < float(difference[:, :, 0, 0].std()) < 0.3
    assert len(set(difference[:, :, 0, 0].flatten().tolist())) == 8


def test_multires_noise_has_unit_variance_and_is_smoother(base) -> None:
    def roughness(noise: torch.Tensor) -> float:
        return float((noise[..., 1:] - noise[..., :-1]).square().mean() / noise.var())

    plain = noised(base, batch()).target_BCHW
    smooth = noised(base, batch(), multires_noise_iterations=6, multires_noise_discount=0.8).target_BCHW
    assert float(smooth.std()) == pytest.approx(1, abs=1e-5)
    assert roughness(smooth) < 0.8 * roughness(plain)


def test_noising_mixes_by_the_schedule() -> None:
    latents, noise = torch.ones(2, 4, 2, 2), torch.full((2, 4, 2, 2), 2.0)
    mixed = add_noise(latents, noise, torch.tensor([1.0, 0.36]))
    assert torch.allclose(mixed[0], latents[0])
    assert torch.allclose(mixed[1], torch.full((4, 2, 2), 0.6 * 1 + 0.8 * 2))


def test_a_velocity_is_diffusers(base) -> None:
    from diffusers import DDPMScheduler

    g = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(3, 4, 8, 8, generator=g), torch.randn(3, 4, 8, 8, generator=g)
    timesteps = torch.tensor([0, 500, 999])
    theirs = DDPMScheduler.from_config(base.scheduler_config).get_velocity(latents, noise, timesteps)
    ours = target(latents, noise, base.alphas_cumprod[timesteps], "v_prediction")
    assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize(("golden", "gamma", "is_velocity"), [
    ("gamma5_eps", 5, False), ("gamma5_v", 5, True), ("gamma1_eps", 1, False)])
def test_min_snr_weights_are_sd_scripts(golden: str, gamma: float, is_velocity: bool) -> None:
    ours = min_snr_weight(torch.tensor(GOLDEN["snr"]), gamma, is_velocity=is_velocity)
    assert ours.tolist() == pytest.approx(GOLDEN[golden], rel=1e-6)


@pytest.mark.parametrize(("golden", "is_velocity"), [("debiased_eps", False), ("debiased_v", True)])
def test_debiased_weights_are_sd_scripts(golden: str, is_velocity: bool) -> None:
    ours = debiased_weight(torch.tensor(GOLDEN["snr"]), is_velocity=is_velocity)
    assert ours.tolist() == pytest.approx(GOLDEN[golden], rel=1e-6)


def losses_of(base, one: Batch, prediction_type: str = "epsilon", **changes) -> list[float]:
    """Of an answer that is wrong by 0.5 everywhere."""
    given = noised(base, one, prediction_type, **changes)
    return losses(given.target_BCHW + 0.5, given, one, base.alphas_cumprod, prediction_type, config(**changes)).tolist()


def test_weights_and_masks(base) -> None:
    mask = torch.zeros(2, 1, 16, 16)
    mask[0, :, :4] = 1
    mask[1, :, :8] = 0.5
    assert losses_of(base, batch()) == pytest.approx([0.25, 0.25])
    assert losses_of(base, batch(weights=torch.tensor([1.0, 0.2]))) == pytest.approx([0.25, 0.05])
    assert losses_of(base, batch(masks=mask)) == pytest.approx([0.25 / 4, 0.25 / 4])


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_weights_by_snr_multiply_each_row(base, prediction_type: str) -> None:
    one = batch(num_rows=6)
    timesteps = noised(base, one).timesteps_B
    a = base.alphas_cumprod[timesteps]
    snr, is_velocity = a / (1 - a), prediction_type == "v_prediction"
    wanted = 0.25 * min_snr_weight(snr, 5, is_velocity=is_velocity)
    assert losses_of(base, one, prediction_type, min_snr_gamma=5) == pytest.approx(wanted.tolist(), rel=1e-5)
    both = wanted * debiased_weight(snr, is_velocity=is_velocity)
    found = losses_of(base, one, prediction_type, min_snr_gamma=5, debiased_estimation_loss=True)
    assert found == pytest.approx(both.tolist(), rel=1e-5)
    assert len(set(found)) == 6


def test_huber_is_quadratic_near_zero_and_straight_far_out(base) -> None:
    def cost(error: float, loss_type: str) -> float:
        changes = {"loss_type": loss_type, "huber_c": 0.1, "huber_schedule": "constant"}
        given = noised(base, batch(), **changes)
        return float(losses(given.target_BCHW + error, given, batch(), base.alphas_cumprod, "epsilon",
                            config(**changes)).mean())

    assert cost(1e-2, "huber") == pytest.approx(1e-4, rel=1e-2)  # e^2
    assert cost(2e3, "huber") - cost(1e3, "huber") == pytest.approx(2 * 0.1 * 1e3, rel=1e-3)  # slope 2c
    assert cost(1e-2, "smooth_l1") == pytest.approx(1e-4 / 0.1, rel=1e-2)  # e^2 / c
    assert cost(2e3, "smooth_l1") - cost(1e3, "smooth_l1") == pytest.approx(2 * 1e3, rel=1e-3)  # slope 2


def test_hubers_c_falls_from_one_to_its_value(base) -> None:
    timesteps = torch.tensor([0, 500, 999])
    a = base.alphas_cumprod[timesteps]

    def c(schedule: str) -> list[float]:
        return huber_c_of(replace(config(), huber_c=0.1, huber_schedule=schedule), a, timesteps, 1000).tolist()

    assert c("constant") == pytest.approx([0.1] * 3)
    assert c("exponential") == pytest.approx([1.0, 0.1**0.5, 0.1**0.999])
    sigma = ((1 - a) / a).sqrt()
    assert c("snr") == pytest.approx((0.9 / (1 + sigma) ** 2 + 0.1).tolist())
