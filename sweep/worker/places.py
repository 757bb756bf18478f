"""Who has a place in a pack's pass: how many there are, who waits, and each change of it on record (contract 2)."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from sweep.errors import LockedError, ModelError
from sweep.model.base import Base
from sweep.network.targets import Target
from sweep.packing import MOST_TRIALS, bank_order
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
from sweep.trial import RUNNING, WAITING, Trial
from sweep.worker.checkpoints import existing_requests, rewind_metrics
from sweep.worker.membership import Change, changes_after, joining_trials, log_change, prune_reason, read_changes
from sweep.worker.pack_trials import PackTrials
from sweep.worker.probe import num_places
from sweep.worker.trial_run import TrialRun, attributed_s

LOOK_EVERY_S = 0.25  # how often the conductor's wishes (prune, more trials) are looked for
Admit = Callable[[Trial], TrialRun | None]


class Places:
    """The places of a pack and who waits for one.

    finish: scores trials that are trained. more: where the conductor adds trials. admit: opens such a one for this
    pack; None = it can't be had (now).
    """

    def __init__(self, trials: PackTrials, finish: Callable[[Sequence[TrialRun]], None], *, more: Path | None = None,
                 admit: Admit | None = None):
        self.trials = trials
        self.position = Position()
        self.pending: list[Change] = []  # what an earlier run did after its last save
        self._limit = trials.spec.max_trials or MOST_TRIALS
        self.max_trials = self._limit
        self._finish, self._more, self._admit = finish, more, admit
        self._known = [trial.train_id for trial in trials.spec.trials]
        self._newest_change = 0  # the highest number of any, also of those that were taken back
        self._last_look_s = -math.inf

    def made_update(self) -> None:
        """The pack has made one more."""
        self.position = replace(self.position, update=self.position.update + 1)

    def look_again(self) -> None:
        """At the next boundary, however soon."""
        self._last_look_s = -math.inf

    def save(self, pack: Pack) -> None:
        save_states(pack, self.trials.state_dirs, self.position)

    def probe(self, targets: list[Target]) -> None:
        """Make as many places as memory holds."""
        self.max_trials = 1  # until more is known
        self.max_trials = num_places(self.trials, targets, self._limit)

    def resume(self, pack: Pack) -> None:
        """Bring an empty pack to where the newest complete save left it; all others wait for a place."""
        save = latest_save(self.trials.state_dirs)
        self.position = Position(history=secrets.token_hex(4)) if save is None else save.position
        changes = read_changes((run.folder for run in self.trials.by_id.values()), self.position.history)
        self._newest_change = max(changes, default=self.position.change)
        before = changes.get(self.position.change)
        self.pending = changes_after(changes, self.position.change)
        if before is not None and before.max_trials is not None:
            self.max_trials = min(self.max_trials, before.max_trials)
        for run in self.trials.by_id.values():
            run.requests = existing_requests(run)
        if save is not None:
            self._enter_save(pack, save)
        waited = {} if before is None else {i: step for i, step in before.waiting.items() if i in self.trials.by_id}
        training = {member.train_id for member in pack.members}
        trained = [run for i, run in self.trials.by_id.items() if run.status.is_trained and i not in training]
        self.trials.waiting = {i: waited[i] if i in waited else newest_step(i, self.trials.state_dirs)
                               for i in (*waited, *(i for i in self.trials.by_id if i not in waited))
                               if i not in training and not self.trials.by_id[i].status.is_trained}
        for i in self.trials.waiting:
            self.trials.by_id[i].update(status=WAITING, phase="")
        self._finish(trained)

    def _enter_save(self, pack: Pack, save: Save) -> None:
        self.trials.placed = list(save.steps)
        members = [member for i in save.steps if (member := self.trials.member(self.trials.by_id[i])) is not None]
        if len(members) < len(save.steps):  # one can't be read any more: the others go on without it
            self.pending = []
        pack.change(ordered(members, {i: step for i, step in save.steps.items() if i in {m.train_id for m in members}}))
        load_states(pack, self.trials.state_dirs, save)
        for member in members:
            self._rewind(member)

    def _rewind(self, member: Member) -> None:
        """Let the trial's folder be as it was at the member's step."""
        run = self.trials.by_id[member.train_id]
        rewind_metrics(run.folder, member.step)
        run.requests = [request for request in run.requests if request.step <= member.step]
        run.update(status=RUNNING, phase="training", step=member.step, attributed_s=attributed_s(run.folder),
                   is_trained=False, diverged="", pruned="")

    def change(self, pack: Pack) -> list[TrialRun] | None:
        """Change who shares the pass, if someone ended or can join; returns who ended. None = all is as it was."""
        joining: dict[str, Member] = {}
        change = self._recorded(pack, joining) or self._decided(pack, joining)
        if change is None:
            return None
        leaving = [member for member in pack.members if member.train_id not in change.members]
        members = {member.train_id: member for member in pack.members} | joining
        concerned = [self.trials.by_id[i] for i in dict.fromkeys((*change.members, *(m.train_id for m in leaving)))]
        log_change((run.folder for run in concerned), change, threads=self.trials.spec.threads,
                   device_name=_device_name(self.trials.base))
        self._newest_change = max(self._newest_change, change.number)
        self.trials.placed = list(change.members)
        ended = [member for member in leaving if member.is_finished or member.train_id in change.pruned]
        for member in ended:
            diverged = f"diverged: {member.diverged}" if member.diverged else ""
            pruned = change.pruned.get(member.train_id, "")
            self.trials.by_id[member.train_id].update(
                is_trained=True, phase="scoring", step=member.step, diverged=diverged,
                pruned=f"ended early at step {member.step}: {pruned}" if pruned else "")
        pack.change([members[i] for i in change.members])
        self.position = replace(self.position, change=change.number)
        for member in joining.values():
            load_state(pack, member, self.trials.state_dirs[member.train_id], change.members[member.train_id])
            self._rewind(member)
        if any(change.members.values()):  # before the first step there is nothing to lose
            self.save(pack)
        # Only now: an older save still needs the states of those that ended.
        for member in ended:
            forget_states(self.trials.state_dirs[member.train_id])
        self.trials.waiting = {i: step for i, step in change.waiting.items() if i in self.trials.by_id}
        for i in (member.train_id for member in leaving if member not in ended):
            self.trials.by_id[i].update(status=WAITING, phase="")
        return [self.trials.by_id[member.train_id] for member in ended]

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
            if i in self.trials.by_id and (member := self.trials.member(self.trials.by_id[i])) is not None:
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
                  if (reason := prune_reason(self.trials.by_id[member.train_id].folder))}
        rest = [member for member in rest if member.train_id not in pruned]
        staying, too_many = rest[:self.max_trials], rest[self.max_trials:]
        waiting = {member.train_id: member.step for member in too_many} | self.trials.waiting
        steps = {member.train_id: member.step for member in staying}
        while len(steps) < self.max_trials and (run := self._next(waiting)) is not None:
            i = run.trial.train_id
            step = waiting.pop(i, 0)
            if (member := self.trials.member(run)) is not None:
                joining[i], steps[i] = member, step
                if step:
                    run.say(f"goes on from step {step} with other companions than before")
        if not (finished or pruned or too_many or joining):
            return None
        order = sorted(steps, key=lambda i: bank_order(self.trials.by_id[i].trial))
        limit = self.max_trials if self.max_trials < self._limit else None
        return Change(history=self.position.history, number=self._newest_change + 1, after=self.position.change,
                      update=self.position.update, members={i: steps[i] for i in order}, waiting=waiting,
                      pruned=pruned, max_trials=limit)

    def _next(self, waiting: dict[str, int]) -> TrialRun | None:
        """Whose turn it is: who waits, then whom the conductor has added since."""
        for i in waiting:
            return self.trials.by_id[i]
        for trial in joining_trials(self._more, self._known) if self._more and self._admit else []:
            assert self._admit is not None
            try:
                run = self._admit(trial)
            except LockedError:  # another worker trains it: perhaps next time
                continue
            self._known.append(trial.train_id)
            if run is not None:
                self.trials.by_id[trial.train_id] = run
                run.requests = existing_requests(run)
                if not run.status.is_trained:
                    waiting[trial.train_id] = newest_step(trial.train_id, self.trials.state_dirs)
                    return run
                self._finish([run])
        return None

    def halve(self) -> None:
        """Memory ran out. Half of those that had a place keep it; one that was alone fails."""
        names = [i for i in self.trials.placed if i in self.trials.by_id]
        if len(names) <= 1:
            for i in names:
                self.trials.by_id[i].fail(ModelError(
                    "The memory does not hold this trial, even alone. Lower its train_batch_size, its rank or "
                    "base_model.resolution, or set gradient_checkpointing=true; what was saved is gone on with."))
                self.trials.release(self.trials.by_id[i])
            return
        self.max_trials = len(names) // 2
        for i in names:
            self.trials.by_id[i].say(f"memory ran out with {len(names)} trials in a pass: on with {self.max_trials}, "
                                     "from the last save")
        save = latest_save(self.trials.state_dirs)
        if save is None:
            return
        steps = list(save.steps.items())
        log_change((self.trials.by_id[i].folder for i in save.steps), Change(
            history=save.position.history, number=self._newest_change + 1, after=save.position.change,
            update=save.position.update, members=dict(steps[:self.max_trials]),
            waiting=dict(steps[self.max_trials:]) | self.trials.waiting, max_trials=self.max_trials),
            threads=self.trials.spec.threads, device_name=_device_name(self.trials.base))


def _device_name(base: Base) -> str:
    import torch

    return torch.cuda.get_device_name(base.device) if base.device.type == "cuda" else "cpu"
