"""Make a torchvision without its compiled operators importable.

A CPU build of torch beside a torchvision from another index leaves torchvision's extension unloadable, and then
`import torchvision` (and with it lpips, peft, transformers' CLIP and diffusers' pipelines) dies with "operator
torchvision::nms does not exist". None of them calls that operator here; they only need the name to be declared.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

_DECLARED: list[object] = []  # keeps the torch.library.Library alive: dropping it would take the operators away


def declare_missing_operators() -> bool:
    """Declare torchvision's `nms` and `qnms` if torchvision is installed but its real operators can't be loaded.

    Call it before the first import of transformers, diffusers, peft or lpips. Safe to call often.
    Returns True if the names were declared by us, False if the real operators stand or torchvision is absent.
    """
    if _DECLARED:
        return True
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return False
    import torch

    for extension in sorted(Path(spec.origin).parent.glob("_C.*")):
        try:
            torch.ops.load_library(str(extension))
            return False
        except OSError:
            continue
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _DECLARED.append(library)
    return True
