"""What a training step asks of the UNet: the noise (or velocity) in a noised latent, and what a wrong answer costs.

Shapes: B images, C H W latent, T timesteps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.randomness import generator

if TYPE_CHECKING:
    from torch import Tensor

    from sweep.data.batches import Batch
    from sweep.train_config import TrainConfig

MAX_SNR = 1000.0  # where debiased estimation stops following the SNR, as in its authors' code


@dataclass(frozen=True, slots=True)
class NoisedBatch:
    """The UNet's input and what it should answer; a function of (latent moments, trial seed, batch)."""

    noisy_BCHW: Tensor
    timesteps_B: Tensor
    target_BCHW: Tensor


def noised_batch(batch: Batch, alphas_cumprod_T: Tensor, scaling_factor: float, prediction_type: str,
                 config: TrainConfig) -> NoisedBatch:
    """Sample latents from the VAE's posterior, timesteps uniformly, and noise; all drawn on the CPU.

    Every draw has a generator of its own by (seed, batch, purpose): turning one kind of noise on leaves the others, and
    the timesteps, as they were.
    """
    import torch

    def draw(shape: torch.Size, purpose: str) -> Tensor:
        return torch.randn(shape, generator=generator(config.seed, batch.index, purpose))

    mean_BCHW, std_BCHW = batch.moments_BMHW.chunk(2, dim=1)
    latents = (mean_BCHW + std_BCHW * draw(mean_BCHW.shape, "posterior")) * scaling_factor
    timesteps = torch.randint(0, len(alphas_cumprod_T), (len(mean_BCHW),),
                              generator=generator(config.seed, batch.index, "timestep"))
    noise = draw(latents.shape, "noise")
    if config.noise_offset > 0:
        # noise with a part that is common to a whole channel (Guttenberg 2023, "Diffusion with Offset Noise")
        noise = noise + config.noise_offset * draw(torch.Size((*latents.shape[:2], 1, 1)), "noise offset")
    if config.multires_noise_iterations > 0:
        noise = _multires(noise, config, batch.index)
    given = noise
    if config.ip_noise_gamma > 0:
        # y = sqrt(a) x_0 + sqrt(1 - a) (e + gamma xi), still asked for e (Ning et al. 2023, eq. 10)
        given = noise + config.ip_noise_gamma * draw(latents.shape, "input perturbation")
    a_B = alphas_cumprod_T[timesteps]
    return NoisedBatch(add_noise(latents, given, a_B), timesteps, target(latents, noise, a_B, prediction_type))


def add_noise(latents_BCHW: Tensor, noise_BCHW: Tensor, alphas_cumprod_B: Tensor) -> Tensor:
    """x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) e (Ho et al. 2020, eq. 4)."""
    a = alphas_cumprod_B.view(-1, 1, 1, 1)
    return a.sqrt() * latents_BCHW + (1 - a).sqrt() * noise_BCHW


def target(latents_BCHW: Tensor, noise_BCHW: Tensor, alphas_cumprod_B: Tensor, prediction_type: str) -> Tensor:
    """The noise e, or the velocity v = sqrt(a_t) e - sqrt(1 - a_t) x_0 (Salimans and Ho 2022, appendix D)."""
    if prediction_type == "epsilon":
        return noise_BCHW
    assert prediction_type == "v_prediction", prediction_type
    a = alphas_cumprod_B.view(-1, 1, 1, 1)
    return a.sqrt() * noise_BCHW - (1 - a).sqrt() * latents_BCHW


def losses(predicted_BCHW: Tensor, noised: NoisedBatch, batch: Batch, alphas_cumprod_T: Tensor, prediction_type: str,
           config: TrainConfig) -> Tensor:
    """The loss of each row, [B]: its error, masked, averaged over the latent, times its weights."""
    device = predicted_BCHW.device
    a_B = alphas_cumprod_T[noised.timesteps_B].to(device)
    cost = _cost(predicted_BCHW - noised.target_BCHW.to(device), config, a_B, noised.timesteps_B, len(alphas_cumprod_T))
    if batch.masks_B1HW is not None:
        cost = cost * batch.masks_B1HW.to(device)
    weights_B = batch.loss_weights_B.to(device)
    snr_B = a_B / (1 - a_B)
    is_velocity = prediction_type == "v_prediction"
    if config.min_snr_gamma is not None:
        weights_B = weights_B * min_snr_weight(snr_B, config.min_snr_gamma, is_velocity=is_velocity)
    if config.debiased_estimation_loss:
        weights_B = weights_B * debiased_weight(snr_B, is_velocity=is_velocity)
    return cost.mean(dim=(1, 2, 3)) * weights_B


def min_snr_weight(snr_B: Tensor, gamma: float, *, is_velocity: bool) -> Tensor:
    """min(SNR, gamma) / SNR, for velocities / (SNR + 1) (Hang et al. 2023, section 3.4)."""
    if is_velocity:
        return snr_B.clamp(max=gamma) / (snr_B + 1)
    return (gamma / snr_B).clamp(max=1.0)  # the same, and 1 where the SNR is 0


def debiased_weight(snr_B: Tensor, *, is_velocity: bool) -> Tensor:
    """1 / sqrt(SNR) (Yu et al. 2024, eq. 11), for velocities 1 / (SNR + 1)."""
    snr = snr_B.clamp(max=MAX_SNR)
    return 1 / (snr + 1) if is_velocity else snr.rsqrt()


def _cost(error_BCHW: Tensor, config: TrainConfig, a_B: Tensor, timesteps_B: Tensor, num_timesteps: int) -> Tensor:
    """The squared error; or pseudo-Huber, 2c (sqrt(e^2 + c^2) - c), quadratic near 0 and straight far out; or
    smooth_l1, the same without the factor c (Khrapov et al. 2024, eq. 4 and 5)."""
    if config.loss_type == "l2":
        return error_BCHW.square()
    c = huber_c_of(config, a_B, timesteps_B.to(a_B.device), num_timesteps).view(-1, 1, 1, 1)
    excess = (error_BCHW.square() + c * c).sqrt() - c
    return 2 * excess * (c if config.loss_type == "huber" else 1)


def huber_c_of(config: TrainConfig, a_B: Tensor, timesteps_B: Tensor, num_timesteps: int) -> Tensor:
    """c of each row (Khrapov et al. 2024, section 3.2): the same everywhere; or falling from 1 to huber_c over the
    timesteps, exponentially or with the noise's size sigma."""
    import torch

    match config.huber_schedule:
        case "constant":
            return torch.full_like(a_B, config.huber_c)
        case "exponential":
            return torch.exp(math.log(config.huber_c) * timesteps_B / num_timesteps).to(a_B.dtype)
    sigma = ((1 - a_B) / a_B).sqrt()
    return (1 - config.huber_c) / (1 + sigma).square() + config.huber_c


def _multires(noise_BCHW: Tensor, config: TrainConfig, index: int) -> Tensor:
    """Noise at several resolutions, each coarser by a random factor of 2 to 4 and weaker by the discount, at unit
    variance again (Whitaker 2023, "Multi-Resolution Noise for Diffusion Model Training")."""
    import torch

    g = generator(config.seed, index, "multires noise")
    batch_size, channels, height, width = noise_BCHW.shape
    for i in range(config.multires_noise_iterations):
        shrink = (2 + 2 * float(torch.rand((), generator=g))) ** i
        size = max(1, int(height / shrink)), max(1, int(width / shrink))
        coarse = torch.randn((batch_size, channels, *size), generator=g)
        noise_BCHW = noise_BCHW + config.multires_noise_discount**i * torch.nn.functional.interpolate(
            coarse, size=(height, width), mode="bilinear")
        if 1 in size:
            break
    return noise_BCHW / noise_BCHW.std()
