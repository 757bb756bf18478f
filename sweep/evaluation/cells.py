"""Cells: the (prompt, seed) pairs that every trial of a sweep is scored on, and what is typed for them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from sweep.data.dataset import Dataset
from sweep.evaluation.settings import STAGES, ScoringConfig

Kind = Literal["prompt", "caption", "bare", "class"]


@dataclass(frozen=True, slots=True)
class Cell:
    """index: of the prompt, of the training photo, of the class prompt, or 0 for the bare trigger.

    text: typed for a LoRA. class_text: typed for the base alone and compared with the image by CLIP, no trigger in it.
    """

    kind: Kind
    index: int
    seed: int
    text: str
    class_text: str

    @property
    def key(self) -> tuple[str, int, int]:
        return self.kind, self.index, self.seed


def cells_of(scoring: ScoringConfig, stage: str, dataset: Dataset) -> list[Cell]:
    """All cells of a stage: prompts x seeds, the bare trigger, training captions verbatim, prompts of the class."""
    settings = scoring.stage(stage)
    with_trigger, without = subject_words(scoring, dataset)
    chosen = scoring.prompts_of(stage)
    num_varied = min(settings.num_varied, len(chosen))
    varied = {chosen[k * len(chosen) // num_varied] for k in range(num_varied)}
    cells = [Cell("prompt", i, settings.first_seed + s, scoring.prompts[i].text.replace("{subject}", with_trigger),
                  scoring.prompts[i].text.replace("{subject}", without))
             for i in chosen for s in range(settings.num_seeds + (i in varied))]
    cells += [Cell("bare", 0, settings.first_seed + s, with_trigger, without) for s in range(settings.num_bare)]
    num_captions = min(settings.num_captions, len(dataset.photos))
    for k in range(num_captions):
        photo = k * len(dataset.photos) // num_captions
        caption = dataset.photos[photo].caption
        cells.append(Cell("caption", photo, settings.first_seed, caption, class_caption(caption, scoring, dataset)))
    for i, text in enumerate(scoring.class_prompts):
        typed = text.replace("{subject}", without)
        cells += [Cell("class", i, settings.first_seed + s, typed, typed) for s in range(settings.num_class)]
    return cells


def most_images(scoring: ScoringConfig, dataset: Dataset, num_checkpoints: int) -> int:
    """What the answer of a trial of so many checkpoints takes at most: arms that end early count as drawn."""
    screen, refine, confirm = (len(cells_of(scoring, stage, dataset)) for stage in STAGES)
    num_arms = num_refined(scoring, num_checkpoints) * len(arms_of(scoring))
    return num_checkpoints * screen + num_arms * refine + num_confirmed(scoring, num_checkpoints) * confirm


def num_refined(scoring: ScoringConfig, num_checkpoints: int) -> int:
    """How many of a trial's checkpoints are drawn at every strength."""
    return max(1, math.ceil(scoring.choice.refine_frac * num_checkpoints))


def num_confirmed(scoring: ScoringConfig, num_checkpoints: int) -> int:
    """How many of a trial's arms are confirmed at most."""
    return min(scoring.choice.confirm, num_refined(scoring, num_checkpoints) * len(arms_of(scoring)))


def arms_of(scoring: ScoringConfig) -> list[tuple[float, float | None]]:
    """The strengths and guidance scales that a checkpoint is refined at; None = the sampler's own scale."""
    own = scoring.sampler.guidance_scale
    scales = [None if scale == own else scale for scale in scoring.choice.guidance_scales] or [None]
    return [(strength, scale) for strength in scoring.choice.strengths for scale in dict.fromkeys(scales)]


def class_caption(caption: str, scoring: ScoringConfig, dataset: Dataset) -> str:
    """A caption without the trigger."""
    without = _subject(scoring.class_subject, dataset)
    for phrase in (_subject(scoring.trigger_subject, dataset), dataset.trigger):
        if phrase in caption:
            return caption.replace(phrase, without)
    return caption


def subject_words(scoring: ScoringConfig, dataset: Dataset) -> tuple[str, str]:
    """What {subject} stands for: for a LoRA, and for the base alone."""
    return _subject(scoring.trigger_subject, dataset), _subject(scoring.class_subject, dataset)


def _subject(template: str, dataset: Dataset) -> str:
    return template.replace("{trigger}", dataset.trigger).replace("{class_noun}", dataset.class_noun)
