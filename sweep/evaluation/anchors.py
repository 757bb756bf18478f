"""Anchors: the base model and real photos, measured once per (dataset, base, scoring) and kept on disk by content."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep.errors import ScoringError
from sweep.evaluation.cells import Cell
from sweep.evaluation.likeness import why_invalid
from sweep.evaluation.measure import (
    Measured,
    MeasuredSet,
    RealPhotos,
    real_from_json,
    set_from_json,
    set_to_json,
)
from sweep.evaluation.settings import STAGES, ScoringConfig
from sweep.files import read_json, stable_hash, write_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchors:
    """scoring_key: what was drawn and measured how; anchors of another key are never mixed with its scores.

    photos_key: what it was measured beside.
    """

    scoring_key: str
    photos_key: str
    base: Mapping[str, MeasuredSet]  # by stage: the base without LoRA on the same cells
    real: RealPhotos

    def base_on(self, stage: str) -> dict[tuple[str, int, int], Measured]:
        """The base's whole images on a stage's normal prompts, by cell."""
        return {m.key: m for m in self.base[stage].images if m.kind == "prompt" and not m.is_broken}

    def likeness_problem(self, scoring: ScoringConfig) -> str:
        """Why likeness is invalid; empty if it is not. Judged on the cells of all stages, each once."""
        images = {key: m for stage in STAGES for key, m in self.base_on(stage).items()}
        floor = [m.face for m in images.values() if scoring.prompts[m.index].face and m.face is not None]
        return why_invalid(floor, self.real.ceiling_faces, self.real.num_faces, scoring.validity.min_dprime)

    def check_key(self, scoring_key: str) -> None:
        """Raise ScoringError if these anchors belong to another scoring."""
        if scoring_key != self.scoring_key:
            raise ScoringError(f"Scores under the key {scoring_key} can't be normalised by anchors under the key "
                               f"{self.scoring_key}: another prompt set, sampler, backend or base. Score again.")


def anchors_path(results_dir: Path, scoring_key: str, photos_key: str, cells: Sequence[Cell]) -> Path:
    drawn = sorted([*cell.key, cell.class_text] for cell in cells)
    key = stable_hash([scoring_key, photos_key, drawn], num_digits=16)
    return results_dir / "cache" / "anchors" / f"{key}.json"


def read_anchors(path: Path) -> Anchors | None:
    """The cached anchors, or None if there are none or the file is damaged (they are then measured again)."""
    if not path.exists():
        return None
    try:
        tree = read_json(path)
        return Anchors(scoring_key=tree["scoring_key"], photos_key=tree["photos_key"],
                       base={stage: set_from_json(tree["base"][stage]) for stage in STAGES},
                       real=real_from_json(tree["real"]))
    except (ValueError, KeyError, TypeError):
        return None


def write_anchors(path: Path, anchors: Anchors) -> None:
    tree: dict[str, Any] = {"scoring_key": anchors.scoring_key, "photos_key": anchors.photos_key,
                            "base": {stage: set_to_json(measured) for stage, measured in anchors.base.items()},
                            "real": dataclasses.asdict(anchors.real)}
    write_json(path, tree)
