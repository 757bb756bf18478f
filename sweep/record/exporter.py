"""One exporter for every tracker: follows each trial's metrics.jsonl on its own thread and hands new rows to a sink.

So neither a slow network nor a library's start-up holds up the conductor, a row is shown once over kills and rewinds,
and a sink has to know nothing but how to show a row.
"""

from __future__ import annotations

import contextlib
import json
import queue
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sweep.files import read_json, write_json
from sweep.record.entry import SweepEntry
from sweep.record.facts import Record
from sweep.record.sweep_log import note
from sweep.trial import FAILED, Trial, TrialFolder, TrialResult, trial_folder

_POLL_S = 1.0


class Run(Protocol):
    """One trial on a dashboard."""

    def log(self, row: Mapping[str, Any], folder: TrialFolder) -> None:
        """Show a row of metrics.jsonl."""

    def end(self, result: TrialResult, folder: TrialFolder) -> None:
        """Show how the trial ended, before `finish`."""

    def finish(self) -> None:
        """Send what is unsent and let go. May wait, but not for ever."""


class Sink(Protocol):
    """A dashboard. Called from one thread; whatever it raises switches it off for the rest of the sweep."""

    name: str
    patience_s: float  # how long closing may take

    def marks_path(self, trial: Trial) -> Path:
        """Where it is kept what of the trial has been shown; sweeps that share a run share the file."""

    def open(self, trial: Trial) -> Run:
        """Begin the trial's run, or go on with it."""

    def conclude(self, record: Record) -> None:
        """Show the sweep's own answer, once all its views are written."""


@dataclass
class Marks:
    """What of one trial has been shown, as a small file that outlives the process.

    steps: kind of row -> the highest step shown. scores: score ids, of which one step may have several. sweeps: the
    sweeps that it was shown for.
    """

    steps: dict[str, int] = field(default_factory=dict)
    scores: list[str] = field(default_factory=list)
    has_ended: bool = False
    sweeps: list[str] = field(default_factory=list)

    def take(self, row: Mapping[str, Any]) -> bool:
        """Whether the row is new; a new one is remembered."""
        kind, step = str(row["kind"]), int(row["step"])
        if kind == "score":
            score_id = str(row["score"]["score_id"])
            if score_id in self.scores:
                return False
            self.scores.append(score_id)
            return True
        if step <= self.steps.get(kind, -1):
            return False
        self.steps[kind] = step
        return True


class Follower:
    """Reads the whole rows that were added to a metrics.jsonl since the last call, also after it was cut back."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._last_line = b""

    def new_rows(self) -> list[dict[str, Any]]:
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            # A resume may have cut the file and grown it past our offset between two calls: then the line before the
            # offset is another one, and all is read again.
            start = self._offset - len(self._last_line)
            file.seek(start)
            if file.read(len(self._last_line)) != self._last_line:
                self._offset, self._last_line = 0, b""
            file.seek(self._offset)
            lines = file.read().splitlines(keepends=True)
        rows = []
        for line in lines:
            if not line.endswith(b"\n"):
                break  # still being written
            self._offset += len(line)
            self._last_line = line
            try:
                rows.append(json.loads(line))
            except ValueError:
                continue  # cut short by a kill
        return rows


@dataclass
class _Open:
    run: Run
    follower: Follower
    folder: TrialFolder
    marks: Marks
    marks_path: Path


class Exporter:
    """Brings trials to one sink; see `sweep.record.tracker.Tracker` for the contract."""

    def __init__(self, sink: Sink, entry: SweepEntry, sweep_dir: Path, results_dir: Path) -> None:
        self._sink = sink
        self._entry = entry
        self._sweep_dir, self._results_dir = sweep_dir.resolve(), results_dir.resolve()
        self._open_runs: dict[str, _Open] = {}
        self._orders: queue.Queue[Trial | TrialResult | Record | None] = queue.Queue()
        self._is_on = True
        self._thread = threading.Thread(target=self._work, name=f"{sink.name}-tracker", daemon=True)
        self._thread.start()

    def follow(self, trial: Trial) -> None:
        self._orders.put(trial)

    def end(self, result: TrialResult) -> None:
        self._orders.put(result)

    def conclude(self, record: Record) -> None:
        self._orders.put(record)

    def close(self) -> None:
        self._orders.put(None)
        self._thread.join(self._sink.patience_s)
        if self._thread.is_alive() and self._is_on:
            self._is_on = False
            self._say(f"{self._sink.name} had not sent everything when the sweep ended; python -m sweep.record.sync "
                      f"{self._entry.name} sends the rest")

    def _work(self) -> None:
        is_open = True
        try:
            while is_open:
                is_open = self._obey()
                for train_id in list(self._open_runs):
                    self._show_new_rows(train_id)
        except (Exception, SystemExit) as error:  # whatever a library raises, the sweep goes on
            self._is_on = False
            self._say(f"{self._sink.name} is switched off for this sweep after an error, {type(error).__name__}: "
                      f"{error}")
        for train_id in list(self._open_runs):
            self._finish(train_id)

    def _obey(self) -> bool:
        """Wait for an order, at most until the next poll. False: no more will come."""
        try:
            order = self._orders.get(timeout=_POLL_S)
        except queue.Empty:
            return True
        if isinstance(order, Trial):
            if not self._marks(order).has_ended:
                self._open(order)
        elif isinstance(order, TrialResult):
            self._end(order)
        elif isinstance(order, Record):
            self._sink.conclude(order)
        return order is not None

    def _open(self, trial: Trial) -> _Open:
        if trial.train_id not in self._open_runs:
            folder = trial_folder(self._results_dir, trial.train_id)
            self._open_runs[trial.train_id] = _Open(self._sink.open(trial), Follower(folder.metrics), folder,
                                                    self._marks(trial), self._sink.marks_path(trial))
        return self._open_runs[trial.train_id]

    def _end(self, result: TrialResult) -> None:
        marks = self._marks(result.trial)
        if marks.has_ended and self._entry.name in marks.sweeps and not self._has_news(result.trial):
            return  # shown to its end by an earlier start of the sweep
        live = self._open(result.trial)
        self._show_new_rows(result.trial.train_id)
        live.run.end(result, live.folder)
        live.marks.has_ended = result.status != FAILED  # the same command tries a failed trial again
        live.marks.sweeps = sorted({*live.marks.sweeps, self._entry.name})
        write_json(live.marks_path, vars(live.marks))
        self._finish(result.trial.train_id)

    def _has_news(self, trial: Trial) -> bool:
        """Whether rows were added since the trial was shown to its end, as scores under another scoring are."""
        marks = self._marks(trial)
        rows = Follower(trial_folder(self._results_dir, trial.train_id).metrics).new_rows()
        return any(marks.take(row) for row in rows if "kind" in row and "step" in row)

    def _show_new_rows(self, train_id: str) -> None:
        live = self._open_runs[train_id]
        new = [row for row in live.follower.new_rows() if "kind" in row and "step" in row and live.marks.take(row)]
        for row in new:
            live.run.log(row, live.folder)
        if new:
            write_json(live.marks_path, vars(live.marks), durable=False)

    def _finish(self, train_id: str) -> None:
        live = self._open_runs.pop(train_id)
        try:
            live.run.finish()
        except (Exception, SystemExit) as error:
            if self._is_on:
                self._is_on = False
                self._say(f"{self._sink.name} could not end a run, {type(error).__name__}: {error}")

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a full disk; the sweep itself will say so
            note(self._sweep_dir, text)

    def _marks(self, trial: Trial) -> Marks:
        live = self._open_runs.get(trial.train_id)
        path = self._sink.marks_path(trial)
        return live.marks if live else Marks(**read_json(path)) if path.exists() else Marks()
