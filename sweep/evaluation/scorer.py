"""Scores LoRA files on one base and dataset: screen every checkpoint, refine the best, confirm one, name it.

Everything drawn is kept by content: a file that was scored before costs nothing, and a kill loses one group of images
at most.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.comparison import are_tied
from sweep.data.folder import Dataset
from sweep.errors import ScoringError
from sweep.evaluation.anchors import Anchors, anchors_path, read_anchors, write_anchors
from sweep.evaluation.backends import PocketBackends, load_backends
from sweep.evaluation.cells import Cell, cells_of
from sweep.evaluation.choice import best_of, reason
from sweep.evaluation.generate import OnProgress, Row, generate
from sweep.evaluation.measure import MeasuredSet, Observer, set_from_json, set_to_json
from sweep.evaluation.score import Judgement, judge
from sweep.evaluation.settings import (
    STAGES,
    ScoringConfig,
    check_fits,
    dataset_key,
    measuring_id,
    photos_key,
    scoring_id,
)
from sweep.evaluation.sheet import write_sheet
from sweep.files import read_json, sha256_of, stable_hash, write_json
from sweep.network.lora_file import LoraFile, read_lora
from sweep.network.targets import Target
from sweep.trial import Answer, Score, score_from_json, to_json

if TYPE_CHECKING:
    from torch import Tensor

    from sweep.model.base import Base

IMAGES_PER_GROUP = 128  # drawn and measured together; also what a kill may lose


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRequest:
    """One LoRA file to score. scores_dir, images_dir: where its scores and contact sheets go."""

    file: Path
    epoch: int
    step: int
    scores_dir: Path
    images_dir: Path
    strength: float = 1.0


@dataclass(frozen=True, slots=True)
class _Job:
    """A request at one stage, with what it is known by."""

    request: ScoreRequest
    stage: str
    file_sha256: str
    measure_id: str
    score_id: str

    @property
    def score_path(self) -> Path:
        return self.request.scores_dir / f"{self.score_id}.json"

    @property
    def cells_path(self) -> Path:
        return self.request.scores_dir / "cells" / f"{self.measure_id}.json"


class Scorer:
    """Scores under one scoring config; `scoring_id` says which.

    Ways to end early: whatever `on_progress` raises ends `screen` or `finish` and is passed on as it is. It is told of
    every batch, and of the last one of a group (`IMAGES_PER_GROUP`) after the group is written: what was drawn up to
    there is kept, and the same call goes on from it.
    """

    def __init__(self, base: Base, targets: Sequence[Target], scoring: ScoringConfig, dataset: Dataset,
                 results_dir: Path, *, clip_skip: int = 1, max_token_length: int = 75,
                 backends: PocketBackends | None = None):
        check_fits(scoring, base.name)
        self.base, self.targets, self.scoring = base, targets, scoring
        self.dataset, self.results_dir = dataset, results_dir
        self.clip_skip, self.max_token_length = clip_skip, max_token_length
        self.backends = backends or load_backends(scoring.weights_dir)
        self.scoring_id = scoring_id(scoring, base.identity, base.resolution, self.backends.identities,
                                     dataset_key(dataset))
        self._measuring = measuring_id(scoring, base.identity, base.resolution, self.backends.identities, clip_skip,
                                       max_token_length)
        self._photos_key = photos_key(dataset)
        self._cells = {stage: cells_of(scoring, stage, dataset) for stage in STAGES}
        self._observer: Observer | None = None
        self._anchors: Anchors | None = None

    def screen(self, requests: Sequence[ScoreRequest], on_progress: OnProgress | None = None) -> list[Score]:
        """Score checkpoints, of several trials at once, on the screening cells.

        Raises AdapterFileError, which names the file, for one that is no LoRA for this base.
        """
        return self._scored(requests, "screen", _Progress(on_progress, len(requests) * len(self._cells["screen"])))

    def finish(self, trial_requests: Sequence[Sequence[ScoreRequest]],
               on_progress: OnProgress | None = None) -> list[Answer]:
        """Name the file and strength of each trial: refine its best checkpoints over strengths, choose by mean - 1
        standard error, and report the chosen one on fresh seeds.

        Raises AdapterFileError, which names the file, for one that is no LoRA for this base; called again without its
        trial, the others go on from what was drawn.
        """
        if any(not requests for requests in trial_requests):
            raise ScoringError("A trial without a checkpoint can't be finished: it has no file to name.")
        scoring, choice = self.scoring, self.scoring.choice
        counts = [max(1, math.ceil(choice.refine_frac * len(requests))) for requests in trial_requests]
        progress = _Progress(on_progress, self._num_images(trial_requests, counts))
        screened = _split(self._scored([r for requests in trial_requests for r in requests], "screen", progress),
                          [len(requests) for requests in trial_requests])
        arms: list[list[ScoreRequest]] = []
        for requests, scores, count in zip(trial_requests, screened, counts, strict=True):
            best = best_of(scores, count)
            if all(score.axes["usefulness"].value is None for score in scores):
                best = [len(requests) - 1]  # nothing to go by: the last file, as trainers' users do
            arms.append([replace(requests[i], strength=strength) for i in best for strength in choice.strengths])
        refined = _split(self._scored([arm for trial in arms for arm in trial], "refine", progress),
                         [len(trial) for trial in arms])
        chosen = [best_of(scores)[0] for scores in refined]
        finals = [scores[i] for scores, i in zip(refined, chosen, strict=True)]
        if scoring.choice.confirm:
            finals = self._scored([trial[i] for trial, i in zip(arms, chosen, strict=True)], "confirm", progress)
        answers = [self._answer(final, scores, rounds, i)
                   for final, scores, rounds, i in zip(finals, screened, refined, chosen, strict=True)]
        for requests, answer in zip(trial_requests, answers, strict=True):
            write_json(requests[0].scores_dir / f"answer-{self.scoring_id}.json", to_json(answer))
        return answers

    @property
    def anchors(self) -> Anchors:
        """Measured on first use, or read from the cache."""
        if self._anchors is None:
            all_cells = list({cell.key: cell for stage in STAGES for cell in self._cells[stage]}.values())
            path = anchors_path(self.results_dir, self._measuring, self._photos_key, all_cells)
            anchors = read_anchors(path)
            if anchors is None:
                anchors = self._measure_anchors(all_cells, path.with_suffix(".png"))
                write_anchors(path, anchors)
            anchors.check_key(self._measuring)
            self._anchors = anchors
        return self._anchors

    @property
    def observer(self) -> Observer:
        if self._observer is None:
            self._observer = Observer(self.scoring, self.backends, self.dataset, self.base)
        return self._observer

    def _measure_anchors(self, cells: Sequence[Cell], sheet: Path) -> Anchors:
        rows = [Row(None, 0.0, cell.class_text, cell.seed) for cell in cells]
        images = self._draw(rows, None)
        index_of = {cell.key: i for i, cell in enumerate(cells)}
        base = {}
        for stage in STAGES:
            chosen = [index_of[cell.key] for cell in self._cells[stage]]
            base[stage] = self.observer.look(images[chosen], self._cells[stage])
        write_sheet(sheet, images, [replace(cell, text=cell.class_text) for cell in cells], [""] * len(cells),
                    "the base model alone: the anchors")
        return Anchors(scoring_key=self._measuring, photos_key=self._photos_key, base=base,
                       real=self.observer.real_photos())

    def _scored(self, requests: Sequence[ScoreRequest], stage: str, progress: _Progress) -> list[Score]:
        """Scores of all requests in order; what the cache lacks is drawn in packed groups."""
        jobs = [self._job(request, stage) for request in requests]
        cells = self._cells[stage]
        missing = list({job.measure_id: job for job in jobs if not self._is_known(job)}.values())
        progress.add((len(jobs) - len(missing)) * len(cells))
        elapsed = {}
        group_size = max(1, IMAGES_PER_GROUP // len(cells))
        if missing:
            _ = self.anchors
        for start in range(0, len(missing), group_size):
            group = missing[start:start + group_size]
            began = time.monotonic()
            self._measure(group, stage, progress)
            share = (time.monotonic() - began) / len(group)
            elapsed.update({job.measure_id: share for job in group})
        return [self._judged(job, elapsed.get(job.measure_id, 0.0)) for job in jobs]

    def _job(self, request: ScoreRequest, stage: str) -> _Job:
        digest = sha256_of(request.file)
        cells = [[*cell.key, cell.text, cell.class_text] for cell in self._cells[stage]]
        measure = stable_hash([digest, request.strength, cells, self._measuring, self._photos_key])
        return _Job(request, stage, digest, measure, stable_hash([measure, stage, self.scoring_id]))

    def _is_known(self, job: _Job) -> bool:
        return job.score_path.exists() or _read_set(job.cells_path) is not None

    def _measure(self, jobs: Sequence[_Job], stage: str, progress: _Progress) -> None:
        """Draw and measure a group of files in one go; write what was measured and the contact sheets, then say so."""
        cells = self._cells[stage]
        loras: dict[Path, LoraFile] = {}
        for job in jobs:
            loras.setdefault(job.request.file, read_lora(job.request.file, self.targets))
        rows = [Row(loras[job.request.file], job.request.strength, cell.text, cell.seed)
                for job in jobs for cell in cells]
        images = self._draw(rows, progress)
        for job, drawn in zip(jobs, images.split(len(cells)), strict=True):
            measured = self.observer.look(drawn, cells)
            self._write_sheet(job, judge(measured, self.anchors, self.scoring, stage), measured, drawn)
            write_json(job.cells_path, set_to_json(measured))
        progress.add(len(rows))

    def _judged(self, job: _Job, elapsed_s: float) -> Score:
        if job.score_path.exists():
            return self._read(job)
        measured = _read_set(job.cells_path)
        assert measured is not None, "a job is measured before it is judged"
        judgement = judge(measured, self.anchors, self.scoring, job.stage)
        request = job.request
        score = Score(score_id=job.score_id, scoring_id=self.scoring_id, file=request.file.name,
                      file_sha256=job.file_sha256, epoch=request.epoch, step=request.step, strength=request.strength,
                      stage=job.stage, num_images=len(measured.images), axes=judgement.axes, details=judgement.details,
                      replicates=judgement.replicates, verdict=judgement.verdict, notes=judgement.notes,
                      elapsed_s=round(elapsed_s, 3))
        write_json(job.score_path, to_json(score))
        return score

    def _read(self, job: _Job) -> Score:
        """A stored score as this request names it: the same bytes may lie under another name or epoch."""
        score = score_from_json(read_json(job.score_path))
        if score.scoring_id != self.scoring_id:
            raise ScoringError(f"{job.score_path} was scored under {score.scoring_id}, this is {self.scoring_id}; "
                               "scores of different scorings are never compared. Delete it to score again.")
        return replace(score, file=job.request.file.name, epoch=job.request.epoch, step=job.request.step)

    def _draw(self, rows: Sequence[Row], progress: _Progress | None) -> Tensor:
        def tell(done: int, total: int) -> None:
            if progress is not None and done < total:  # the last batch counts when its group is written
                progress.show(done)

        return generate(self.base, self.targets, rows, self.scoring.sampler, resolution=self.base.resolution,
                        batch_size=self.scoring.batch_size, clip_skip=self.clip_skip,
                        max_token_length=self.max_token_length, on_progress=tell)

    def _write_sheet(self, job: _Job, judgement: Judgement, measured: MeasuredSet, images: Tensor) -> None:
        axes = "   ".join(f"{name} {_shown(estimate.value)}" for name, estimate in judgement.axes.items())
        title = (f"{job.request.file.name}   epoch {job.request.epoch}   strength {job.request.strength:g}   "
                 f"{job.stage}\n{judgement.verdict}   {axes}\n{'; '.join(judgement.notes)}")
        lines = []
        for image in measured.images:
            asked = self.scoring.prompts[image.index].probes if image.kind == "prompt" else {}
            found = [f"{name} {value} {image.probes[name][value]:.2f}" for name, value in asked.items()]
            face = "no face" if image.face is None else f"face {image.face:.2f}"
            near = f"nearest photo {image.nearest:.2f}"
            lines.append("broken" if image.is_broken else ", ".join([face, *found, near]))
        facts = [{"nearest": image.nearest, "nearest_photo": image.nearest_photo, "is_broken": image.is_broken}
                 for image in measured.images]
        write_sheet(job.request.images_dir / f"{job.score_id}.png", images, self._cells[job.stage], lines, title, facts)

    def _answer(self, final: Score, screened: Sequence[Score], refined: Sequence[Score], chosen: int) -> Answer:
        best = refined[chosen]
        strengths = [s.strength for s in refined if (s.file, s.file_sha256) == (final.file, final.file_sha256)
                     and (s is best or are_tied(best, s))]
        sentence = reason(final, screened, tied_strengths=strengths, is_confirmed=self.scoring.choice.confirm)
        return Answer(file=final.file, epoch=final.epoch, step=final.step, strength=final.strength, score=final,
                      reason=sentence)

    def _num_images(self, trial_requests: Sequence[Sequence[ScoreRequest]], counts: Sequence[int]) -> int:
        per_stage = {stage: len(cells) for stage, cells in self._cells.items()}
        num_arms = sum(counts) * len(self.scoring.choice.strengths)
        return (sum(len(requests) for requests in trial_requests) * per_stage["screen"]
                + num_arms * per_stage["refine"]
                + (len(trial_requests) * per_stage["confirm"] if self.scoring.choice.confirm else 0))


class _Progress:
    """Images done of all; what the cache holds counts as done."""

    def __init__(self, on_progress: OnProgress | None, total: int):
        self.on_progress, self.total, self.done = on_progress, total, 0

    def add(self, count: int) -> None:
        """So many more are done for good."""
        self.done += count
        self.show(0)

    def show(self, num_drawn: int) -> None:
        """Tell how many are done, with those of the group that is being drawn."""
        done = min(self.done + num_drawn, self.total)
        if self.on_progress is not None and done:
            self.on_progress(done, self.total)


def _read_set(path: Path) -> MeasuredSet | None:
    if not path.exists():
        return None
    try:
        return set_from_json(read_json(path))
    except (ValueError, KeyError, TypeError):
        return None  # damaged: drawn again


def _split(items: Sequence[Score], lengths: Sequence[int]) -> list[list[Score]]:
    rest = iter(items)
    return [[next(rest) for _ in range(length)] for length in lengths]


def _shown(value: float | None) -> str:
    return "?" if value is None else f"{value:.2f}"
