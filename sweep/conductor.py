"""ask -> pack -> launch -> tell -> record. The only file that knows every layer; never imports torch."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sweep.config import RunConfig
from sweep.data.check.headline import headlines
from sweep.data.folder import read_dataset
from sweep.errors import ConfigError, SweepExistsError, TrialsFailedError
from sweep.evaluation.backends import backend_identities
from sweep.evaluation.settings import NoScoring, dataset_key, scoring_id
from sweep.files import append_jsonl, read_jsonl, stable_hash, write_json
from sweep.identity import base_identity
from sweep.launch.local import Launcher, LocalLauncher
from sweep.lock import conductor_lock
from sweep.packing import pack_id, places, plan_packs
from sweep.preflight import Checked, Preflight
from sweep.record import rates
from sweep.record.entry import SweepEntry, read_entry, write_entry
from sweep.record.facts import Facts, add_facts
from sweep.record.notes import add_note, read_notes
from sweep.record.provenance import commit, hardware, versions
from sweep.record.redact import without_secrets
from sweep.record.results import is_complete, read_result, read_score, read_status
from sweep.record.sweep_log import note
from sweep.record.terminal import Progress, View, make_view, show_plan, show_results
from sweep.record.tracker import Tracker, make_tracker
from sweep.record.use import check_use, copy_chosen
from sweep.record.views import write_views
from sweep.schema import to_tree
from sweep.search.grid import Cells
from sweep.train_config import train_from_tree
from sweep.trial import DONE, FAILED, FINISHED, RUNNING, WAITING, PackSpec, Trial, TrialResult, to_json, trial_folder

POLL_S = 0.25
NOT_ASKED = ("plan", "validate", "note", "use", "sweep", "pack", "launcher", "tracker", "search", "experiment")
"""Top-level keys that change no trial, so they may differ when a sweep goes on."""
PLACES = ("dataset.dir", "dataset.holdout_dir", "base_model.path")
"""Where things lie; what is in them is compared."""


def conduct(cells: Cells) -> list[TrialResult]:
    """Run a sweep, or go on with it, until every trial has its result. Returns a result per trial of the sweep.

    Raises SweepError for what a user can mend, and TrialsFailedError after the record is written.
    """
    config = cells.cells[0].config
    results_dir = Path(config.sweep.results_dir)
    check_use(config.use)
    checked = Preflight(results_dir).check(cells.cells)
    question = _question(cells, checked)
    name = _checked_name(config.sweep.name) or _default_name(cells.swept_keys, question)
    for line in headlines([(one.dataset, train_from_tree(one.trial.config), one.trial.num_steps) for one in checked]):
        print(line)
    backends = {} if isinstance(config.scoring, NoScoring) else backend_identities(config.scoring.weights_dir)
    sweep = Sweep(name=name, dir=results_dir / name, config=config, backends=backends)
    if config.plan:
        sweep.show_plan(checked)
        return []
    with conductor_lock(sweep.dir):
        results = sweep.run(sweep.open(cells, checked, question))
    failed = [result for result in results if result.status == FAILED]
    if failed:
        numbers = ", ".join(str(result.trial.number) for result in failed)
        raise TrialsFailedError(f"{len(failed)} of {len(results)} trials failed: {numbers}. Each one's reason stands "
                                f"above and in {sweep.dir / 'diary.md'}; the same command tries them again.")
    return results


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A sweep's folder, and the way of its trials to their results."""

    name: str
    dir: Path
    config: RunConfig
    backends: dict[str, str]  # hash of the weights that score, by role; empty if the sweep does not score
    scoring_ids: dict[Any, str] = field(default_factory=dict)  # of the photos and bases seen so far

    @property
    def results_dir(self) -> Path:
        return self.dir.parent

    def open(self, cells: Cells, checked: Sequence[Checked], question: dict[str, Any]) -> SweepEntry:
        """Write down what is asked, and the trials that are new.

        Raises SweepExistsError if the name stands for another question.
        """
        first = checked[0]
        entry = SweepEntry(
            name=self.name, question=question, note=self.config.note,
            command=without_secrets(" ".join(["python", *sys.argv])),
            started=datetime.now(UTC).isoformat(timespec="seconds"), swept_keys=tuple(cells.swept_keys),
            trigger=first.dataset.trigger, class_noun=first.dataset.class_noun, num_photos=len(first.dataset.photos),
            base_model=self.config.train.base_model.name, dataset=self.config.train.dataset.dir or "the pocket's own",
            hardware=hardware(), versions=versions(), commit=commit())
        if self._entry_path.exists():
            before = read_entry(self._entry_path)
            _refuse_other_question(self.name, before, entry)
            if before.note and entry.note and entry.note not in (before.note, *read_notes(self.dir)):
                add_note(self.dir, entry.note)  # beside the first one
            entry = replace(entry, started=before.started, note=before.note or entry.note)
        write_entry(self._entry_path, entry)
        known = {trial.train_id: trial for trial in self.trials()}
        for one in checked:
            before_it = known.get(one.trial.train_id)
            if before_it is None or before_it.refused != one.trial.refused:
                number = len(known) + 1 if before_it is None else before_it.number
                known[one.trial.train_id] = replace(one.trial, number=number)
                append_jsonl(self._trials_path, to_json(known[one.trial.train_id]))
            if one.trial.refused:
                note(self.dir, f"refused {dict(one.trial.settings)}: {one.trial.refused}")
        add_facts(self.dir, self._facts(checked))
        lines = (line for one in checked for line in (*one.dataset.skipped, *one.merged, *one.ignored))
        for line in dict.fromkeys(lines):
            note(self.dir, line)
        return entry

    def _facts(self, checked: Sequence[Checked]) -> Facts:
        """What the views need to be written from the folder alone."""
        able = [one for one in checked if not one.trial.refused]
        scoring = self.config.scoring
        is_scored = not isinstance(scoring, NoScoring)
        return Facts(
            scoring_ids={one.trial.train_id: found for one in able if (found := self._scoring_id(one.trial))},
            photos={one.dataset.identity: [{"path": str(photo.path), "caption": photo.caption}
                                           for photo in one.dataset.photos] for one in able},
            photos_of={one.trial.train_id: one.dataset.identity for one in able},
            copy_distance=scoring.copies.copy_distance if is_scored else None,
            sampler=to_tree(scoring.sampler) if is_scored else {})

    def trials(self) -> list[Trial]:
        """All trials ever asked of this sweep, in the order of their numbers."""
        newest = {row["train_id"]: Trial(**row) for row in read_jsonl(self._trials_path)}
        return list(newest.values())

    def show_plan(self, checked: Sequence[Checked]) -> None:
        """Say what would run; nothing is written."""
        todo = [one for one in checked if not self._is_complete(one.trial)]
        waiting = [one.trial for one in todo]
        show_plan(self.name, [one.trial for one in checked], already_done=_others(checked, todo),
                  num_packs=len(self._plan_packs(waiting)), num_files=sum(one.num_checkpoints for one in todo),
                  estimated_s=self._expected_s(waiting))

    def run(self, entry: SweepEntry) -> list[TrialResult]:
        """Launch what is not complete, follow it, and write the record."""
        trials = self.trials()
        todo = [trial for trial in trials if not self._is_complete(trial)]
        ids = {trial.train_id for trial in todo}
        packs = self._plan_packs(todo)
        show_plan(self.name, trials, already_done=[t.train_id for t in trials if t.train_id not in ids],
                  num_packs=len(packs), estimated_s=self._expected_s(todo))
        tracker = make_tracker(self.config.tracker, entry, self.dir, self.results_dir)
        try:
            if packs:
                self._launch([trial for trial in trials if not trial.refused], packs, tracker)
        finally:
            results = [read_result(self.results_dir, trial, self._scoring_id(trial)) for trial in trials]
            done = [result for result in results if result.trial.train_id in ids and result.status == DONE]
            rates.remember(self.results_dir, self._rate_key, sum(result.attributed_s for result in done),
                           sum(result.step for result in done))
            try:
                record = write_views(self.dir)
                for result in results:
                    if todo and result.status in FINISHED:
                        tracker.end(result)
                if todo:
                    tracker.conclude(record)
            finally:
                tracker.close()
        show_results(entry, results, self.dir)
        copied = copy_chosen(self.config.use, record)
        if copied is not None:
            print(f"copied to: {copied}")
        return results

    def _launch(self, trials: Sequence[Trial], packs: Sequence[Sequence[Trial]], tracker: Tracker) -> None:
        self._control_path.unlink(missing_ok=True)
        launcher = LocalLauncher(self.config.launcher, self.dir)
        view = make_view(trials, self.name)
        try:
            self._follow(packs, launcher, view, tracker)
        finally:
            launcher.close()
            view.close()

    def _follow(self, packs: Sequence[Sequence[Trial]], launcher: Launcher, view: View, tracker: Tracker) -> None:
        """Keep the launcher's slots full until all packs ended. Ctrl-C saves and stops; a second one just stops."""
        waiting, running = list(packs), dict[Path, Sequence[Trial]]()
        try:
            while waiting or running:
                while waiting and launcher.num_free:
                    pack = waiting.pop(0)
                    running[self._start(pack, launcher)] = pack
                    for trial in pack:
                        tracker.follow(trial)
                ended = self._collect(launcher, running)
                view.update(self._progress([*running.values(), *ended]))
        except KeyboardInterrupt:
            write_json(self._control_path, {"command": "stop"})
            note(self.dir, "stopped by Ctrl-C; the same command goes on from here")
            print("saving what is running; Ctrl-C again stops at once", file=sys.stderr)
            while running:
                self._collect(launcher, running)
            raise

    def _collect(self, launcher: Launcher, running: dict[Path, Sequence[Trial]]) -> list[Sequence[Trial]]:
        """Wait a moment; take in the packs that ended, and return them."""
        time.sleep(POLL_S)
        ended = []
        for spec, reason in launcher.poll():
            ended.append(running.pop(spec))
            for trial in ended[-1]:
                status = read_status(self.results_dir, trial)
                # A worker that died leaves its trials running; they fail here and are tried again by the same command.
                if reason is not None and status.status in (RUNNING, WAITING):
                    write_json(trial_folder(self.results_dir, trial.train_id).status,
                               to_json(replace(status, status=FAILED, phase="", reason=reason)))
        return ended

    def _start(self, pack: Sequence[Trial], launcher: Launcher) -> Path:
        device, threads = launcher.device_of_next()
        spec = PackSpec(trials=tuple(pack), scoring=to_tree(self.config.scoring), results_dir=str(self.results_dir),
                        device=device, threads=threads, control=str(self._control_path),
                        save_state_every_n_steps=self.config.pack.save_state_every_n_steps,
                        max_trials=places(pack, self.config.pack.max_trials), validate=self.config.validate)
        path = self.dir / "packs" / f"{pack_id([trial.train_id for trial in pack])}.json"
        write_json(path, to_json(spec))
        launcher.start(path)
        return path

    def _plan_packs(self, todo: Sequence[Trial]) -> list[list[Trial]]:
        """Packs of what is left; trials that were interrupted together go on together."""
        earlier: list[list[str]] = []
        for trial in todo:
            folder = trial_folder(self.results_dir, trial.train_id)
            memberships = list(read_jsonl(folder.packs)) if any(folder.state.glob("*.safetensors")) else []
            if memberships:
                members = [*memberships[-1]["members"], *memberships[-1].get("waiting", {})]
                if members not in earlier:
                    earlier.append(members)
        return plan_packs(todo, earlier, num_workers=self.config.launcher.num_workers)

    def _progress(self, packs: Iterable[Sequence[Trial]]) -> dict[str, Progress]:
        """Where the trials of running packs stand now."""
        stands = {}
        for trial in (trial for pack in packs for trial in pack):
            status = read_status(self.results_dir, trial)
            newest = read_score(self.results_dir, trial.train_id, status.newest_score) if status.newest_score else None
            stands[trial.train_id] = Progress(status=status.status, step=status.step, num_steps=trial.num_steps,
                                              phase=status.phase, latest=newest)
        return stands

    def _expected_s(self, todo: Sequence[Trial]) -> float | None:
        """Wall time of what is to do, from what earlier trials cost here; None if there were none."""
        total_s = rates.expected_s(self.results_dir, self._rate_key, sum(trial.num_steps for trial in todo))
        return None if total_s is None else total_s / self.config.launcher.num_workers

    @property
    def _rate_key(self) -> str:
        base = self.config.train.base_model
        return f"{base.name} {base.resolution}px {self.config.launcher.device} scoring={self.config.scoring.name}"

    def _is_complete(self, trial: Trial) -> bool:
        return bool(trial.refused) or is_complete(self.results_dir, trial, self._scoring_id(trial))

    def _scoring_id(self, trial: Trial) -> str | None:
        """What the scores of a trial are known by in this sweep; None if it does not score."""
        scoring = self.config.scoring
        if isinstance(scoring, NoScoring):
            return None
        config = train_from_tree(trial.config)
        key = (config.base_model, config.dataset, config.trigger, config.class_noun)
        if key not in self.scoring_ids:
            dataset = read_dataset(config.dataset, trigger=config.trigger, class_noun=config.class_noun, repeats=None)
            base_id = base_identity(config.base_model, self.results_dir)
            self.scoring_ids[key] = scoring_id(scoring, base_id, config.base_model.resolution, self.backends,
                                               dataset_key(dataset))
        return self.scoring_ids[key]

    @property
    def _entry_path(self) -> Path:
        return self.dir / "sweep.yaml"

    @property
    def _trials_path(self) -> Path:
        return self.dir / "trials.jsonl"

    @property
    def _control_path(self) -> Path:
        return self.dir / "control.json"


def _question(cells: Cells, checked: Sequence[Checked]) -> dict[str, Any]:
    """The fixed settings that a sweep's name stands for: flat keys, the content of photos and base (not where they
    lie), and how it is scored, as one hash (the prompts are long)."""
    flat = _flat({key: value for key, value in cells.fixed.items() if key not in (*NOT_ASKED, "scoring")})
    swept = {*cells.swept_keys, *(key.split(".")[0] for key in cells.swept_keys)}
    question = {key: value for key, value in flat.items()
                if key not in PLACES and key not in swept and key.split(".")[0] not in swept}
    if not swept & {"dataset", "experiment"}:
        question["photos"] = checked[0].dataset.content
    if not swept & {"base_model", "experiment"}:
        question["base"] = checked[0].base_id
    scoring = {key: value for key, value in cells.fixed["scoring"].items() if key not in ("batch_size", "weights_dir")}
    question["scoring"] = f"{scoring['name']} {stable_hash(scoring, num_digits=6)}"
    return question


def _others(checked: Sequence[Checked], todo: Sequence[Checked]) -> list[str]:
    ids = {one.trial.train_id for one in todo}
    return [one.trial.train_id for one in checked if one.trial.train_id not in ids]


def _checked_name(name: str | None) -> str | None:
    if name is not None and (not re.fullmatch(r"[\w][\w.-]*", name) or name in ("trials", "cache")):
        raise ConfigError(f"sweep.name={name!r} can't be a folder of results: use letters, digits, '.', '_' and '-', "
                          "and not 'trials' or 'cache'.")
    return name


def _flat(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{path}{key}.") if isinstance(value, Mapping) else {f"{path}{key}": value}
    return flat


def _default_name(swept_keys: Sequence[str], question: Mapping[str, Any]) -> str:
    """A slug of the swept keys and six digits of the question, so that more values extend the same sweep."""
    slug = "-".join(key.split(".")[-1].split("/")[-1] for key in swept_keys)[:60] or "trial"
    return f"{slug}-{stable_hash([sorted(swept_keys), question], num_digits=6)}"


def _refuse_other_question(name: str, before: SweepEntry, now: SweepEntry) -> None:
    differing = sorted(key for key in {*before.question, *now.question}
                       if before.question.get(key) != now.question.get(key) and key not in before.swept_keys)
    lines = [f"{key}: {before.question.get(key)} there, {now.question.get(key)} here" for key in differing]
    if set(before.swept_keys) != set(now.swept_keys):
        lines.append(f"swept there: {', '.join(before.swept_keys) or 'nothing'}; here: "
                     f"{', '.join(now.swept_keys) or 'nothing'}")
    if lines:
        raise SweepExistsError(f"The sweep {name!r} stands for another question. What differs:\n  " + "\n  ".join(lines)
                               + "\nChoose another sweep.name, or repeat its settings to go on with it.")
