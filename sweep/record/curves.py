"""A trial's metrics.jsonl as a few short curves over its steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sweep.files import read_jsonl
from sweep.trial import AXES

MAX_POINTS = 150
_SKIPPED = ("kind", "step", "epoch", "file", "attributed_s", "is_skipped")

Curve = dict[str, list[float]]  # {"x": steps, "y": values}


def read_curves(metrics: Path) -> dict[str, Curve]:
    """By name: "train/loss", "train/unet_lr", "validation/loss", "validation/buckets/0", "screen/usefulness" ...

    Training rows are averaged over neighbouring steps down to MAX_POINTS; a resume's repeated steps count once.
    """
    points: dict[str, dict[int, float]] = {}
    for row in read_jsonl(metrics):
        for name, value in _values(row):
            points.setdefault(name, {})[int(row["step"])] = value
    return {name: _thinned(sorted(by_step.items())) for name, by_step in points.items() if by_step}


def _values(row: Mapping[str, Any]) -> list[tuple[str, float]]:
    kind = row.get("kind")
    if kind in (None, "checkpoint") or "step" not in row:
        return []
    if kind == "score":
        score = row["score"]
        axes = score["axes"]
        return [(f"{score['stage']}/{name}", axes[name]["value"]) for name in AXES
                if name in axes and axes[name]["value"] is not None]
    found = []
    for key, value in row.items():
        if key in _SKIPPED:
            continue
        parts = value.items() if isinstance(value, Mapping) else [("", value)]
        found += [(f"{kind}/{key}/{part}".rstrip("/"), float(number)) for part, number in parts
                  if isinstance(number, (int, float)) and not isinstance(number, bool) and math.isfinite(number)]
    return found


def _thinned(points: Sequence[tuple[int, float]]) -> Curve:
    size = -(-len(points) // MAX_POINTS)
    groups = [points[i:i + size] for i in range(0, len(points), size)]
    return {"x": [group[-1][0] for group in groups],
            "y": [float(f"{sum(y for _, y in group) / len(group):.5g}") for group in groups]}
