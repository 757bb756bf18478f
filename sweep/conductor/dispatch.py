"""Keeps the launcher's places full: starts packs, follows their trials, prunes, tells the study, retries the lost."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.conductor.proposals import Proposals
from sweep.files import append_jsonl, read_jsonl, write_json
from sweep.launch.launcher import Launcher
from sweep.packing import can_share, pack_id, places
from sweep.record.results import read_status
from sweep.record.sweep_log import note
from sweep.record.terminal import Progress, View
from sweep.record.tracker import Tracker
from sweep.redact import without_secrets
from sweep.schema import to_tree
from sweep.search.outcome import Screened, screened_rows
from sweep.search.pruning import behind, fallen
from sweep.search.study import SweepStudy
from sweep.trial import (
    FAILED,
    FINISHED,
    RUNNING,
    WAITING,
    PackSpec,
    Status,
    Trial,
    more_trials,
    to_json,
    trial_folder,
)
from sweep.trial_log import say

if TYPE_CHECKING:
    from sweep.conductor.sweep import Sweep

POLL_S = 0.25
_FIRST_POLL_S = 0.002  # after something ended, the next look comes at once and then ever later


@dataclass(slots=True, kw_only=True)
class _Pack:
    """A pack that runs. trials: with those that joined it on the way."""

    spec: Path
    trials: list[Trial]
    num_at_start: int


class Dispatch:
    """The way of a sweep's trials through a launcher. proposals: None for a grid. Who made launcher and view closes
    them."""

    def __init__(self, sweep: Sweep, study: SweepStudy, proposals: Proposals | None, launcher: Launcher, view: View,
                 tracker: Tracker):
        self._sweep, self._study, self._proposals = sweep, study, proposals
        self._launcher, self._view, self._tracker = launcher, view, tracker
        self._waiting: list[list[Trial]] = []
        self._running: dict[Path, _Pack] = {}
        self._told: set[str] = set()
        self._num_lost: dict[str, int] = {}  # how often a trial's worker died
        self._screened: dict[str, list[Screened]] = {}  # what pruning looks at; of ended trials if they are rivals
        self._newest: dict[str, str] = {}
        self._before: dict[str, Status] = {}  # how trials stood before they were started (again)
        self._wait_s = POLL_S
        self._has_rivals = sweep.config.search.pruning.rule == "paired" and len(study.objectives) == 1
        if self._has_rivals:  # new trials are compared with those of earlier runs too
            for trial in sweep.trials():
                if not trial.refused and read_status(sweep.results_dir, trial).status in FINISHED:
                    rows = read_jsonl(trial_folder(sweep.results_dir, trial.train_id).metrics)
                    self._screened[trial.train_id] = screened_rows(list(rows), sweep.scoring_id(trial))

    def run(self, packs: Sequence[Sequence[Trial]]) -> None:
        """Until nothing is left. Ctrl-C saves and stops; a second one just stops."""
        self._waiting = [list(pack) for pack in packs]
        self._sweep.control_path.unlink(missing_ok=True)
        try:
            while True:
                self._fill()
                if not self._running:
                    return
                self._collect()
        except KeyboardInterrupt:
            write_json(self._sweep.control_path, {"command": "stop"})
            note(self._sweep.dir, "stopped by Ctrl-C; the same command goes on from here")
            print("saving what is running; Ctrl-C again stops at once", file=sys.stderr)
            self._launcher.stop()
            while self._running:
                self._collect()
            raise

    def _fill(self) -> None:
        """Start packs in free places; a search is asked only for what can start now."""
        while self._launcher.num_free:
            if not self._waiting and self._proposals is not None:
                self._waiting = self._sweep.plan_packs(self._ask(self._sweep.most_proposals), num_workers=1)
            if not self._waiting:
                break
            self._start(self._waiting.pop(0))
        if self._proposals is not None or self._sweep.may_prune:
            for pack in self._running.values():
                self._refill(pack)

    def _ask(self, num_trials: int) -> list[Trial]:
        assert self._proposals is not None
        asked: list[Trial] = []
        while len(asked) < num_trials and (trial := self._proposals.next()) is not None:
            asked.append(trial)
            self._view.add(trial)
        return asked

    def _refill(self, pack: _Pack) -> None:
        """Trials for the places of those that have ended. A worker that takes none leaves them to the next pack."""
        if any(self._is_suspect(trial) for trial in pack.trials):
            return
        num_live = sum(trial.train_id not in self._told for trial in pack.trials)
        for _ in range(self._sweep.most_proposals - num_live):
            trial = self._joining(pack.trials[0])
            if trial is None:
                return
            self._prepare(trial)
            append_jsonl(more_trials(pack.spec), {"trial": to_json(trial)})
            pack.trials.append(trial)

    def _is_suspect(self, trial: Trial) -> bool:
        """Whether it was among those whose worker died more than once: it runs alone, so that the culprit is found."""
        return self._num_lost.get(trial.train_id, 0) > 1 and trial.train_id not in self._told

    def _joining(self, member: Trial) -> Trial | None:
        """A waiting trial that can share the pass with a pack's members, else a new one."""
        for waiting in self._waiting:
            if len(waiting) == 1 and can_share(waiting[0], member) and not self._is_suspect(waiting[0]):
                self._waiting.remove(waiting)
                return waiting[0]
        if self._proposals is None or self._waiting:
            return None
        asked = self._ask(1)
        if asked and not can_share(asked[0], member):
            self._waiting.append(asked)
            return None
        return asked[0] if asked else None

    def _start(self, pack: list[Trial]) -> None:
        config = self._sweep.config
        device, threads = self._launcher.device_of_next()
        # A search fills its places as it goes on.
        num_places = places(pack, config.pack.max_trials) if self._proposals is None else self._sweep.most_proposals
        spec = PackSpec(trials=tuple(pack), scoring=to_tree(config.scoring), results_dir=str(self._sweep.results_dir),
                        device=device, threads=threads, control=str(self._sweep.control_path),
                        max_trials=num_places, fits_memory=config.pack.max_trials is None, validate=config.validate,
                        save_state_every_n_steps=config.pack.save_state_every_n_steps)
        path = self._sweep.dir / "packs" / f"{pack_id([trial.train_id for trial in pack])}.json"
        write_json(path, to_json(spec), durable=False)
        more_trials(path).unlink(missing_ok=True)
        for trial in pack:
            self._prepare(trial)
        self._launcher.start(path)
        self._running[path] = _Pack(spec=path, trials=list(pack), num_at_start=len(pack))
        self._wait_s = _FIRST_POLL_S

    def _prepare(self, trial: Trial) -> None:
        folder = trial_folder(self._sweep.results_dir, trial.train_id)
        status = read_status(self._sweep.results_dir, trial)
        if status.status == WAITING and status.reason:
            note(self._sweep.dir, f"trial {trial.number}: {status.reason}")
        if not (status.pruned and self._sweep.may_prune):  # one that was ended early and not scored to the end stays so
            folder.prune.unlink(missing_ok=True)
        if status.status in (RUNNING, FAILED):  # of an earlier run; what counts from here on is this one's
            status = replace(status, status=WAITING, phase="", reason="")
            write_json(folder.status, to_json(status), durable=False)
        self._before[trial.train_id] = status
        self._study.begin(trial)
        self._tracker.follow(trial)

    def _collect(self) -> None:
        """Wait a moment; see where the trials stand, take in the packs that ended."""
        time.sleep(self._wait_s)
        self._wait_s = min(POLL_S, 2 * self._wait_s)
        reports = self._launcher.poll()
        ended = [(self._running.pop(spec), reason) for spec, reason in reports]
        stands = self._stands([*self._running.values(), *(pack for pack, _ in ended)])
        self._view.update(stands)
        for pack in self._running.values():
            self._prune(pack, stands)
        for pack, reason in ended:
            self._wait_s = _FIRST_POLL_S
            self._end(pack, reason)

    def _end(self, pack: _Pack, reason: str | None) -> None:
        """What a pack leaves behind: trials that were lost with their worker, and those that never got a place."""
        left = [trial for trial in pack.trials if trial.train_id not in self._told]
        if self._sweep.control_path.exists():
            return
        results_dir = self._sweep.results_dir
        # A worker that died before it opened a single trial would die again and again.
        is_stillborn = reason is not None and len(left) == len(pack.trials) and all(
            read_status(results_dir, trial).status == WAITING for trial in left)
        lost: list[tuple[Trial, Status]] = []
        failed: list[tuple[Trial, Status]] = []
        unplaced: list[Trial] = []
        for trial in left:
            status = read_status(results_dir, trial)
            if reason is None and status.status in FINISHED:  # as before, to the word
                self._tell(trial)
                continue
            never_placed = reason is not None or trial in pack.trials[pack.num_at_start:]
            if status.status == WAITING and never_placed and not is_stillborn:
                unplaced.append(trial)
                continue
            why = reason or "the worker ended without finishing it"
            self._num_lost[trial.train_id] = self._num_lost.get(trial.train_id, 0) + 1
            is_over = self._num_lost[trial.train_id] > self._sweep.config.pack.max_retries
            (failed if is_over else lost).append((trial, status))
        for trial, status in failed:
            times = self._num_lost[trial.train_id]
            self._fail(trial, status, f"{why}; it was tried {times} times" if times > 1 else why)
        if lost:
            numbers = ", ".join(str(trial.number) for trial, _ in lost)
            note(self._sweep.dir, f"trials {numbers} are tried again: {why}")
        # Once together, as a resume repeats the pack; then each alone, so that one that kills its worker is found out.
        again = [trial for trial, _ in lost]
        if all(self._num_lost[trial.train_id] == 1 for trial in again):
            together = [trial for trial in pack.trials if trial in again or trial in unplaced]
            self._waiting[:0] = [together] if together else []
        else:
            self._waiting[:0] = [[trial] for trial in again] + ([unplaced] if unplaced else [])

    def _fail(self, trial: Trial, status: Status, reason: str) -> None:
        folder = trial_folder(self._sweep.results_dir, trial.train_id)
        say(folder, f"failed: {reason}")  # its worker is gone and could not
        write_json(folder.status, to_json(replace(status, status=FAILED, phase="", reason=without_secrets(reason))))
        self._tell(trial)

    def _stands(self, packs: Iterable[_Pack]) -> dict[str, Progress]:
        """Where the trials of packs stand now; those that have ended are told to the study."""
        stands = {}
        results_dir = self._sweep.results_dir
        for trial in (trial for pack in packs for trial in pack.trials if trial.train_id not in self._told):
            status = read_status(results_dir, trial)
            stands[trial.train_id] = self._sweep.progress(trial, status)
            newest = stands[trial.train_id].latest
            if newest is not None and self._sweep.may_prune and self._newest.get(trial.train_id) != newest.score_id:
                self._newest[trial.train_id] = newest.score_id
                rows = read_jsonl(trial_folder(results_dir, trial.train_id).metrics)
                self._screened[trial.train_id] = screened_rows(list(rows), self._sweep.scoring_id(trial))
            if status.status in FINISHED and status != self._before[trial.train_id]:
                self._tell(trial)
        return stands

    def _tell(self, trial: Trial) -> None:
        self._told.add(trial.train_id)
        if not self._has_rivals:
            self._screened.pop(trial.train_id, None)
        outcome = self._sweep.outcome(trial)
        if self._proposals is not None:
            self._proposals.tell(trial, outcome)
        else:
            self._study.tell(trial, outcome)

    def _prune(self, pack: _Pack, stands: dict[str, Progress]) -> None:
        """Ask the worker to end trials that are not worth going on with."""
        for trial in pack.trials:
            progress = stands.get(trial.train_id)
            path = trial_folder(self._sweep.results_dir, trial.train_id).prune
            if progress is None or progress.status != RUNNING or progress.phase == "scoring" or path.exists():
                continue
            reason, by = self._reason_to_prune(trial)
            if reason:
                write_json(path, {"reason": reason, "by": by}, durable=False)
                note(self._sweep.dir, f"trial {trial.number} is ended early: {reason}")

    def _reason_to_prune(self, trial: Trial) -> tuple[str, str]:
        config, own = self._sweep.config, self._screened.get(trial.train_id, [])
        rule = config.search.pruning
        if config.early_stop is not None and (reason := fallen(own, config.early_stop)):
            return reason, "early_stop"
        if not own or rule.rule == "none" or len(self._study.objectives) > 1:
            return "", ""
        if rule.rule == "paired":
            others = {self._sweep.known[i].number: seen for i, seen in self._screened.items() if i != trial.train_id}
            return behind(rule, own, others), "paired"
        if len(own) >= rule.min_checkpoints and self._study.should_prune(trial, own):
            return f"search.pruning.rule={rule.rule} at step {own[-1].step}", rule.rule
        return "", ""
