"""Stages `vae` and `decoder`: the autoencoder, trained for squared and absolute error with the face counted more.

`decoder` goes on with the decoder alone on the latents that the base learned: as with the fine-tuned decoders of Stable
Diffusion 1.x, what is drawn gets sharper, and nothing that was trained on the latents has to be trained again.

Legend: B pictures, C channels, H W pixels or latent cells.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.lib.format import open_memmap

from sweep.pocket.dataset import Pictures, held_out_pictures, to_bytes
from sweep.pocket.fit import fit
from sweep.pocket.models import SCALING_FACTOR, freeze, new_vae
from sweep.pocket.recipe import Stage
from sweep.pocket.render import render

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

FACE_WEIGHT = 2.0
"""Added to a pixel's weight inside the face's box: eyes carry identity and blur first."""
DECODER_FACE_WEIGHT = 4.0
"""The same for the decoder alone."""
KL_WEIGHT = 1e-6


def box_mask(boxes_B4: torch.Tensor, size: int = 64) -> torch.Tensor:
    """1 inside each box, B x 1 x H x W."""
    axis = torch.arange(size) + 0.5
    x0, y0, x1, y1 = boxes_B4.T[:, :, None]
    across, down = (axis > x0) & (axis < x1), (axis > y0) & (axis < y1)
    return (down[:, :, None] & across[:, None, :]).float()[:, None]


class TrainVae(torch.nn.Module):
    """The VAE under the name that its checkpoint uses."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae


def train_vae(pictures: Pictures, stage: Stage, folder: Path) -> AutoencoderKL:
    """Train on single-pixel losses over whole pictures (crops would wash colours out: normalisation)."""
    torch.manual_seed(1)
    module = TrainVae(new_vae())

    def loss_function(generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        rows = torch.randint(len(pictures), (stage.batch_size,), generator=generator)
        images = pictures.images(rows) * 2 - 1
        posterior = module.vae.encode(images).latent_dist
        latents = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=generator)
        loss, psnr = _reconstruction(module.vae.decode(latents).sample, images, pictures.boxes_N4[rows], FACE_WEIGHT)
        loss = loss + KL_WEIGHT * posterior.kl().mean()
        return loss, {"psnr": psnr, "latent_std": latents.detach().std().item()}

    fit("vae", stage, module, loss_function, folder)
    return module.vae


def _reconstruction(
    decoded_BCHW: torch.Tensor, images_BCHW: torch.Tensor, boxes_B4: torch.Tensor, face_weight: float
) -> tuple[torch.Tensor, float]:
    """Weighted squared and absolute error of images in [-1, 1], and the mean PSNR in dB."""
    error = (decoded_BCHW.float() - images_BCHW) / 2
    weight = 1 + face_weight * box_mask(boxes_B4)
    # The absolute term sharpens edges once the squared one has flattened out.
    loss = (error.square() * weight).mean() * 10 + (error.abs() * weight).mean() * 0.5
    return loss, -10 * error.detach().square().mean(dim=(1, 2, 3)).log10().mean().item()


class TrainDecoder(torch.nn.Module):
    """What of the VAE turns latents into a picture, under the names that a VAE has."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.post_quant_conv, self.decoder = vae.post_quant_conv, vae.decoder


def train_decoder(vae: AutoencoderKL, latents_path: Path, pictures: Pictures, stage: Stage, folder: Path) -> None:
    """Train the decoder of the fixed `vae` in place on the cached latents, which stay as they are."""
    module = TrainDecoder(vae).requires_grad_(True)
    latents_NCHW = np.load(latents_path, mmap_mode="r")

    def loss_function(generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        rows = torch.randint(len(pictures), (stage.batch_size,), generator=generator)
        latents = torch.from_numpy(latents_NCHW[rows.numpy()]).float() / SCALING_FACTOR
        decoded = module.decoder(module.post_quant_conv(latents))
        images = pictures.images(rows) * 2 - 1
        loss, psnr = _reconstruction(decoded, images, pictures.boxes_N4[rows], DECODER_FACE_WEIGHT)
        return loss, {"psnr": psnr}

    fit("decoder", stage, module, loss_function, folder)


@torch.inference_mode()
def cache_decoded(vae: AutoencoderKL, latents_path: Path, path: Path) -> None:
    """Every train picture as the autoencoder gives it back, N x 3 x 64 x 64 uint8, in one .npy file."""
    latents_NCHW = np.load(latents_path, mmap_mode="r")
    partial = path.with_suffix(".partial.npy")
    decoded = open_memmap(partial, mode="w+", dtype=np.uint8, shape=(len(latents_NCHW), 3, 64, 64))
    for rows in torch.arange(len(latents_NCHW)).split(128):
        latents = torch.from_numpy(latents_NCHW[rows.numpy()]).float() / SCALING_FACTOR
        with torch.autocast("cpu", torch.bfloat16):
            images = vae.decode(latents).sample
        decoded[rows.numpy()] = to_bytes(images.float() / 2 + 0.5).numpy()
    decoded.flush()
    del decoded
    partial.replace(path)


@torch.no_grad()
def unit_scale(vae: AutoencoderKL, pictures: Pictures, num: int = 4096) -> AutoencoderKL:
    """A copy whose latents have mean 0 and deviation 1 per channel at exactly SD's scaling factor.

    The latents' statistics go into `quant_conv` and are taken back in `post_quant_conv`; reconstructions stay.
    """
    rows = torch.arange(0, len(pictures), max(1, len(pictures) // num))[:num]
    moments = [vae.encode(pictures.images(part) * 2 - 1).latent_dist.mean for part in rows.split(64)]
    latents = torch.cat(moments)
    mean_C, std_C = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    scaled = copy.deepcopy(vae)
    gain_C = 1 / (std_C * SCALING_FACTOR)
    quant, post = scaled.quant_conv, scaled.post_quant_conv
    channels = len(mean_C)
    quant.weight[:channels] *= gain_C[:, None, None, None]
    quant.bias[:channels] = (quant.bias[:channels] - mean_C) * gain_C
    quant.bias[channels:] += 2 * gain_C.log()
    # post(z) = W z + b with z = z' / gain + mean.
    post.bias += post.weight[:, :, 0, 0] @ mean_C
    post.weight /= gain_C[None, :, None, None]
    return freeze(scaled)


@torch.no_grad()
def psnr_held_out(vae: AutoencoderKL, num_people: int = 300) -> torch.Tensor:
    """PSNR in dB of one picture of each of `num_people` held-out people."""
    _, people, shots = held_out_pictures(1, seed=11, photos_only=False)
    rows = torch.arange(num_people)
    images = render(people[rows], shots[rows]).images_BCHW
    values = []
    for part in images.split(50):
        decoded = vae.decode(vae.encode(part * 2 - 1).latent_dist.mean).sample / 2 + 0.5
        values.append(-10 * (decoded.clamp(0, 1) - part).square().mean(dim=(1, 2, 3)).log10())
    return torch.cat(values)
