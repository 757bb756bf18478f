"""Scores LoRA files on one base and dataset: screen every checkpoint, refine the best, confirm one, name it.

Everything drawn is kept by content: a file that was scored before costs nothing, and a kill loses one batch of images
at most; where images are not kept, one group, or the anchors.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.comparison import MIN_UNITS, are_tied
from sweep.data.dataset import Dataset
from sweep.errors import ScoringError
from sweep.evaluation.anchors import Anchors, anchors_path, read_anchors, write_anchors
from sweep.evaluation.backends.interface import Backends
from sweep.evaluation.backends.registry import load_backends
from sweep.evaluation.cells import Cell, arms_of, cells_of, most_images, num_confirmed, num_refined
from sweep.evaluation.choice import best_of, reason
from sweep.evaluation.copy_report import write_copy_report
from sweep.evaluation.drawing import Drawer
from sweep.evaluation.figures import facts, figures, in_words
from sweep.evaluation.generate import OnProgress, Row
from sweep.evaluation.keys import dataset_key, measuring_id, photos_key, scoring_id
from sweep.evaluation.measure import MeasuredSet, Observer, RealPhotos, set_from_json, set_to_json
from sweep.evaluation.progress import Progress
from sweep.evaluation.score import judge
from sweep.evaluation.settings import STAGES, ScoringConfig, check_fits
from sweep.evaluation.sheet import write_sheet
from sweep.files import read_json, sha256_of, stable_hash, write_json
from sweep.model.text import with_new_words
from sweep.network.file_kinds import Kind, kind_of_file
from sweep.network.lora_file import LoraFile
from sweep.network.targets import Target
from sweep.network.trained_file import read_trained
from sweep.trial import Answer, Score, score_from_json, spoken_arm, to_json

if TYPE_CHECKING:
    from torch import Tensor

    from sweep.model.base import Base

IMAGES_PER_GROUP = 128  # drawn and measured together


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRequest:
    """One LoRA file to score. scores_dir, images_dir: where its scores and contact sheets go."""

    file: Path
    epoch: int
    step: int
    scores_dir: Path
    images_dir: Path
    strength: float = 1.0
    guidance_scale: float | None = None  # None = the sampler's own
    name: str = ""  # what the file is called; "" = its file name

    @property
    def called(self) -> str:
        return self.name or self.file.name

    @property
    def when(self) -> str:
        """Which of a trial's files: by epoch, before the first one's end by step."""
        return f"epoch {self.epoch}" if self.epoch else f"step {self.step}"


@dataclass(frozen=True, slots=True)
class _Job:
    """A request at one stage, with what it is known by."""

    request: ScoreRequest
    stage: str
    cells: tuple[Cell, ...]
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
    every batch, also of the anchors, when its images are kept, and of the last one of a group (`IMAGES_PER_GROUP`)
    after the group is written; the same call goes on from there.
    """

    def __init__(self, base: Base, targets: Sequence[Target], scoring: ScoringConfig, dataset: Dataset,
                 results_dir: Path, *, clip_skip: int = 1, max_token_length: int = 75,
                 backends: Backends | None = None):
        check_fits(scoring, base.name)
        self.base, self.targets, self.scoring = base, targets, scoring
        self.dataset, self.results_dir = dataset, results_dir
        self.backends = backends or load_backends(scoring)
        self.scoring_id = scoring_id(scoring, base.identity, base.resolution, self.backends.identities,
                                     dataset_key(dataset))
        self._measuring = measuring_id(scoring, base.identity, base.resolution, self.backends.identities, clip_skip,
                                       max_token_length, str(base.dtype))
        self._photos_key = photos_key(dataset)
        self._reading = {"clip_skip": clip_skip, "max_token_length": max_token_length}
        self.drawer = Drawer(base, targets, scoring, results_dir, clip_skip=clip_skip,
                             max_token_length=max_token_length)
        self._cells = {stage: cells_of(scoring, stage, dataset) for stage in STAGES}
        self._all_cells = list({cell.key: cell for stage in STAGES for cell in self._cells[stage]}.values())
        self._anchors_path = anchors_path(results_dir, self._measuring, self._photos_key, self._all_cells)
        first = [cell for cell in self._cells["refine"]
                 if cell.kind == "prompt" and scoring.prompts[cell.index].stage == "screen"]
        is_split = len({cell.index for cell in first}) >= MIN_UNITS and first != self._cells["refine"]
        self._first_round = first if scoring.choice.stop_early and is_split else []
        self._observer: Observer | None = None
        self._anchors: Anchors | None = None
        self._real: RealPhotos | None = None
        self._num_anchored = 0  # images of the base that were measured here

    def under(self, scoring: ScoringConfig) -> Scorer:
        """One that scores otherwise on the same base and photos."""
        return Scorer(self.base, self.targets, scoring, self.dataset, self.results_dir, backends=self.backends,
                      **self._reading)

    def screen(self, requests: Sequence[ScoreRequest], on_progress: OnProgress | None = None) -> list[Score]:
        """Score checkpoints, of several trials at once, on the screening cells.

        Raises AdapterFileError, which names the file, for one that is no LoRA for this base.
        """
        return self.score(requests, "screen", on_progress)

    def score(self, requests: Sequence[ScoreRequest], stage: str, on_progress: OnProgress | None = None) -> list[Score]:
        """The same on the cells of any stage."""
        return self._scored(requests, stage, Progress(on_progress, len(requests) * len(self._cells[stage])))

    def measured(self, request: ScoreRequest, stage: str) -> MeasuredSet:
        """What was measured of the images behind a score; drawn or read again if it is gone."""
        job = self._job(request, stage, self._cells[stage])
        found = _read_set(job.cells_path)
        if found is None:
            self._measure([job], Progress(None, 0), 0)
            found = _read_set(job.cells_path)
        assert found is not None, "just written"
        return found

    def finish(self, trial_requests: Sequence[Sequence[ScoreRequest]],
               on_progress: OnProgress | None = None) -> list[Answer]:
        """Name the file and strength of each trial: refine its best checkpoints over strengths, confirm the best few of
        these arms on fresh seeds and prompts of which half chose nothing, choose by mean - 1 standard error, and report
        that. (The best of so few on the same images still leans high; `reason` says of how many.)

        Raises AdapterFileError, which names the file, for one that is no LoRA for this base; called again without its
        trial, the others go on from what was drawn.
        """
        if any(not requests for requests in trial_requests):
            raise ScoringError("A trial without a checkpoint can't be finished: it has no file to name.")
        choice = self.scoring.choice
        counts = [num_refined(self.scoring, len(requests)) for requests in trial_requests]
        progress = Progress(on_progress, sum(most_images(self.scoring, self.dataset, len(requests))
                                             for requests in trial_requests))
        screened = _split(self._scored([r for requests in trial_requests for r in requests], "screen", progress),
                          [len(requests) for requests in trial_requests])
        arms: list[list[ScoreRequest]] = []
        for requests, scores, count in zip(trial_requests, screened, counts, strict=True):
            best = best_of(scores, count)
            if all(score.axes["usefulness"].value is None for score in scores):
                best = [len(requests) - 1]  # nothing to go by: the last file, as trainers' users do
            arms.append([replace(requests[i], strength=strength, guidance_scale=scale) for i in best
                         for strength, scale in self._arms(requests[i].file)])
            progress.add((len(best) * len(arms_of(self.scoring)) - len(arms[-1])) * len(self._cells["refine"]))
        arms, refined = self._refined(arms, progress)
        finals = [[(trial[i], scores[i]) for i in best_of(scores, max(1, choice.confirm))]
                  for trial, scores in zip(arms, refined, strict=True)]
        ends = [[score for _, score in trial] for trial in finals]
        if choice.confirm:
            ends = _split(self._scored([arm for trial in finals for arm, _ in trial], "confirm", progress),
                          [len(trial) for trial in finals])
            progress.add(sum(num_confirmed(self.scoring, len(requests)) - len(trial) for requests, trial
                             in zip(trial_requests, finals, strict=True)) * len(self._cells["confirm"]))
        answers = []
        for trial, scores, screens, rounds in zip(finals, ends, screened, refined, strict=True):
            chosen = best_of(scores)[0]
            arm, refined_score = trial[chosen]
            answers.append(self._answer(scores[chosen], screens, rounds, refined_score, kind_of_file(arm.file),
                                        len(scores) if choice.confirm else 0))
        for requests, answer in zip(trial_requests, answers, strict=True):
            write_json(requests[0].scores_dir / f"answer-{self.scoring_id}.json", to_json(answer))
        return answers

    def _arms(self, file: Path) -> list[tuple[float, float | None]]:
        """The strengths and guidance scales that a user may choose: a checkpoint or an embedding has no strength."""
        arms = arms_of(self.scoring)
        return arms if kind_of_file(file) == "lora" else list(dict.fromkeys((1.0, scale) for _, scale in arms))

    def _refined(self, arms: Sequence[list[ScoreRequest]], progress: Progress
                 ) -> tuple[list[list[ScoreRequest]], list[list[Score]]]:
        """Each trial's better half of arms on the screening prompts, at least as many as are confirmed, less those
        that are surely worse than its best (successive halving, Jamieson & Talwalkar 2016); then these on all refining
        prompts, where there are more of them than are confirmed anyway."""
        lengths, everything = [len(trial) for trial in arms], [arm for trial in arms for arm in trial]
        if not self._first_round:
            return list(arms), _split(self._scored(everything, "refine", progress), lengths)
        first = _split(self._scored(everything, "refine", progress, cells=self._first_round), lengths)
        kept, scored = [], []
        for trial, scores in zip(arms, first, strict=True):
            better = best_of(scores, max(1, self.scoring.choice.confirm, -(-len(trial) // 2)))
            staying = [i for i in sorted(better) if i == better[0] or are_tied(scores[i], scores[better[0]])]
            kept.append([trial[i] for i in staying])
            scored.append([scores[i] for i in staying])
        open_trials = [i for i, trial in enumerate(kept) if len(trial) > self.scoring.choice.confirm]
        num_drawn = sum(len(kept[i]) for i in open_trials)
        progress.add((sum(lengths) - num_drawn) * (len(self._cells["refine"]) - len(self._first_round)))
        again = _split(self._scored([arm for i in open_trials for arm in kept[i]], "refine", progress,
                                    num_counted=len(self._first_round)), [len(kept[i]) for i in open_trials])
        for i, scores in zip(open_trials, again, strict=True):
            scored[i] = scores
        return kept, scored

    @property
    def anchors(self) -> Anchors:
        """Measured on first use, or read from the cache."""
        return self._known_anchors(Progress(None, 0))

    def _known_anchors(self, progress: Progress) -> Anchors:
        if self._anchors is None:
            anchors = read_anchors(self._anchors_path)
            if anchors is None:
                anchors = self._measure_anchors(self._all_cells, self._anchors_path.with_suffix(".png"), progress)
                write_anchors(self._anchors_path, anchors)
            anchors.check_key(self._measuring)
            self._anchors = anchors
        return self._anchors

    @property
    def real(self) -> RealPhotos:
        """The photos that scores are measured against, looked at once; draws nothing."""
        if self._real is None:
            anchors = self._anchors or read_anchors(self._anchors_path)
            self._real = self.observer.real_photos() if anchors is None else anchors.real
        return self._real

    @property
    def notes(self) -> tuple[str, ...]:
        """What is wrong with these photos, in words."""
        return self.real.notes

    @property
    def observer(self) -> Observer:
        if self._observer is None:
            self._observer = Observer(self.scoring, self.backends, self.dataset, self.base)
        return self._observer

    def _measure_anchors(self, cells: Sequence[Cell], sheet: Path, progress: Progress) -> Anchors:
        images = self.drawer.draw([Row(None, 0.0, cell.class_text, cell.seed) for cell in cells], [""] * len(cells),
                                  lambda *_: progress.ask())
        self._num_anchored += len(cells)
        index_of = {cell.key: i for i, cell in enumerate(cells)}
        base = {}
        for stage in STAGES:
            chosen = [index_of[cell.key] for cell in self._cells[stage]]
            base[stage] = self.observer.look(images[chosen], self._cells[stage])
        write_sheet(sheet, images, [replace(cell, text=cell.class_text) for cell in cells], [""] * len(cells),
                    "the base model alone: the anchors")
        return Anchors(scoring_key=self._measuring, photos_key=self._photos_key, base=base,
                       real=self.real)

    def _scored(self, requests: Sequence[ScoreRequest], stage: str, progress: Progress, *,
                cells: Sequence[Cell] | None = None, num_counted: int = 0) -> list[Score]:
        """Scores of all requests in order; what the cache lacks is drawn in packed groups.

        cells: fewer than the stage's. num_counted: of each request's images, so many have been told to `progress`.
        """
        cells = self._cells[stage] if cells is None else cells
        jobs = [self._job(request, stage, cells) for request in requests]
        missing = list({job.measure_id: job for job in jobs if not self._is_known(job)}.values())
        num_new = len(cells) - num_counted
        progress.add((len(jobs) - len(missing)) * num_new)
        elapsed = {}
        group_size = max(1, IMAGES_PER_GROUP // len(cells))
        if any(kind_of_file(job.request.file) == "checkpoint" for job in missing):
            group_size = 1  # each is as large as the base
        if missing:
            self._anchor(missing[0].request.scores_dir, progress)
        for start in range(0, len(missing), group_size):
            group = missing[start:start + group_size]
            began = time.monotonic()
            self._measure(group, progress, len(group) * num_new)
            progress.add(len(group) * num_new)
            share = (time.monotonic() - began) / len(group)
            elapsed.update({job.measure_id: share for job in group})
        return [self._judged(job, elapsed.get(job.measure_id, 0.0)) for job in jobs]

    def _anchor(self, scores_dir: Path, progress: Progress) -> None:
        """See to the anchors; what they cost is written beside the scores that needed them first."""
        began, num_before = time.monotonic(), self._num_anchored
        self._known_anchors(progress)
        if self._num_anchored > num_before:
            write_json(scores_dir / "anchors" / f"{self.scoring_id}.json",
                       {"elapsed_s": round(time.monotonic() - began, 3), "num_images": self._num_anchored})

    def _job(self, request: ScoreRequest, stage: str, cells: Sequence[Cell]) -> _Job:
        digest = sha256_of(request.file)
        drawn = [[*cell.key, cell.text, cell.class_text] for cell in cells]
        guidance = [] if request.guidance_scale is None else [request.guidance_scale]
        measure = stable_hash([digest, request.strength, drawn, self._measuring, self._photos_key, *guidance])
        return _Job(request, stage, tuple(cells), digest, measure, stable_hash([measure, stage, self.scoring_id]))

    def _is_known(self, job: _Job) -> bool:
        return job.score_path.exists() or _read_set(job.cells_path) is not None

    def _measure(self, jobs: Sequence[_Job], progress: Progress, num_told: int) -> None:
        """Draw and measure a group of files in one go; write what was measured and the contact sheets."""
        loras: dict[Path, LoraFile] = {}
        for job in jobs:
            loras.setdefault(job.request.file, read_trained(job.request.file, self.targets))
        rows = [Row(loras[job.request.file], job.request.strength, self.typed(cell.text, loras[job.request.file]),
                    cell.seed, job.request.guidance_scale)
                for job in jobs for cell in job.cells]
        digests = [job.file_sha256 for job in jobs for _ in job.cells]

        def tell(done: int, total: int) -> None:
            if done < total:  # the last batch counts when its group is written
                progress.show(min(done, num_told))

        images = self.drawer.draw(rows, digests, tell)
        for job, drawn in zip(jobs, images.split([len(job.cells) for job in jobs]), strict=True):
            measured = self.observer.look(drawn, job.cells)
            self._show(job, measured, drawn)
            write_json(job.cells_path, set_to_json(measured))

    def typed(self, prompt: str, lora: LoraFile) -> str:
        """The prompt as it is drawn with a file: an embedding's vectors stand where the trigger does."""
        return with_new_words(prompt, self.dataset.trigger, lora.num_vectors) if lora.num_vectors else prompt

    def _show(self, job: _Job, measured: MeasuredSet, drawn: Tensor) -> None:
        """The contact sheet; at the end also the copy report."""
        request, photos = job.request, [photo.path for photo in self.dataset.photos]
        title = f"{request.called}   {request.when}   strength "
        title += f"{spoken_arm(request.strength, request.guidance_scale)}   {job.stage}"
        judgement = judge(measured, self.anchors, self.scoring, job.stage)
        write_sheet(request.images_dir / f"{job.score_id}.png", drawn, job.cells,
                    figures(measured, self.scoring, [path.name for path in photos]), f"{title}\n{in_words(judgement)}",
                    facts(measured, self.scoring))
        if job.stage == "confirm":
            write_copy_report(request.images_dir / f"{job.score_id}-copies.html", drawn, job.cells, measured.images,
                              photos, self.scoring.copies.copy_distance, title)

    def _judged(self, job: _Job, elapsed_s: float) -> Score:
        if job.score_path.exists():
            return self._read(job)
        measured = _read_set(job.cells_path)
        assert measured is not None, "a job is measured before it is judged"
        judgement = judge(measured, self.anchors, self.scoring, job.stage)
        request = job.request
        score = Score(score_id=job.score_id, scoring_id=self.scoring_id, file=request.called,
                      file_sha256=job.file_sha256, epoch=request.epoch, step=request.step, strength=request.strength,
                      stage=job.stage, num_images=len(measured.images), axes=judgement.axes, details=judgement.details,
                      replicates=judgement.replicates, verdict=judgement.verdict, notes=judgement.notes,
                      elapsed_s=round(elapsed_s, 3), guidance_scale=request.guidance_scale, margins=judgement.margins)
        write_json(job.score_path, to_json(score))
        return score

    def _read(self, job: _Job) -> Score:
        """A stored score as this request names it: the same bytes may lie under another name or epoch."""
        score = score_from_json(read_json(job.score_path))
        if score.scoring_id != self.scoring_id:
            raise ScoringError(f"{job.score_path} was scored under {score.scoring_id}, this is {self.scoring_id}; "
                               "scores of different scorings are never compared. Delete it to score again.")
        return replace(score, file=job.request.called, epoch=job.request.epoch, step=job.request.step)

    def _answer(self, final: Score, screened: Sequence[Score], refined: Sequence[Score], best: Score,
                kind: Kind | None, num_confirmed: int) -> Answer:
        """best: the final arm as it was refined. num_confirmed: it is the best of so many on fresh images."""
        tied = [s for s in refined if (s.file, s.file_sha256) == (final.file, final.file_sha256)
                and (s is best or are_tied(best, s))]
        sentence = reason(final, screened, tied_arms=tied, num_confirmed=num_confirmed)
        return Answer(file=final.file, epoch=final.epoch, step=final.step, strength=final.strength, score=final,
                      reason=sentence, guidance_scale=final.guidance_scale, kind=kind or "lora",
                      photo_notes=self.notes)


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
