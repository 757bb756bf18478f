"""One pack from its photos to its answers: train together, save, screen, score, refill, and lose nothing to a kill."""

from __future__ import annotations

import gc
import math
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.checkpoints import existing_requests, member_of, record_step, rewind_metrics, unscored, write_checkpoint
from sweep.data.buckets import Fit
from sweep.data.cache import View, cached_moments
from sweep.data.train_data import photo_fits
from sweep.errors import LockedError, ModelError, is_out_of_memory
from sweep.files import append_jsonl
from sweep.membership import Change, changes_after, joining_trials, log_change, prune_reason, read_changes
from sweep.model.base import Base
from sweep.network.targets import Target
from sweep.packing import MOST_TRIALS, bank_order
from sweep.reg_images import draw_missing
from sweep.room import Room, largest, note_room
from sweep.stopping import Stopped, is_stop_asked
from sweep.training.loop import StepRow, train
from sweep.training.memory import num_that_fit, trial_bytes
from sweep.training.pack import Member, Pack
from sweep.training.state import (
    Position,
    Save,
    forget_states,
    latest_save,
    load_state,
    load_states,
    newest_step,
    ordered,
    save_states,
)
from sweep.training.validation import HeldOut, validation_losses
from sweep.trial import DIVERGED, DONE, PRUNED, RUNNING, WAITING, PackSpec, Trial, to_json
from sweep.trial_run import TrialRun, attributed_s

if TYPE_CHECKING:
    from sweep.evaluation.scorer import Scorer

STATUS_EVERY_S = 1.0  # how often a running trial's status.json is renewed
LOOK_EVERY_S = 0.25  # how often the conductor's wishes (prune, more trials) are looked for
ScorerOf = Callable[[TrialRun], "Scorer | None"]
Admit = Callable[[Trial], TrialRun | None]


class PackRun:
    """The trials of one pack, those that train and those that wait for a place.

    scorer_of: what scores a trial; None where scoring is off. more: where the conductor adds trials. admit: opens such
    a one for this pack; None = it can't be had (now).
    """

    def __init__(self, base: Base, targets: list[Target], runs: Sequence[TrialRun], spec: PackSpec,
                 scorer_of: ScorerOf, *, more: Path | None = None, admit: Admit | None = None):
        self.base, self.targets, self.spec = base, targets, spec
        self.by_id = {run.trial.train_id: run for run in runs}  # that are not done yet
        self.waiting: dict[str, int] = {}  # who has no place, with the step to go on from
        self.position = Position()
        self.pending: list[Change] = []  # what an earlier run did after its last save
        self._limit = spec.max_trials or MOST_TRIALS
        self.max_trials = self._limit
        self._ready: dict[str, Member] = {}  # made for the probe, not in a pack yet
        self._scorer_of, self._more, self._admit = scorer_of, more, admit
        self._control = Path(spec.control)
        self._known = [trial.train_id for trial in spec.trials]
        self._newest_change = 0  # the highest number of any, also of those that were taken back
        self.placed: list[str] = []  # who has a place, or is just getting one
        self._last_status_s = self._last_look_s = -math.inf
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
                    self._probe()
                self._resume(pack)
                self._train(pack)
                return
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            del pack
            gc.collect()
            self._halve()

    # -- training

    def _train(self, pack: Pack) -> None:
        while True:
            self._last_look_s = -math.inf
            left = self._change(pack)
            self._screen([self.by_id[member.train_id] for member in pack.members])
            self._finish(left or [])
            if not pack.members:
                return
            for rows in train(pack):
                self.position = replace(self.position, update=self.position.update + 1)
                self._after_update(pack, rows)

    def _after_update(self, pack: Pack, rows: Sequence[StepRow]) -> None:
        for row in rows:
            self._record_step(row)
        due = [member for member in pack.members if member.is_at_checkpoint and not member.diverged]
        screened = [self.by_id[member.train_id] for member in due]
        for member, run in zip(due, screened, strict=True):
            write_checkpoint(pack, self.base, run, member)
        self._validate(pack, due)
        try:
            left = self._change(pack)
        except Stopped:  # while it drew a newcomer's regularisation images
            save_states(pack, self._state_dirs, self.position)
            raise
        if left is None and (due or self.position.update % self.spec.save_state_every_n_steps == 0):
            save_states(pack, self._state_dirs, self.position)
        self._screen(screened)
        self._finish(left or [])
        if self._is_stop_asked():
            save_states(pack, self._state_dirs, self.position)
            raise Stopped

    def _record_step(self, row: StepRow) -> None:
        run = self.by_id[row.member.train_id]
        spent_s = run.status.attributed_s + row.share_s
        run.status = replace(run.status, step=row.step, attributed_s=spent_s)
        record_step(run, row, spent_s)
        if time.monotonic() - self._last_status_s > STATUS_EVERY_S:
            self._last_status_s = time.monotonic()
            for each in self.by_id.values():
                each.update()

    def _validate(self, pack: Pack, due: Sequence[Member]) -> None:
        """The loss on held-out photos, trials of the same photos together. Before the state is saved, so that a resume
        finds either both the checkpoint and its validation behind it or makes both again."""
        groups: dict[tuple[HeldOut, ...], list[Member]] = {}
        for member in due if self.spec.validate else ():
            groups.setdefault(self._held_out(self.by_id[member.train_id]), []).append(member)
        for photos, members in groups.items():
            if not photos:
                continue
            started = time.perf_counter()
            found = validation_losses(pack, members, photos)
            share_s = (time.perf_counter() - started) / len(members)
            for member, validation in zip(members, found, strict=True):
                run = self.by_id[member.train_id]
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

    # -- membership

    def _probe(self) -> None:
        """As many places as there is memory for trials like the largest one. One that can't be tried fails alone."""
        self.max_trials = 1  # until more is known
        while self.by_id:
            untrained = [run.trial for run in self.by_id.values() if not run.status.is_trained]
            run = self.by_id[largest(untrained or [run.trial for run in self.by_id.values()]).train_id]
            self.placed = [run.trial.train_id]
            member = self._member(run)
            each = None if member is None else self._bytes_of(run, member)
            if member is None or each is None:
                continue
            self._ready[member.train_id] = member
            num_fit = min(MOST_TRIALS, num_that_fit(self.base.device, each, self.spec.threads))
            self.max_trials = min(self._limit, num_fit)
            run.say(f"a trial like this takes {each / 2**30:.2f} GiB: places for {self.max_trials} at a time")
            note_room(Path(self.spec.results_dir), run.trial, Room(gib_each=each / 2**30, max_trials=num_fit))
            return

    def _bytes_of(self, run: TrialRun, member: Member) -> int | None:
        """What the trial takes; None if it can't be trained, which is then its result."""
        try:
            return trial_bytes(self.base, self.targets, member)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            run.fail(error)
            self._release(run)
            return None

    def _resume(self, pack: Pack) -> None:
        """Bring an empty pack to where the newest complete save left it; all others wait for a place."""
        save = latest_save(self._state_dirs)
        self.position = Position(history=secrets.token_hex(4)) if save is None else save.position
        changes = read_changes((run.folder for run in self.by_id.values()), self.position.history)
        self._newest_change = max(changes, default=self.position.change)
        before = changes.get(self.position.change)
        self.pending = changes_after(changes, self.position.change)
        if before is not None and before.max_trials is not None:
            self.max_trials = min(self.max_trials, before.max_trials)
        for run in self.by_id.values():
            run.requests = existing_requests(run)
        if save is not None:
            self._enter_save(pack, save)
        waited = {} if before is None else {i: step for i, step in before.waiting.items() if i in self.by_id}
        training = {member.train_id for member in pack.members}
        trained = [run for i, run in self.by_id.items() if run.status.is_trained and i not in training]
        self.waiting = {i: waited[i] if i in waited else newest_step(i, self._state_dirs)
                        for i in (*waited, *(i for i in self.by_id if i not in waited))
                        if i not in training and not self.by_id[i].status.is_trained}
        for i in self.waiting:
            self.by_id[i].update(status=WAITING, phase="")
        self._finish(trained)

    def _enter_save(self, pack: Pack, save: Save) -> None:
        self.placed = list(save.steps)
        members = [member for i in save.steps if (member := self._member(self.by_id[i])) is not None]
        if len(members) < len(save.steps):  # one can't be read any more: the others go on without it
            self.pending = []
        pack.change(ordered(members, {i: step for i, step in save.steps.items() if i in {m.train_id for m in members}}))
        load_states(pack, self._state_dirs, save)
        for member in members:
            self._rewind(member)

    def _rewind(self, member: Member) -> None:
        """Let the trial's folder be as it was at the member's step."""
        run = self.by_id[member.train_id]
        rewind_metrics(run.folder, member.step)
        run.requests = [request for request in run.requests if request.step <= member.step]
        run.update(status=RUNNING, phase="training", step=member.step, attributed_s=attributed_s(run.folder),
                   is_trained=False, diverged="", pruned="")

    def _change(self, pack: Pack) -> list[TrialRun] | None:
        """Change who shares the pass, if someone ended or can join; returns who ended. None = all is as it was."""
        joining: dict[str, Member] = {}
        change = self._recorded(pack, joining) or self._decided(pack, joining)
        if change is None:
            return None
        leaving = [member for member in pack.members if member.train_id not in change.members]
        members = {member.train_id: member for member in pack.members} | joining
        concerned = [self.by_id[i] for i in dict.fromkeys((*change.members, *(m.train_id for m in leaving)))]
        log_change((run.folder for run in concerned), change, threads=self.spec.threads,
                   device_name=_device_name(self.base))
        self._newest_change = max(self._newest_change, change.number)
        self.placed = list(change.members)
        ended = [member for member in leaving if member.is_finished or member.train_id in change.pruned]
        for member in ended:
            diverged = f"diverged: {member.diverged}" if member.diverged else ""
            pruned = change.pruned.get(member.train_id, "")
            self.by_id[member.train_id].update(
                is_trained=True, phase="scoring", step=member.step, diverged=diverged,
                pruned=f"ended early at step {member.step}: {pruned}" if pruned else "")
        pack.change([members[i] for i in change.members])
        self.position = replace(self.position, change=change.number)
        for member in joining.values():
            load_state(pack, member, self._state_dirs[member.train_id], change.members[member.train_id])
            self._rewind(member)
        if any(change.members.values()):  # before the first step there is nothing to lose
            save_states(pack, self._state_dirs, self.position)
        # Only now: an older save still needs the states of those that ended.
        for member in ended:
            forget_states(self._state_dirs[member.train_id])
        self.waiting = {i: step for i, step in change.waiting.items() if i in self.by_id}
        for i in (member.train_id for member in leaving if member not in ended):
            self.by_id[i].update(status=WAITING, phase="")
        return [self.by_id[member.train_id] for member in ended]

    def _recorded(self, pack: Pack, joining: dict[str, Member]) -> Change | None:
        """What an earlier run did at this boundary. If it can't be done again, the rest of its log is void."""
        if not self.pending:
            return None
        change = self.pending[0]
        if change.update > self.position.update and not any(member.is_finished for member in pack.members):
            return None
        present = {member.train_id: member.step for member in pack.members}
        new = [i for i in change.members if i not in present]
        for i in new:
            if i in self.by_id and (member := self._member(self.by_id[i])) is not None:
                joining[i] = member
        is_same = change.update == self.position.update and len(change.members) <= self.max_trials and all(
            present[i] == step if i in present else i in joining for i, step in change.members.items())
        if not is_same:
            self.pending = []
            joining.clear()
            return None
        del self.pending[0]
        if change.max_trials is not None:
            self.max_trials = min(self.max_trials, change.max_trials)
        return change

    def _decided(self, pack: Pack, joining: dict[str, Member]) -> Change | None:
        """What is due at this boundary; None = nothing, or what happens next is on record."""
        if self.pending:
            return None
        finished = [member for member in pack.members if member.is_finished]
        is_time = time.monotonic() - self._last_look_s >= LOOK_EVERY_S
        if not finished and not is_time:
            return None
        self._last_look_s = time.monotonic()
        rest = [member for member in pack.members if not member.is_finished]
        pruned = {member.train_id: reason for member in rest
                  if (reason := prune_reason(self.by_id[member.train_id].folder))}
        rest = [member for member in rest if member.train_id not in pruned]
        staying, too_many = rest[:self.max_trials], rest[self.max_trials:]
        waiting = {member.train_id: member.step for member in too_many} | self.waiting
        steps = {member.train_id: member.step for member in staying}
        while len(steps) < self.max_trials and (run := self._next(waiting)) is not None:
            i = run.trial.train_id
            step = waiting.pop(i, 0)
            if (member := self._member(run)) is not None:
                joining[i], steps[i] = member, step
                if step:
                    run.say(f"goes on from step {step} with other companions than before")
        if not (finished or pruned or too_many or joining):
            return None
        order = sorted(steps, key=lambda i: bank_order(self.by_id[i].trial))
        limit = self.max_trials if self.max_trials < self._limit else None
        return Change(history=self.position.history, number=self._newest_change + 1, after=self.position.change,
                      update=self.position.update, members={i: steps[i] for i in order}, waiting=waiting,
                      pruned=pruned, max_trials=limit)

    def _next(self, waiting: dict[str, int]) -> TrialRun | None:
        """Whose turn it is: who waits, then whom the conductor has added since."""
        for i in waiting:
            return self.by_id[i]
        for trial in joining_trials(self._more, self._known) if self._more and self._admit else []:
            assert self._admit is not None
            try:
                run = self._admit(trial)
            except LockedError:  # another worker trains it: perhaps next time
                continue
            self._known.append(trial.train_id)
            if run is not None:
                self.by_id[trial.train_id] = run
                run.requests = existing_requests(run)
                if not run.status.is_trained:
                    waiting[trial.train_id] = newest_step(trial.train_id, self._state_dirs)
                    return run
                self._finish([run])
        return None

    def _halve(self) -> None:
        """Memory ran out. Half of those that had a place keep it; one that was alone fails."""
        names = [i for i in self.placed if i in self.by_id]
        if len(names) <= 1:
            for i in names:
                self.by_id[i].fail(ModelError(
                    "The memory does not hold this trial, even alone. Lower its train_batch_size, its rank or "
                    "base_model.resolution, or set gradient_checkpointing=true; what was saved is gone on with."))
                self._release(self.by_id[i])
            return
        self.max_trials = len(names) // 2
        for i in names:
            self.by_id[i].say(f"memory ran out with {len(names)} trials in a pass: on with {self.max_trials}, from the "
                              "last save")
        save = latest_save(self._state_dirs)
        if save is None:
            return
        steps = list(save.steps.items())
        log_change((self.by_id[i].folder for i in save.steps), Change(
            history=save.position.history, number=self._newest_change + 1, after=save.position.change,
            update=save.position.update, members=dict(steps[:self.max_trials]),
            waiting=dict(steps[self.max_trials:]) | self.waiting, max_trials=self.max_trials),
            threads=self.spec.threads, device_name=_device_name(self.base))

    def _member(self, run: TrialRun) -> Member | None:
        """A trial ready for the pack; None if its photos can't be read, which is then its result."""
        if run.trial.train_id in self._ready:
            return self._ready.pop(run.trial.train_id)
        try:
            draw_missing(self.base, run.dataset, say=run.say, on_progress=partial(self._note_drawing, run))
            return member_of(run, self.base, Path(self.spec.results_dir))
        except Stopped:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            run.fail(error)
            self._release(run)
            return None

    def _note_drawing(self, run: TrialRun, num_done: int, num_all: int) -> None:
        """Regularisation images that no trial has needed before; what has been drawn is kept."""
        run.update(status=RUNNING, phase="drawing" if num_done < num_all else "training")
        self._stop_if_asked(num_done, num_all)

    # -- scoring

    def _screen(self, runs: Iterable[TrialRun]) -> None:
        """Score the checkpoints that have no score yet, together. After the state is saved: a kill in here costs no
        step, and a resume makes up for it."""
        for scorer, group in self._by_scorer(run for run in runs if run.requests):
            pairs = [(run, request) for run in group for request in unscored(run, scorer.scoring_id)]
            if not pairs:
                continue
            started = time.perf_counter()
            scores = scorer.screen([request for _, request in pairs], on_progress=self._stop_if_asked)
            share_s = (time.perf_counter() - started) / len(pairs)
            for (run, _), score in zip(pairs, scores, strict=True):
                run.update(attributed_s=run.status.attributed_s + share_s, newest_score=score.score_id)
                append_jsonl(run.folder.metrics, {"kind": "score", "step": score.step, "epoch": score.epoch,
                                                  "score": to_json(score), "attributed_s": run.status.attributed_s})

    def _finish(self, runs: Sequence[TrialRun]) -> None:
        """Score trained trials to the end and say which file to use; then they are done."""
        if not runs:
            return
        for run in runs:
            run.update(phase="scoring")
        self._screen(runs)
        for scorer, group in self._by_scorer(run for run in runs if run.requests):
            started = time.perf_counter()
            try:
                scorer.finish([run.requests for run in group], on_progress=self._stop_if_asked)
            except Stopped:
                raise
            except Exception as error:  # the other photos' trials still get their answers
                for run in group:
                    run.fail(error)
                continue
            share_s = (time.perf_counter() - started) / len(group)
            for run in group:
                run.update(attributed_s=run.status.attributed_s + share_s)
        for run in runs:
            if run.status.status == RUNNING:
                reason = run.status.diverged or run.status.pruned
                status = DIVERGED if run.status.diverged else PRUNED if run.status.pruned else DONE
                run.update(status=status, phase="", reason=reason)
            self._release(run)

    def _release(self, run: TrialRun) -> None:
        self.by_id.pop(run.trial.train_id, None)
        self.waiting.pop(run.trial.train_id, None)
        run.lock.release()

    def _by_scorer(self, runs: Iterable[TrialRun]) -> list[tuple[Scorer, list[TrialRun]]]:
        """Trials on the same photos are scored together; without scoring there is no group."""
        groups: dict[int, tuple[Scorer, list[TrialRun]]] = {}
        for run in runs:
            scorer = self._scorer_of(run)
            if scorer is not None:
                groups.setdefault(id(scorer), (scorer, []))[1].append(run)
        return list(groups.values())

    # -- what surrounds it

    @property
    def _state_dirs(self) -> dict[str, Path]:
        return {i: run.folder.state for i, run in self.by_id.items()}

    def _is_stop_asked(self) -> bool:
        return is_stop_asked(self._control)

    def _stop_if_asked(self, num_done: int, num_all: int) -> None:
        """Between two groups of images: what has been drawn is kept."""
        if self._is_stop_asked():
            raise Stopped


def _device_name(base: Base) -> str:
    import torch

    return torch.cuda.get_device_name(base.device) if base.device.type == "cuda" else "cpu"
