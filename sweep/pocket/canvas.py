"""A batch of pictures that shapes are painted on, and the palettes of the world.

Legend: B pictures, H W pixels. A shape is a coverage B x H x W in [0, 1], antialiased over one pixel.
"""

from __future__ import annotations

import torch

SIZE = 64

HAIR_RGB = torch.tensor(
    [
        (0.06, 0.05, 0.07), (0.36, 0.21, 0.10), (0.92, 0.78, 0.38), (0.66, 0.09, 0.07), (0.55, 0.56, 0.59),
        (0.96, 0.96, 0.97), (0.13, 0.28, 0.88), (0.16, 0.66, 0.24), (0.97, 0.43, 0.71), (0.98, 0.52, 0.07),
    ]
)  # fmt: skip
"""In the order of world.HAIR_COLOURS."""

CLOTHES_RGB = torch.tensor(
    [
        (0.83, 0.10, 0.12), (0.97, 0.53, 0.10), (0.97, 0.88, 0.20), (0.12, 0.60, 0.22), (0.12, 0.28, 0.80),
        (0.50, 0.16, 0.66), (0.97, 0.55, 0.74), (0.08, 0.08, 0.10), (0.95, 0.95, 0.95), (0.52, 0.53, 0.55),
    ]
)  # fmt: skip
"""In the order of world.ATTRIBUTES["clothes_colour"]."""

HAT_RGB = torch.tensor(
    [(0.15, 0.18, 0.35), (0.42, 0.12, 0.17), (0.25, 0.25, 0.27), (0.33, 0.36, 0.18), (0.66, 0.55, 0.40)]
)

SKIN_RGB = torch.tensor(
    [(0.99, 0.88, 0.80), (0.95, 0.78, 0.65), (0.83, 0.62, 0.46), (0.60, 0.40, 0.27), (0.36, 0.22, 0.15)]
)
IRIS_RGB = torch.tensor(
    [(0.16, 0.09, 0.05), (0.45, 0.24, 0.08), (0.62, 0.48, 0.12), (0.22, 0.52, 0.20), (0.15, 0.52, 0.60),
     (0.16, 0.38, 0.85), (0.46, 0.52, 0.58)]
)  # fmt: skip


def along(palette_K3: torch.Tensor, position_B: torch.Tensor) -> torch.Tensor:
    """Colours B x 3 at `position_B` in [0, 1] along a palette."""
    scaled = position_B.clamp(0, 1) * (len(palette_K3) - 1)
    low = scaled.floor().long().clamp(max=len(palette_K3) - 2)
    fraction = (scaled - low)[:, None]
    return palette_K3[low] * (1 - fraction) + palette_K3[low + 1] * fraction


def mix(low: float, high: float, amount_B: torch.Tensor) -> torch.Tensor:
    """From `low` at 0 to `high` at 1."""
    return low + (high - low) * amount_B


def per_pixel(value_B: torch.Tensor) -> torch.Tensor:
    """B to B x 1 x 1."""
    return value_B[:, None, None]


def cover(distance_BHW: torch.Tensor) -> torch.Tensor:
    """Coverage of a pixel whose centre is `distance` pixels outside of a shape's edge."""
    return (0.5 - distance_BHW).clamp_(0, 1)


def random_details(seed_N: torch.Tensor, num: int) -> torch.Tensor:
    """N x num numbers in [0, 1) that are a function of each seed (an integer hash, so rows are independent)."""
    state = seed_N[:, None] * 0x9E3779B1 + torch.arange(1, num + 1)[None] * 0x85EBCA77
    for shift, factor in ((15, 0x2C1B3C6D), (12, 0x297A2D39)):
        state = ((state ^ (state >> shift)) * factor) & 0xFFFFFFFF
    return ((state ^ (state >> 15)) & 0xFFFFFF).float() / 0x1000000


class Canvas:
    """Pictures under construction, `rgb` B x 3 x H x W in [0, 1], with the pixel centres `x` and `y` (1 x H x W)."""

    def __init__(self, num: int) -> None:
        self.rgb = torch.zeros(num, 3, SIZE, SIZE)
        axis = torch.arange(SIZE) + 0.5
        self.x = axis[None, None, :]
        self.y = axis[None, :, None]

    def paint(self, coverage_BHW: torch.Tensor, colour_B3: torch.Tensor) -> None:
        """Put one colour per picture on top."""
        self.rgb += coverage_BHW[:, None] * (colour_B3[:, :, None, None] - self.rgb)

    def shade(self, coverage_BHW: torch.Tensor, factor: float | torch.Tensor) -> None:
        """Multiply by `factor` (a number, B, or B x H x W; below 1 darkens) where covered."""
        if isinstance(factor, torch.Tensor) and factor.dim() == 1:
            factor = per_pixel(factor)
        self.rgb *= (1 + coverage_BHW * (factor - 1))[:, None]
