"""What stays of a picture that is inpainted, and how it is held while the rest is drawn.

Shapes: B rows, C H W latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from sweep.model.base import Base

Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """Of one picture. key: a hash of the picture and the mask."""

    latents_CHW: Tensor  # clean, as the UNet sees them
    hole_CHW: Tensor  # the same of the picture with grey in the mask
    mask_1HW: Tensor  # 1 where it is drawn anew, 0 where it stays
    key: str


@dataclass(frozen=True, slots=True)
class KnownRows:
    """Of a batch; of a row that is drawn whole nothing is known."""

    latents_BCHW: Tensor
    holes_BCHW: Tensor
    masks_B1HW: Tensor

    @property
    def condition_BCHW(self) -> Tensor:
        """What an inpainting UNet takes beside the noisy latents (Rombach et al. 2022, 4.5): mask, then the rest."""
        import torch

        return torch.cat([self.masks_B1HW, self.holes_BCHW], dim=1)

    def blended(self, latents_BCHW: Tensor, noise_BCHW: Tensor, sigma: float, *, grows: bool) -> Tensor:
        """Outside the mask the known picture at this noise (Avrahami et al. 2023, Blended Latent Diffusion, Alg. 1).

        grows: whether the variance grows with the noise (Euler), or is kept at 1 (DPM-Solver).
        """
        noised_BCHW = self.latents_BCHW + sigma * noise_BCHW
        noised_BCHW = noised_BCHW if grows else noised_BCHW / (1 + sigma ** 2) ** 0.5
        return self.masks_B1HW * latents_BCHW + (1 - self.masks_B1HW) * noised_BCHW


def known_of(rows: Sequence[Known | None], like_BCHW: Tensor) -> KnownRows | None:
    """None if all are drawn whole."""
    import torch

    if all(row is None for row in rows):
        return None
    batch = KnownRows(torch.zeros_like(like_BCHW), torch.zeros_like(like_BCHW), torch.ones_like(like_BCHW[:, :1]))
    for i, row in enumerate(rows):
        if row is not None:
            batch.latents_BCHW[i] = row.latents_CHW.to(like_BCHW)
            batch.holes_BCHW[i] = row.hole_CHW.to(like_BCHW)
            batch.masks_B1HW[i] = row.mask_1HW.to(like_BCHW)
    return batch


def known_picture(base: Base, image_CHW: Tensor, box: Box, key: str) -> Known:
    """A picture in [0, 1] with a masked box, x0 y0 x1 y1 in pixels on the grid of the latents."""
    import torch

    x0, y0, x1, y1 = box
    hole_CHW = image_CHW.clone()
    hole_CHW[:, y0:y1, x0:x1] = 0.5
    latents_BCHW = base.encode_moments(torch.stack([image_CHW, hole_CHW]) * 2 - 1)[:, :base.latent_channels]
    mask_1HW = torch.zeros_like(latents_BCHW[0, :1])
    x0, y0, x1, y1 = (edge // base.vae_scale for edge in box)
    mask_1HW[:, y0:y1, x0:x1] = 1
    latents_CHW, hole_CHW = latents_BCHW * base.scaling_factor
    return Known(latents_CHW, hole_CHW, mask_1HW, key)
