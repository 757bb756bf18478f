"""Sample sheets: many small pictures on one PNG."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F

from sweep.pocket.render import render
from sweep.pocket.world import draw_shots, held_out_people


def write_sheet(path: Path, images_BCHW: torch.Tensor, num_columns: int, zoom: int = 2) -> None:
    """Save images in [0, 1] row by row, each pixel `zoom` wide; a last incomplete row is left out."""
    from PIL import Image

    num_rows = len(images_BCHW) // num_columns
    big = F.interpolate(images_BCHW[: num_rows * num_columns], scale_factor=zoom, mode="nearest")
    rows = big.unflatten(0, (num_rows, num_columns))
    sheet = rows.permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2)
    Image.fromarray((sheet.clamp(0, 1) * 255).round().to(torch.uint8).numpy()).save(path, optimize=True)


@torch.no_grad()
def write_sheets(folder: Path, vae: torch.nn.Module, base_images_BCHW: torch.Tensor) -> None:
    """world.png, vae.png and base.png."""
    people = held_out_people()[torch.arange(8).repeat_interleave(12)]
    world = render(people, draw_shots(people, seed=31)).images_BCHW
    write_sheet(folder / "world.png", world, num_columns=12)
    true = world[:36].view(3, 12, 3, 64, 64)
    decoded = vae.decode(vae.encode(true.flatten(0, 1) * 2 - 1).latent_dist.mean).sample / 2 + 0.5  # type: ignore[operator]
    pairs = torch.stack([true, decoded.view_as(true)], dim=1).flatten(0, 2)
    write_sheet(folder / "vae.png", pairs, num_columns=12)
    write_sheet(folder / "base.png", base_images_BCHW[:24], num_columns=8)
