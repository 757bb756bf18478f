"""Scores as short words: what is printed beneath an image, and above a sheet of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sweep.evaluation.copies import WHOLE
from sweep.evaluation.measure import Measured, MeasuredSet
from sweep.evaluation.score import Judgement
from sweep.evaluation.settings import ScoringConfig


def figures(measured: MeasuredSet, scoring: ScoringConfig, photo_names: Sequence[str]) -> list[str]:
    """A line for each image: its face, what the prompt asked for, the nearest training photo."""
    return [figures_of(image, scoring, photo_names) for image in measured.images]


def figures_of(image: Measured, scoring: ScoringConfig, photo_names: Sequence[str]) -> str:
    if image.is_broken:
        return scores_of(image, scoring)
    way = "" if image.nearest_way == WHOLE else f" ({image.nearest_way})"
    return f"{scores_of(image, scoring)}, {image.nearest:.2f} to {photo_names[image.nearest_photo]}{way}"


def scores_of(image: Measured, scoring: ScoringConfig) -> str:
    """Likeness and adherence of one image, raw: only their means stand between the anchors. Adherence is what the
    probes see of what was asked for, or CLIP's cosine where they know nothing of it."""
    if image.is_broken:
        return "broken"
    asked = scoring.prompts[image.index].probes if image.kind == "prompt" else {}
    found = [f"{name} {value} {image.probes[name][value]:.2f}" for name, value in asked.items()]
    likeness = "no face" if image.face is None else f"likeness {image.face:.2f}"
    clones = [f"{image.clones} clones"] if image.clones else []
    return ", ".join([likeness, *clones, *(found or [f"prompt {image.clip:.2f}"])])


def facts(measured: MeasuredSet, scoring: ScoringConfig) -> list[dict[str, Any]]:
    """The same for programs: what views say of each image."""
    return [{"scores": scores_of(image, scoring), "nearest": image.nearest, "nearest_photo": image.nearest_photo,
             "nearest_way": image.nearest_way, "is_broken": image.is_broken} for image in measured.images]


def in_words(judgement: Judgement) -> str:
    """Two lines: the verdict with its axes, and the notes."""
    axes = "   ".join(f"{name} {shown(estimate.value)}" for name, estimate in judgement.axes.items())
    return f"{judgement.verdict}   {axes}\n{'; '.join(judgement.notes)}"


def shown(value: float | None) -> str:
    return "?" if value is None else f"{value:.2f}"
