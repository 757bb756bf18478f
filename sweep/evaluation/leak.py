"""Leak: clothes and background of the training photos where the prompt asks for others (scores.md, Memorisation).

Faces are covered first, or a good likeness would count as a leak. Shapes: B images, F faces, P prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]
_WIDER = 0.35  # of a face's box on each side: hair and hat belong to the head


def without_faces(images_BCHW: Tensor, boxes_B: Sequence[Tensor]) -> Tensor:
    """The images with grey over each face; boxes [F, 4] of each image in pixels."""
    covered_BCHW = images_BCHW.clone()
    height, width = images_BCHW.shape[-2:]
    for image_CHW, boxes_F4 in zip(covered_BCHW, boxes_B, strict=True):
        for x0, y0, x1, y1 in boxes_F4.tolist():
            wide, high = _WIDER * (x1 - x0), _WIDER * (y1 - y0)
            left, right = max(0, int(x0 - wide)), min(width, int(x1 + wide) + 1)
            top, bottom = max(0, int(y0 - high)), min(height, int(y1 + high) + 1)
            image_CHW[:, top:bottom, left:right] = 0.5
    return covered_BCHW


def leak_span(base_P: Floats, trained: Sequence[float]) -> float:
    """How much nearer the training photos are to each other than the base's images are to them; what does not exceed a
    least range has nothing in common that could leak. NaN of nothing."""
    return float(np.mean(trained) - np.mean(base_P)) if len(trained) and len(base_P) else float("nan")


def leak(gen_P: Floats, base_P: Floats, trained: Sequence[float]) -> float:
    """0 = as the base on the same cells, 1 = as near to the training photos as these are to each other; NaN where
    those are no nearer."""
    span = leak_span(base_P, trained)
    return float(np.mean(gen_P - base_P)) / span if span > 0 else float("nan")
