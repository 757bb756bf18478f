"""Stage `vae`: the autoencoder, trained for squared and absolute error with the face counted more.

Legend: B pictures, C channels, H W pixels or latent cells.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sweep.pocket.dataset import Pictures, held_out_pictures
from sweep.pocket.fit import fit
from sweep.pocket.models import SCALING_FACTOR, freeze, new_vae
from sweep.pocket.recipe import Stage
from sweep.pocket.render import render

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

FACE_WEIGHT = 2.0
"""Added to a pixel's weight inside the face's box: eyes carry identity and blur first."""
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
        error = (module.vae.decode(latents).sample.float() - images) / 2
        weight = 1 + FACE_WEIGHT * box_mask(pictures.boxes_N4[rows])
        squared = (error.square() * weight).mean()
        absolute = (error.abs() * weight).mean()
        psnr = -10 * error.detach().square().mean(dim=(1, 2, 3)).log10().mean()
        # The absolute term sharpens edges once the squared one has flattened out.
        loss = squared * 10 + absolute * 0.5 + KL_WEIGHT * posterior.kl().mean()
        return loss, {"psnr": psnr.item(), "latent_std": latents.detach().std().item()}

    fit("vae", stage, module, loss_function, folder)
    return module.vae


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
