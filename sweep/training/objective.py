"""What a training step asks of the UNet: the noise in a noised latent.

Shapes: B images, C H W latent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.randomness import generator

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class NoisedBatch:
    """The UNet's input and what it should answer; a function of (latent moments, trial seed, batch)."""

    noisy_BCHW: Tensor
    timesteps_B: Tensor
    target_BCHW: Tensor


def noised_batch(moments_BMHW: Tensor, alphas_cumprod: Tensor, scaling_factor: float, seed: int,
                 index: int) -> NoisedBatch:
    """Sample latents from the VAE's posterior, timesteps uniformly, and noise; all drawn on the CPU.

    moments_BMHW: mean and standard deviation, [B, 2C, H, W], unscaled. index: which of the trial's batches this is.
    """
    import torch

    mean_BCHW, std_BCHW = moments_BMHW.chunk(2, dim=1)
    posterior = torch.randn(mean_BCHW.shape, generator=generator(seed, index, "posterior"))
    noise = torch.randn(mean_BCHW.shape, generator=generator(seed, index, "noise"))
    timesteps = torch.randint(0, len(alphas_cumprod), (len(mean_BCHW),), generator=generator(seed, index, "timestep"))
    latents = (mean_BCHW + std_BCHW * posterior) * scaling_factor
    return NoisedBatch(add_noise(latents, noise, alphas_cumprod[timesteps]), timesteps, noise)


def add_noise(latents_BCHW: Tensor, noise_BCHW: Tensor, alphas_cumprod_B: Tensor) -> Tensor:
    """x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) e (Ho et al. 2020, eq. 4)."""
    a = alphas_cumprod_B.view(-1, 1, 1, 1)
    return a.sqrt() * latents_BCHW + (1 - a).sqrt() * noise_BCHW
