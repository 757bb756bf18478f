"""One pack from its photos to its answers: train together, save, screen, score, refill, and lose nothing to a kill."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sweep.data.buckets import Fit
from sweep.data.cache import View, cached_moments
from sweep.data.train_data import photo_fits
from sweep.errors import is_out_of_memory
from sweep.files import append_jsonl
from sweep.model.base import Base
from sweep.network.targets import Target
from sweep.stopping import Stopped
from sweep.training.loop import StepRow, train
from sweep.training.pack import Member, Pack
from sweep.training.validation import HeldOut, validation_losses
from sweep.trial import PackSpec
from sweep.worker.checkpoints import record_step, write_checkpoint
from sweep.worker.pack_scores import PackScores, ScorerOf
from sweep.worker.pack_trials import PackTrials
from sweep.worker.places import Admit, Places
from sweep.worker.probe import memory_gib
from sweep.worker.trial_run import TrialRun

STATUS_EVERY_S = 1.0  # how often a running trial's status.json is renewed


class PackRun:
    """The trials of one pack, those that train and those that wait for a place.

    scorer_of: what scores a trial; None where scoring is off. more: where the conductor adds trials. admit: opens such
    a one for this pack; None = it can't be had (now).
    """

    def __init__(self, base: Base, targets: list[Target], runs: Sequence[TrialRun], spec: PackSpec,
                 scorer_of: ScorerOf, *, more: Path | None = None, admit: Admit | None = None):
        self.base, self.targets, self.spec = base, targets, spec
        self.trials = PackTrials(base, runs, spec)
        self.scores = PackScores(self.trials, scorer_of)
        self.places = Places(self.trials, self.scores.finish, more=more, admit=admit)
        self._last_status_s = -math.inf
        self._held_out_of: dict[tuple[tuple[str, str, Fit], ...], tuple[HeldOut, ...]] = {}

    def run(self) -> None:
        """Train every trial to its end and score it; raises Stopped if asked to.

        Where memory runs out, the pack goes on from its last save with half as many places.
        """
        is_known = self.spec.max_trials is not None and not self.spec.fits_memory
        while True:
            pack = Pack(self.base, self.targets, [])
            try:
                if not is_known:
                    is_known = True  # also if memory runs out: then there is room for one, or not even that
                    self.places.probe(self.targets)
                self.places.resume(pack)
                self._train(pack)
                return
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            del pack
            gc.collect()
            self.places.halve()

    def _train(self, pack: Pack) -> None:
        while True:
            self.places.look_again()
            left = self.places.change(pack)
            self.scores.screen([self.trials.by_id[member.train_id] for member in pack.members])
            self.scores.finish(left or [])
            if not pack.members:
                return
            for rows in train(pack):
                self.places.made_update()
                self._after_update(pack, rows)

    def _after_update(self, pack: Pack, rows: Sequence[StepRow]) -> None:
        used_gib = memory_gib(self.base.device)
        for row in rows:
            self._record_step(row, used_gib)
        due = [member for member in pack.members if member.is_at_checkpoint and not member.diverged]
        screened = [self.trials.by_id[member.train_id] for member in due]
        for member, run in zip(due, screened, strict=True):
            write_checkpoint(pack, self.base, run, member)
        self._validate(pack, due)
        try:
            left = self.places.change(pack)
        except Stopped:  # while it drew a newcomer's regularisation images
            self.places.save(pack)
            raise
        if left is None and (due or self.places.position.update % self.spec.save_state_every_n_steps == 0):
            self.places.save(pack)
        self.scores.screen(screened)
        self.scores.finish(left or [])
        if self.trials.is_stop_asked():
            self.places.save(pack)
            raise Stopped

    def _record_step(self, row: StepRow, used_gib: float) -> None:
        run = self.trials.by_id[row.member.train_id]
        spent_s = run.status.attributed_s + row.share_s
        run.status = replace(run.status, step=row.step, attributed_s=spent_s)
        record_step(run, row, attributed_s=spent_s, memory_gib=used_gib)
        if time.monotonic() - self._last_status_s > STATUS_EVERY_S:
            self._last_status_s = time.monotonic()
            for each in self.trials.by_id.values():
                each.update()

    def _validate(self, pack: Pack, due: Sequence[Member]) -> None:
        """The loss on held-out photos, trials of the same photos together. Before the state is saved, so that a resume
        finds either both the checkpoint and its validation behind it or makes both again."""
        groups: dict[tuple[HeldOut, ...], list[Member]] = {}
        for member in due if self.spec.validate else ():
            groups.setdefault(self._held_out(self.trials.by_id[member.train_id]), []).append(member)
        for photos, members in groups.items():
            if not photos:
                continue
            started = time.perf_counter()
            found = validation_losses(pack, members, photos)
            share_s = (time.perf_counter() - started) / len(members)
            for member, validation in zip(members, found, strict=True):
                run = self.trials.by_id[member.train_id]
                run.status = replace(run.status, attributed_s=run.status.attributed_s + share_s)
                append_jsonl(run.folder.metrics, {"kind": "validation", "step": member.step, "epoch": member.epoch,
                                                  "loss": validation.loss, "buckets": validation.buckets,
                                                  "attributed_s": run.status.attributed_s})

    def _held_out(self, run: TrialRun) -> tuple[HeldOut, ...]:
        """Encoded once per pack; trials on the same photos, cut alike, get the same tuple."""
        photos = run.dataset.validation
        fits = photo_fits(run.config.dataset, photos, self.base.resolution)
        key = tuple((photo.sha256, photo.caption, fit) for photo, fit in zip(photos, fits, strict=True))
        if key not in self._held_out_of:
            self._held_out_of[key] = tuple(
                HeldOut(moments_MHW=cached_moments(self.base, photo, View(fit), Path(self.spec.results_dir)),
                        caption=photo.caption) for photo, fit in zip(photos, fits, strict=True))
        return self._held_out_of[key]
