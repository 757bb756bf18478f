"""One exporter for every tracker: follows each trial's metrics.jsonl on its own thread and hands new rows to a sink.

So neither a slow network nor a library's start-up holds up the conductor, a row is shown once over kills, rewinds and
several sweeps of one trial, and a sink has to know nothing but how to show a row.
"""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sweep.files import stable_hash
from sweep.lock import FolderLock, try_lock
from sweep.record.entry import SweepEntry
from sweep.record.facts import Record
from sweep.record.payload import score_row
from sweep.record.shown import Shown, key_of
from sweep.record.sweep_log import note
from sweep.trial import FAILED, Trial, TrialFolder, TrialResult, to_json, trial_folder

_POLL_S = 1.0


class Run(Protocol):
    """One trial on a dashboard. num_there: how many rows it held when it was opened; None if it can't say."""

    num_there: int | None

    def log(self, row: Mapping[str, Any], folder: TrialFolder) -> None:
        """Show a row of metrics.jsonl, or a later score as one of its kind."""

    def log_end(self, result: TrialResult, folder: TrialFolder) -> None:
        """Show how the trial ended, as one row."""

    def summarise(self, result: TrialResult, sweeps: list[str]) -> None:
        """Set what can be set again: the end's figures and words, and the sweeps that the trial belongs to."""

    def finish(self) -> None:
        """Send what is unsent and let go. May wait, but not for ever. Raises if it could not send all."""


class Sink(Protocol):
    """A dashboard. Called from one thread; whatever it raises switches it off for the rest of the sweep."""

    name: str
    patience_s: float  # how long closing may take

    def shown_path(self, trial: Trial) -> Path:
        """Where it is kept what of the trial has been shown; sweeps that share a run share the file."""

    def open(self, trial: Trial) -> Run:
        """Begin the trial's run, or go on with it."""

    def conclude(self, record: Record) -> None:
        """Show the sweep's own answer, once all its views are written."""

    def how_to_send(self) -> str:
        """What shows the rest, after an error or a dead network: the end of a sentence."""


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
            with contextlib.suppress(ValueError):  # cut short by a kill
                row = json.loads(line)
                if "kind" in row and "step" in row:
                    rows.append(row)
        return rows


def is_shown(shown: Shown, result: TrialResult, sweep: str, results_dir: Path) -> bool:
    """Whether a trial was shown to its end for a sweep, and no rows came since, as scores under another scoring do."""
    rows = Follower(trial_folder(results_dir, result.trial.train_id).metrics).new_rows
    return shown.is_final and sweep in shown.sweeps and all(key_of(row) in shown for row in rows())


@dataclass
class _Open:
    run: Run
    follower: Follower
    folder: TrialFolder
    shown: Shown
    lock: FolderLock


class Exporter:
    """Brings trials to one sink; see `sweep.record.tracker.Tracker` for the contract.

    One exporter at a time follows a trial: another sweep's, that has the same trial, waits until it is let go.
    is_all: also look again at trials that were shown to their end, as the dashboard may have lost rows since.
    """

    def __init__(self, sink: Sink, entry: SweepEntry, sweep_dir: Path, results_dir: Path, *,
                 is_all: bool = False) -> None:
        self._sink, self._entry, self._is_all = sink, entry, is_all
        self._sweep_dir, self._results_dir = sweep_dir.resolve(), results_dir.resolve()
        self._open_runs: dict[str, _Open] = {}
        self._waiting: dict[str, Trial] = {}  # followed by another process
        self._ended: dict[str, TrialResult] = {}  # to be shown to their end
        self._orders: queue.Queue[Trial | TrialResult | Record | None] = queue.Queue()
        self._is_on = True
        self._give_up_s: float | None = None
        self._thread = threading.Thread(target=self._work, name=f"{sink.name}-tracker", daemon=True)
        self._thread.start()

    def follow(self, trial: Trial) -> None:
        self._orders.put(trial)

    def end(self, result: TrialResult) -> None:
        self._orders.put(result)

    def conclude(self, record: Record) -> None:
        self._orders.put(record)

    def close(self) -> None:
        self._give_up_s = time.monotonic() + self._sink.patience_s
        self._orders.put(None)
        self._thread.join(self._sink.patience_s)
        if self._thread.is_alive() and self._is_on:
            self._is_on = False
            self._say(f"{self._sink.name} had not sent everything when the sweep ended; {self._sink.how_to_send()}")

    def _work(self) -> None:
        is_open = True
        try:
            while is_open:
                is_open = self._obey()
                self._show()
            while self._ended and self._is_on and time.monotonic() < (self._give_up_s or 0):
                time.sleep(_POLL_S)
                self._show()
            if self._ended:
                self._say(f"{self._sink.name}: other sweeps were still showing {', '.join(sorted(self._ended))}; "
                          f"{self._sink.how_to_send()}")
        except (Exception, SystemExit) as error:  # whatever a library raises, the sweep goes on
            self._fail("is switched off for this sweep after an error", error)
        for train_id in list(self._open_runs):
            self._finish(train_id)

    def _obey(self) -> bool:
        """Wait for an order, at most until the next poll. False: no more will come."""
        try:
            order = self._orders.get(timeout=_POLL_S)
        except queue.Empty:
            return True
        if isinstance(order, Trial):
            is_open = order.train_id in self._open_runs
            if not is_open and (self._is_all or not Shown(self._sink.shown_path(order)).is_final):
                self._waiting[order.train_id] = order
        elif isinstance(order, TrialResult):
            shown = Shown(self._sink.shown_path(order.trial))
            if self._is_all or not is_shown(shown, order, self._entry.name, self._results_dir):
                self._ended[order.trial.train_id] = order
        elif isinstance(order, Record):
            self._show()  # the answer comes after the trials
            self._sink.conclude(order)
        return order is not None

    def _show(self) -> None:
        """Open what can be opened, show new rows, and end what has ended."""
        for trial in [*self._waiting.values(), *(result.trial for result in self._ended.values())]:
            self._open(trial)
        for train_id in list(self._open_runs):
            self._show_new_rows(train_id)
            if train_id in self._ended:
                self._end(train_id)

    def _open(self, trial: Trial) -> None:
        train_id, path = trial.train_id, self._sink.shown_path(trial)
        if train_id in self._open_runs:
            return
        lock = try_lock(path.with_suffix(".lock"))
        if lock is None:
            return
        self._waiting.pop(train_id, None)
        try:
            run, shown = self._sink.open(trial), Shown(path)
        except BaseException:
            lock.release()
            raise
        if run.num_there is not None:
            shown.keep(run.num_there)
        folder = trial_folder(self._results_dir, train_id)
        self._open_runs[train_id] = _Open(run, Follower(folder.metrics), folder, shown, lock)

    def _show_new_rows(self, train_id: str) -> None:
        live = self._open_runs[train_id]
        self._show_rows(live, {key_of(row): row for row in live.follower.new_rows()})

    def _show_rows(self, live: _Open, rows: Mapping[str, Mapping[str, Any]]) -> None:
        """Those of them that were not shown yet."""
        new = {key: row for key, row in rows.items() if key not in live.shown}
        if new:
            live.shown.add(list(new))
        for row in new.values():
            live.run.log(row, live.folder)

    def _end(self, train_id: str) -> None:
        live, result = self._open_runs[train_id], self._ended.pop(train_id)
        self._waiting.pop(train_id, None)
        later = {key_of(row): row for row in map(score_row, result.scores)}  # refined, confirmed: not in metrics.jsonl
        self._show_rows(live, later)
        answer = to_json(result.answer) if result.answer else None
        key = f"end:{stable_hash([result.status, answer, [score.score_id for score in result.scores]])}"
        if key not in live.shown:
            live.shown.add([key])
            live.run.log_end(result, live.folder)
        live.run.summarise(result, [*(name for name in live.shown.sweeps if name != self._entry.name),
                                    self._entry.name])
        self._finish(train_id, result)

    def _finish(self, train_id: str, ended: TrialResult | None = None) -> None:
        """Let a run go; the list says that it was shown to its end only if all was sent."""
        live = self._open_runs.pop(train_id)
        try:
            live.run.finish()
            if ended is not None:
                live.shown.end(self._entry.name, is_final=ended.status != FAILED)  # a failed trial is tried again
        except (Exception, SystemExit) as error:
            self._fail("could not end a run", error)
        finally:
            live.lock.release()

    def _fail(self, what: str, error: BaseException) -> None:
        """Said once: a dead network fails every run."""
        if self._is_on:
            self._is_on = False
            self._say(f"{self._sink.name} {what}, {type(error).__name__}: {error}; {self._sink.how_to_send()}")

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a full disk; the sweep itself will say so
            note(self._sweep_dir, text)
