"""The measured images of one file laid out by prompt, beside the base's on the same cells.

Shapes: P prompts of the stage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sweep.evaluation.adherence import ProbeTable, drop_failed_probes
from sweep.evaluation.anchors import Anchors
from sweep.evaluation.burn import log_ratios
from sweep.evaluation.measure import Measured, MeasuredSet
from sweep.evaluation.settings import ScoringConfig

Floats = NDArray[np.float64]
Images = Sequence[Sequence[Measured]]


@dataclass(frozen=True, slots=True)
class Table:
    """Per-prompt means over the seeds; NaN where a prompt does not measure it."""

    prompts: list[int]
    face_gen_P: Floats
    face_base_P: Floats
    every_gen_P: Floats  # as face_gen_P and face_base_P, also of prompts whose face does not count
    every_base_P: Floats
    probes: dict[str, ProbeTable]
    clip_gen_P: Floats
    clip_base_P: Floats
    clip_real_P: Floats
    variety_gen_P: Floats
    variety_base_P: Floats
    near_gen_P: Floats
    near_base_P: Floats
    copies_P: Floats
    context_gen_P: Floats
    context_base_P: Floats
    drift_P: Floats
    ratios: list[list[dict[str, float]]]  # of each prompt's images, burn's log-ratios


def table_of(measured: MeasuredSet, images: Sequence[Measured], anchors: Anchors, scoring: ScoringConfig,
             stage: str) -> tuple[Table, list[str]]:
    """Lay out the stage's prompts, each image beside the base's on the same cell; says what is left out."""
    on_cell = anchors.base_on(stage)
    prompts = sorted({m.index for m in images})
    gen = [[m for m in images if m.index == p] for p in prompts]
    base = [[on_cell[m.key] for m in rows] for rows in gen]
    base_face = [mean_of([m.face for m in rows if m.face is not None]) for rows in base]
    floor = mean_of([m.face for rows in base for m in rows if m.face is not None and scoring.prompts[m.index].face])
    base_face = [floor if math.isnan(face) else face for face in base_face]
    is_face = np.array([scoring.prompts[p].face for p in prompts], dtype=bool)
    face_gen = np.array([mean_of([face if m.face is None else m.face for m in rows])  # no face counts as the floor
                         for rows, face in zip(gen, base_face, strict=True)])
    probes, notes = {}, []
    for name in scoring.attributes:
        probes[name], dropped = drop_failed_probes(_probe_table(name, prompts, gen, base, anchors, scoring),
                                                   scoring.validity.min_probe_range)
        if dropped:
            asked = ", ".join(scoring.prompts[prompts[i]].probes[name] for i in dropped)
            notes.append(f"dropped the {name} probes that the base itself fails: {asked}")
    if measured.variety == {}:
        notes.append("diversity not measured: one seed per prompt")
    base_variety = anchors.base[stage].variety
    return Table(
        prompts=prompts, probes=probes,
        face_gen_P=np.where(is_face, face_gen, np.nan), face_base_P=np.where(is_face, base_face, np.nan),
        every_gen_P=face_gen, every_base_P=np.array(base_face),
        clip_gen_P=_array([[m.clip for m in rows] for rows in gen]),
        clip_base_P=_array([[m.clip for m in rows] for rows in base]),
        clip_real_P=np.array([anchors.real.clip[p] for p in prompts]),
        variety_gen_P=np.array([measured.variety.get(p, math.nan) for p in prompts]),
        variety_base_P=np.array([base_variety.get(p, math.nan) for p in prompts]),
        near_gen_P=_array([[m.nearest for m in rows] for rows in gen]),
        near_base_P=_array([[m.nearest for m in rows] for rows in base]),
        copies_P=_array([[float(m.nearest < scoring.copies.copy_distance) for m in rows] for rows in gen]),
        context_gen_P=_array([[m.context for m in rows] for rows in gen]),
        context_base_P=_array([[m.context for m in rows] for rows in base]),
        drift_P=_drift(prompts, gen, base, anchors, scoring),
        ratios=[[log_ratios(m.look, on_cell[m.key].look) for m in rows] for rows in gen]), notes


def _probe_table(name: str, prompts: Sequence[int], gen: Images,
                 base: Images, anchors: Anchors, scoring: ScoringConfig) -> ProbeTable:
    targets = [scoring.prompts[p].probes.get(name) for p in prompts]

    def column(images: Images) -> Floats:
        return _array([[m.probes[name][t] for m in rows] if t is not None else []
                       for rows, t in zip(images, targets, strict=True)])

    real = np.array([anchors.real.probes[name][t] if t is not None else math.nan for t in targets])
    return ProbeTable(column(gen), column(base), real)


def natural_hair(anchors: Anchors, scoring: ScoringConfig) -> str | None:
    """The hair colour that a LoRA drifts to: the configured one, or the likeliest on the reference photos."""
    if "hair" not in scoring.attributes:
        return None
    photos = anchors.real.probes["hair"]
    return scoring.attributes["hair"].natural or max(photos, key=lambda value: photos[value])


def _drift(prompts: Sequence[int], gen: Images, base: Images,
           anchors: Anchors, scoring: ScoringConfig) -> Floats:
    """drift_to_natural: probability of the subject's own hair colour where another is asked for, less the base's."""
    natural = natural_hair(anchors, scoring)
    asked = [scoring.prompts[p].probes.get("hair") for p in prompts]
    return np.array([mean_of([m.probes["hair"][natural] for m in g]) - mean_of([m.probes["hair"][natural] for m in b])
                     if natural is not None and a is not None and a != natural else math.nan
                     for a, g, b in zip(asked, gen, base, strict=True)])


def mean_of(values: Sequence[float] | Floats) -> float:
    """Mean of what is not NaN; NaN of nothing."""
    x = np.asarray(values, dtype=float)
    x = x[~np.isnan(x)]
    return float(x.mean()) if len(x) else math.nan


def _array(rows: Sequence[Sequence[float]]) -> Floats:
    return np.array([mean_of(row) for row in rows])
