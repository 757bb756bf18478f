"""Burn: clipped, over-saturated, over-contrasted, over-sharp images, against the base on the same cell. No model.

Shapes: B images, C H W pixels in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

KINDS = ("clipped", "saturation", "contrast", "sharpness")
_OFFSET = 0.01  # keeps the ratio of two shares near zero near one
_CLIPPED_BELOW, _CLIPPED_ABOVE = 2 / 255, 253 / 255


def looks(images_BCHW: Tensor) -> list[dict[str, float]]:
    """The four measures of each image."""
    import torch.nn.functional as F

    grey_BHW = images_BCHW.mean(dim=1)
    clipped = ((images_BCHW <= _CLIPPED_BELOW) | (images_BCHW >= _CLIPPED_ABOVE)).float().mean(dim=(1, 2, 3))
    saturation = (images_BCHW.amax(dim=1) - images_BCHW.amin(dim=1)).mean(dim=(1, 2))
    contrast = grey_BHW.std(dim=(1, 2))
    smooth = F.avg_pool2d(F.pad(grey_BHW[:, None], (1, 1, 1, 1), mode="replicate"), 3, stride=1)[:, 0]
    sharpness = (grey_BHW - smooth).abs().mean(dim=(1, 2))
    columns = zip(clipped.tolist(), saturation.tolist(), contrast.tolist(), sharpness.tolist(), strict=True)
    return [dict(zip(KINDS, row, strict=True)) for row in columns]


def log_ratios(look: Mapping[str, float], base_look: Mapping[str, float]) -> dict[str, float]:
    """log of (image + offset) / (base + offset) for each measure."""
    return {kind: math.log((look[kind] + _OFFSET) / (base_look[kind] + _OFFSET)) for kind in KINDS}


def burn(ratios: Sequence[Mapping[str, float]], limits: Mapping[str, float]) -> float:
    """The largest mean log-ratio in units of its limit: above 1 = burnt."""
    return max(float(np.mean([row[kind] for row in ratios])) / limits[kind] for kind in KINDS)
