"""All findings of one set of photos, and how they read. Imports no torch unless faces are looked at."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sweep.data.check.captions import caption_findings, quick_caption_findings
from sweep.data.check.faces import face_findings, face_reader, not_looked_at
from sweep.data.check.findings import Finding, by_topic, listed
from sweep.data.check.photos import look_at, number_and_size, photo_findings
from sweep.data.check.training import training_findings
from sweep.data.check.trigger import Vocabulary, read_vocabulary, token_note, trigger_findings
from sweep.data.check.words import PEOPLE, says
from sweep.data.dataset import Dataset
from sweep.data.train_data import batch_plan
from sweep.model.sources import find_vocabulary
from sweep.train_config import TrainConfig

_MARKS = {"problem": "!", "advice": "-", "note": " "}


def check(dataset: Dataset, config: TrainConfig) -> list[Finding]:
    """Everything that can be said of a set of photos and of what a training would do with it."""
    found = photo_findings(dataset.photos, look_at(dataset.photos), config.dataset, config.base_model.resolution,
                           is_style=_is_style(dataset))
    found += _faces(dataset, config)
    vocabulary = _vocabulary(config)
    if vocabulary is None:
        found += caption_findings(dataset, config.dataset, None, config.max_token_length)
        found.append(Finding(
            kind="vocabulary_unread", topic="trigger", level="note",
            text="tokens were not counted: a vocabulary of CLIP's is not at hand. Give base_model.path=FOLDER, or get "
                 "one (1.5 MB) with `hf download openai/clip-vit-large-patch14 vocab.json merges.txt`."))
    else:
        tokenizer = vocabulary.tokenizer()
        found += caption_findings(dataset, config.dataset, lambda text: len(tokenizer.tokenize(text)),
                                  config.max_token_length)
        found += [*trigger_findings(dataset.trigger, vocabulary), token_note(dataset.trigger, vocabulary)]
    return [*found, *training_findings(dataset.photos, config, num_steps(dataset, config))]


def headline(dataset: Dataset, config: TrainConfig) -> list[Finding]:
    """What can be said of photos and captions at once, for the first lines of a plan: without a look at any pixel, and
    with no model loaded."""
    vocabulary = _vocabulary(config)
    found = [*number_and_size(dataset.photos, config.dataset, config.base_model.resolution,
                              is_style=_is_style(dataset)),
             *quick_caption_findings(dataset, config.dataset),
             *(trigger_findings(dataset.trigger, vocabulary) if vocabulary is not None else [])]
    return [finding for finding in found if finding.level != "note"]


def num_steps(dataset: Dataset, config: TrainConfig) -> int:
    """Of the whole training."""
    plan = batch_plan(config.dataset, dataset, resolution=config.base_model.resolution, seed=config.seed,
                      batch_size=config.train_batch_size, accumulation=config.gradient_accumulation_steps)
    return plan.num_steps(config.max_train_epochs, config.max_train_steps)


def lines_of(findings: Sequence[Finding], dataset: Dataset) -> list[str]:
    """For a terminal or a log."""
    counts = {level: sum(f.level == level for f in findings) for level in ("problem", "advice")}
    lines = [f"{len(dataset.photos)} photos of {dataset.trigger} ({dataset.class_noun}): {counts['problem']} to mend "
             f"(!), {counts['advice']} worth a look (-)"]
    for topic, those in by_topic(findings).items():
        if those:
            lines += ["", topic]
        for finding in those:
            lines.append(f"  {_MARKS[finding.level]} {finding.text}")
            if finding.photos and listed(finding.photos) not in finding.text:
                lines.append(f"      {listed(finding.photos, 10)}")
            if finding.advice is not None:
                lines.append(f"      advised by {finding.advice.source}")
                lines.append(f"      how sure: {finding.advice.certainty}")
    return lines


def tree_of(findings: Sequence[Finding], dataset: Dataset) -> dict[str, Any]:
    """For other programs."""
    return {"photos": len(dataset.photos), "trigger": dataset.trigger, "class_noun": dataset.class_noun,
            "findings": [dataclasses.asdict(finding) for finding in findings]}


def _is_style(dataset: Dataset) -> bool:
    return says(dataset.class_noun, frozenset({"style"}))


def _faces(dataset: Dataset, config: TrainConfig) -> list[Finding]:
    if not says(dataset.class_noun, PEOPLE):
        return []
    reader = face_reader(config.base_model.name)
    return [not_looked_at()] if reader is None else face_findings(dataset.photos, reader)


def _vocabulary(config: TrainConfig) -> Vocabulary | None:
    folder: Path | None = find_vocabulary(config.base_model)
    return None if folder is None else read_vocabulary(folder)
