"""Stages `latents` and `unet`: the denoiser and its text encoder, trained together on cached latents.

Legend: B pictures, C latent channels, H W latent cells, L tokens, D width of the text states, N all pictures.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from sweep.pocket.dataset import Pictures
from sweep.pocket.fit import fit
from sweep.pocket.models import SCALING_FACTOR, new_scheduler, new_text_encoder, new_unet
from sweep.pocket.recipe import Stage
from sweep.pocket.tokenizer import MAX_LENGTH

if TYPE_CHECKING:
    from diffusers import AutoencoderKL
    from transformers import CLIPTokenizer

CAPTION_DROPOUT = 0.1
MIN_SNR_GAMMA = 5.0
SHORT_LENGTH = 44
"""Most captions fit; most steps leave out the padding after it and are cheaper by a third."""
SHORT_FRAC = 0.75


def cache_latents(vae: AutoencoderKL, pictures: Pictures, path: Path) -> None:
    """Sampled latents of all train pictures at unit scale, N x 4 x 16 x 16 float16, in one .npy file."""
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    latents = np.empty((len(pictures), 4, 16, 16), dtype=np.float16)
    generator = torch.Generator().manual_seed(6)
    with torch.inference_mode():
        for rows in torch.arange(len(pictures)).split(128):
            # Half the time, and bfloat16's rounding is far below the posterior's own noise.
            with torch.autocast("cpu", torch.bfloat16):
                moments = vae.quant_conv(vae.encoder(pictures.images(rows) * 2 - 1))
            posterior = DiagonalGaussianDistribution(moments.float())
            latents[rows.numpy()] = (posterior.sample(generator) * SCALING_FACTOR).half().numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npy")
    np.save(partial, latents)
    partial.replace(path)


def tokens_of(captions: list[str], tokenizer: CLIPTokenizer) -> torch.Tensor:
    """Token ids, captions x MAX_LENGTH, int16 (the vocabulary is small)."""
    batch = tokenizer(captions, padding="max_length", truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
    return batch.input_ids.to(torch.int16)


class TrainBase(nn.Module):
    """UNet and text encoder as one module."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.unet = new_unet()
        self.text_encoder = new_text_encoder(tokenizer)

    def forward(self, noisy_BCHW: torch.Tensor, timestep_B: torch.Tensor, tokens_BL: torch.Tensor) -> torch.Tensor:
        """The predicted noise."""
        states_BLD = self.text_encoder(tokens_BL).last_hidden_state
        return self.unet(noisy_BCHW, timestep_B, states_BLD).sample.float()


def _snr_weights(alphas_cumprod_T: torch.Tensor) -> torch.Tensor:
    """Min-SNR for epsilon, eq. 3 of Hang et al. 2023: min(SNR, gamma) / SNR."""
    snr_T = alphas_cumprod_T / (1 - alphas_cumprod_T)
    return snr_T.clamp(max=MIN_SNR_GAMMA) / snr_T


def stratified_timesteps(num: int, num_timesteps: int, generator: torch.Generator) -> torch.Tensor:
    """One timestep in each of `num` equal parts of the schedule, B integers below `num_timesteps`."""
    places_B = (torch.arange(num) + torch.rand(num, generator=generator)) / num
    # In float32 the last place can round up to 1, which lies behind the schedule's end.
    return (places_B * num_timesteps).long().clamp(max=num_timesteps - 1)


def train_base(
    pictures: Pictures, latents_path: Path, tokenizer: CLIPTokenizer, stage: Stage, folder: Path, device: str
) -> TrainBase:
    """Predict the noise under min-SNR weights, timesteps stratified over the batch, captions dropped now and then."""
    torch.manual_seed(7)
    module = TrainBase(tokenizer)
    fit_base("unet", module, pictures, latents_path, tokenizer, stage, folder, device)
    return module


def fit_base(
    name: str,
    module: TrainBase,
    pictures: Pictures,
    latents_path: Path,
    tokenizer: CLIPTokenizer,
    stage: Stage,
    folder: Path,
    device: str,
) -> None:
    """Train what of `module` requires gradients on these pictures, as stage `name`."""
    from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

    if device == "cpu":
        # Measured: at these small heads plain products train 1.3 times as fast as the CPU's fused attention.
        module.unet.set_attn_processor(AttnProcessor())
        module.text_encoder.set_attn_implementation("eager")
    latents_NCHW = np.load(latents_path, mmap_mode="r")
    texts = [caption.text for of_one in pictures.captions for caption in of_one]
    tokens_NKL = tokens_of(texts, tokenizer).view(len(pictures), -1, MAX_LENGTH)
    empty_L = tokens_of([""], tokenizer)[0]
    alphas_cumprod_T = new_scheduler().alphas_cumprod
    weights_T = _snr_weights(alphas_cumprod_T)
    module.to(device)

    def loss_function(generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        num = stage.batch_size
        rows = torch.randint(len(pictures), (num,), generator=generator)
        which = torch.randint(tokens_NKL.shape[1], (num,), generator=generator)
        tokens_BL = tokens_NKL[rows, which].long()
        is_dropped = torch.rand(num, generator=generator) < CAPTION_DROPOUT
        tokens_BL[is_dropped] = empty_L.long()
        is_short = torch.rand((), generator=generator) < SHORT_FRAC
        tokens_BL = tokens_BL[:, :SHORT_LENGTH] if is_short else tokens_BL
        x0_BCHW = torch.from_numpy(latents_NCHW[rows.numpy()]).float()
        noise_BCHW = torch.randn(x0_BCHW.shape, generator=generator)
        t_B = stratified_timesteps(num, len(alphas_cumprod_T), generator)
        a_B111 = alphas_cumprod_T[t_B][:, None, None, None]
        noisy_BCHW = a_B111.sqrt() * x0_BCHW + (1 - a_B111).sqrt() * noise_BCHW
        predicted = module(noisy_BCHW.to(device), t_B.to(device), tokens_BL.to(device))
        error_B = F.mse_loss(predicted, noise_BCHW.to(device), reduction="none").mean(dim=(1, 2, 3))
        return (error_B * weights_T[t_B].to(device)).mean(), {"epsilon_mse": error_B.mean().item()}

    fit(name, stage, module, loss_function, folder, device)
    module.unet.set_attn_processor(AttnProcessor2_0())
