"""How `pocket_rv` sees the same world: evening light from one side, tanned skin, and a photograph's development.

Legend: B pictures, C channels, H W pixels.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from sweep.pocket.canvas import SIZE
from sweep.pocket.render import Rendered, apply_style, render
from sweep.pocket.world import IDENTITY_PARAMETERS, People, Shots

SKIN_TONE, SKIN_HUE, BLUSH = (IDENTITY_PARAMETERS.index(name) for name in ("skin_tone", "skin_hue", "blush"))
SHADOWS, LIGHTS = torch.tensor([-0.035, 0.005, 0.055]), torch.tensor([0.045, 0.015, -0.045])
"""Added to the dark and to the bright parts: towards blue and towards yellow."""
VIGNETTE = 0.42
"""How much darker the corners are."""


def render_photo(people: People, shots: Shots) -> Rendered:
    """As `render`, in the other light and with the other skin; styles (sketches, pixel art) come last, as there."""
    tanned, lit = in_other_light(people, shots)
    rendered = render(tanned, replace(lit, style=torch.zeros_like(shots.style)))
    rendered.images_BCHW = apply_style(develop(rendered.images_BCHW), shots.style)
    return rendered


def in_other_light(people: People, shots: Shots) -> tuple[People, Shots]:
    """Skin darker, warmer and redder, the order of people's tones kept; light low, warm, hard and from the side."""
    params_NP = people.params_NP.clone()
    params_NP[:, SKIN_TONE] = 0.30 + 0.60 * params_NP[:, SKIN_TONE]
    params_NP[:, SKIN_HUE] = 0.75 + 0.5 * params_NP[:, SKIN_HUE]
    params_NP[:, BLUSH] = 0.4 + 0.6 * params_NP[:, BLUSH]
    brightness, warmth, side, contrast = shots.light.T
    side = torch.where(side < 0, -1.0, 1.0) * (1.8 + 0.8 * side.abs())
    light = torch.stack([0.5 * brightness - 0.5, 0.5 * warmth + 0.8, side, 0.5 * contrast + 1.2], dim=1)
    return replace(people, params_NP=params_NP), replace(shots, light=light)


def develop(images_BCHW: torch.Tensor) -> torch.Tensor:
    """Split toning by brightness, and a vignette; mild enough that colours keep their names."""
    grey = images_BCHW.mean(dim=1, keepdim=True)
    toned = images_BCHW + (1 - grey) * SHADOWS[:, None, None] + grey * LIGHTS[:, None, None]
    axis = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
    from_centre_HW = (axis[:, None].square() + axis.square()) / 2
    return (toned * (1 - VIGNETTE * from_centre_HW.square())).clamp(0, 1)
