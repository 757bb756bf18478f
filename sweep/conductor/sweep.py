"""A sweep as its folder has it: what is asked, which trials, what is left to do. Never imports torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sweep.conductor import plan
from sweep.conductor.question import refuse_other_question
from sweep.conductor.search_plan import NOT_KNOWN
from sweep.config import RunConfig
from sweep.data.folder import read_dataset
from sweep.evaluation.keys import dataset_key, scoring_id
from sweep.evaluation.settings import NoScoring
from sweep.files import append_jsonl, read_jsonl
from sweep.identity import base_identity
from sweep.packing import MOST_TRIALS, plan_packs
from sweep.preflight import Checked
from sweep.record.entry import SweepEntry, read_entry, write_entry
from sweep.record.facts import Facts, add_facts, read_trials, without_mended
from sweep.record.notes import add_note, read_notes
from sweep.record.provenance import commit, hardware, versions
from sweep.record.results import is_complete, read_result, read_score, read_status
from sweep.record.sweep_log import notes
from sweep.record.terminal import Progress, say, show_plan
from sweep.schema import to_tree
from sweep.search.grid import Cells
from sweep.search.outcome import Outcome, outcome_of, screened_rows
from sweep.search.settings import Sampled
from sweep.train_config import train_from_tree
from sweep.trial import DONE, Status, Trial, to_json, trial_folder

_MOST_PROPOSALS = 8  # per pack where pack.max_trials leaves it open: more at once are proposed without having learned
_NUM_ROUNDS = 8  # a pack's trials are at most so many for each of its places


@dataclass(slots=True, kw_only=True)
class Sweep:
    """A sweep's folder: what is asked, its trials, and what is left of them."""

    name: str
    dir: Path
    config: RunConfig
    backends: dict[str, str]  # hash of the weights that score, by role; empty if the sweep does not score
    command: str
    trains: bool = True
    known: dict[str, Trial] = field(default_factory=dict)  # by train_id, in the order of their numbers
    num_checkpoints: dict[str, int] = field(default_factory=dict)  # by train_id, of the cells looked at
    scoring_ids: dict[Any, str] = field(default_factory=dict)  # of the photos and bases seen so far

    @property
    def results_dir(self) -> Path:
        return self.dir.parent

    def entry(self, cells: Cells, first: Checked, question: dict[str, Any]) -> SweepEntry:
        """What is asked. Raises SweepExistsError if the name stands for another question."""
        entry = SweepEntry(
            name=self.name, command=self.command, question=question,
            note="" if _have_own_notes(cells) else self.config.note,
            started=datetime.now(UTC).isoformat(timespec="seconds"), swept_keys=tuple(cells.swept_keys),
            trigger=first.dataset.trigger, class_noun=first.dataset.class_noun, num_photos=len(first.dataset.photos),
            base_model=self.config.train.base_model.name, dataset=self.config.train.dataset.dir or "the pocket's own",
            hardware=hardware(), versions=versions(), commit=commit())
        if not self._entry_path.exists():
            return entry
        before = read_entry(self._entry_path)
        refuse_other_question(self.name, before, entry, ignored=() if self.trains else ("scoring",))
        return replace(entry, started=before.started, note=before.note or entry.note)

    def open(self, entry: SweepEntry, skipped: Sequence[str]) -> None:
        """Write down what is asked. skipped: what was left out of the photos, in words."""
        note_now = self.config.note
        if self._entry_path.exists() and note_now and note_now not in (entry.note, *read_notes(self.dir)):
            add_note(self.dir, note_now)  # beside the first one
        write_entry(self._entry_path, entry)
        self.known = read_trials(self._trials_path)
        notes(self.dir, skipped)

    def take_in(self, checked: Sequence[Checked]) -> None:
        """Write down trials that are new, with the next numbers."""
        lines: list[str] = []
        for one in checked:
            before = self.known.get(one.trial.train_id)
            if before is None or before.refused != one.trial.refused:
                number = len(self.known) + 1 if before is None else before.number
                self.known[one.trial.train_id] = replace(one.trial, number=number)
                append_jsonl(self._trials_path, to_json(self.known[one.trial.train_id]))
            if one.trial.refused:
                lines.append(f"refused {dict(one.trial.settings)}: {one.trial.refused}")
            lines += [*one.dataset.skipped, *one.merged, *one.ignored]
        add_facts(self.dir, self._facts(checked))
        notes(self.dir, lines)

    def keep_own_notes(self, cells: Cells) -> None:
        """Where experiments have words of their own, they stand beside their trials."""
        own = [cell for cell in cells.cells if not cell.refused] if _have_own_notes(cells) else []
        for cell in own:
            for trial in self.known.values():
                folder = trial_folder(self.results_dir, trial.train_id).root
                if trial.settings == dict(cell.settings) and cell.config.note not in ("", *read_notes(folder)):
                    add_note(folder, cell.config.note)

    def _facts(self, checked: Sequence[Checked]) -> Facts:
        """What the views need to be written from the folder alone."""
        able = [one for one in checked if not one.trial.refused]
        scoring = self.config.scoring
        is_scored = not isinstance(scoring, NoScoring)
        photos = {one.dataset.identity: one.dataset.photos for one in able}
        return Facts(
            scoring_ids={one.trial.train_id: found for one in able if (found := self.scoring_id(one.trial))},
            photos={key: [{"path": str(photo.path), "caption": photo.caption} for photo in some]
                    for key, some in photos.items()},
            photos_of={one.trial.train_id: one.dataset.identity for one in able},
            copy_distance=scoring.copies.copy_distance if is_scored else None,
            sampler=to_tree(scoring.sampler) if is_scored else {}, limits=self.limits)

    @property
    def limits(self) -> dict[str, float]:
        return self.config.search.limits if isinstance(self.config.search, Sampled) else {}

    def trials(self) -> list[Trial]:
        """All trials ever asked of this sweep, in the order of their numbers."""
        return without_mended(self.known.values())

    def show_plan(self, checked: Sequence[Checked]) -> None:
        """Say what a grid would run; nothing is written."""
        todo = [one for one in checked if not self.is_complete(one.trial)]
        waiting = [one.trial for one in todo]
        ids = {trial.train_id for trial in waiting}
        show_plan(self.name, [one.trial for one in checked], steps_left=self.steps_left,
                  already_done=[one.trial.train_id for one in checked if one.trial.train_id not in ids],
                  num_packs=len(packs := self.plan_packs(waiting)), estimated_s=self.expected_s(waiting),
                  num_files=sum(one.num_checkpoints for one in todo),
                  room=plan.room_said(self.results_dir, self.config.pack.max_trials, waiting))
        for line in plan.plan_lines(self.results_dir, todo, packs, self.config.scoring):
            say(line)
        if todo and self.expected_s(waiting) is None:
            say(f"minutes: {NOT_KNOWN}")
        if merged := [words for one in checked for words in one.merged]:
            say(f"{len(merged)} duplicate{'s' if len(merged) > 1 else ''} merged: {merged[0]}"
                f"{', and so on' if len(merged) > 1 else ''}")

    def progress(self, trial: Trial, status: Status) -> Progress:
        """How far a trial is, for the eye. status: its own, as read. A sweep that scores otherwise may have scored it
        last; that says nothing here."""
        newest = read_score(self.results_dir, trial.train_id, status.newest_score) if status.newest_score else None
        if newest is not None and newest.scoring_id != self.scoring_id(trial):
            newest = None
        return Progress(status=status.status, step=status.step, num_steps=trial.num_steps, phase=status.phase,
                        latest=newest)

    def outcome(self, trial: Trial) -> Outcome:
        """What the study is told of a finished trial."""
        scoring = self.scoring_id(trial)
        result = read_result(self.results_dir, trial, scoring)
        if scoring is None or result.status == DONE:  # its answer says it all
            return outcome_of(result)
        rows = read_jsonl(trial_folder(self.results_dir, trial.train_id).metrics)
        return outcome_of(result, screened_rows(list(rows), scoring))

    def plan_packs(self, todo: Sequence[Trial], num_workers: int | None = None) -> list[list[Trial]]:
        """Packs of what is left; trials that were interrupted together go on together."""
        earlier: dict[tuple[str, ...], None] = {}
        for trial in todo:
            folder = trial_folder(self.results_dir, trial.train_id)
            memberships = list(read_jsonl(folder.packs)) if any(folder.state.glob("*.safetensors")) else []
            if memberships:
                earlier[(*memberships[-1]["members"], *memberships[-1].get("waiting", {}))] = None
        return plan_packs(todo, [list(members) for members in earlier],
                          num_workers=num_workers or self.config.launcher.num_workers,
                          max_length=_NUM_ROUNDS * (self.config.pack.max_trials or MOST_TRIALS),
                          num_scored=None if isinstance(self.config.scoring, NoScoring) else self.num_checkpoints)

    def may_start(self, trial: Trial) -> bool:
        """Whether a worker may be given the trial: where nothing is trained, only one that has its files."""
        if self.trains:
            return True
        folder, status = trial_folder(self.results_dir, trial.train_id), read_status(self.results_dir, trial)
        return status.is_trained and any(folder.checkpoints.glob("*.safetensors")) and (
            not status.pruned or folder.prune.exists())

    def is_complete(self, trial: Trial) -> bool:
        return bool(trial.refused) or is_complete(self.results_dir, trial, self.scoring_id(trial),
                                                  counts_pruned=self.may_prune)

    @property
    def may_prune(self) -> bool:
        """Whether trials of this sweep may end early; where none may, one that another sweep pruned goes on."""
        return self.config.search.pruning.rule != "none" or self.config.early_stop is not None or not self.trains

    @property
    def most_proposals(self) -> int:
        """Trials per pack that a search asks for."""
        return self.config.pack.max_trials or _MOST_PROPOSALS

    @property
    def control_path(self) -> Path:
        return self.dir / "control.json"

    def scoring_id(self, trial: Trial) -> str | None:
        """What the scores of a trial are known by in this sweep; None if it does not score."""
        scoring = self.config.scoring
        if isinstance(scoring, NoScoring) or trial.refused:  # its photos may be the reason
            return None
        part = {key: trial.config.get(key) for key in ("base_model", "dataset", "trigger", "class_noun")}
        key = repr(part)
        if key not in self.scoring_ids:
            config = train_from_tree(trial.config)
            dataset = read_dataset(config.dataset, trigger=config.trigger, class_noun=config.class_noun, repeats=None)
            base_id = base_identity(config.base_model, self.results_dir)
            self.scoring_ids[key] = scoring_id(scoring, base_id, config.base_model.resolution, self.backends,
                                               dataset_key(dataset))
        return self.scoring_ids[key]

    def expected_s(self, todo: Sequence[Trial]) -> float | None:
        """Wall time of what is to do, from what earlier trials cost here; None if there were none."""
        checkpoints = sum(math.ceil(self.num_checkpoints.get(trial.train_id, 1) * self.steps_left(trial)
                                    / max(trial.num_steps, 1)) for trial in todo)
        total_s = plan.expected_s(self.results_dir, self.rate_key, num_trials=len(todo), num_checkpoints=checkpoints,
                                  num_steps=sum(self.steps_left(trial) for trial in todo))
        return None if total_s is None else total_s / min(self.config.launcher.num_workers, max(len(todo), 1))

    def steps_left(self, trial: Trial) -> int:
        return trial.num_steps - read_status(self.results_dir, trial).step

    @property
    def rate_key(self) -> str:
        return plan.rate_key(self.config)

    @property
    def _entry_path(self) -> Path:
        return self.dir / "sweep.yaml"

    @property
    def _trials_path(self) -> Path:
        return self.dir / "trials.jsonl"


def _have_own_notes(cells: Cells) -> bool:
    return len({cell.config.note for cell in cells.cells}) > 1
