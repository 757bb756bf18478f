"""Weights & Biases as a view of the record: follows each trial's metrics.jsonl, one run per trial.

All of it happens on one background thread, so that neither a slow network nor wandb's start-up holds up the conductor.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.files import read_json, stable_hash, write_json
from sweep.record.entry import SweepEntry
from sweep.record.sweep_log import note
from sweep.record.tracker import WandbConfig
from sweep.schema import to_tree
from sweep.trial import AXES, FAILED, Trial, TrialFolder, TrialResult, trial_folder

if TYPE_CHECKING:
    import wandb

_POLL_S = 1.0
_INIT_TIMEOUT_S = 30
_FINISH_TIMEOUT_S = 120
_MAX_TAG_CHARS = 64  # wandb refuses longer tags


@dataclass
class Marks:
    """What of one trial has been shown. Stored in results/<sweep>/wandb/shown.json.

    steps: kind of row -> the highest step shown. scores: score ids, of which one step may have several.
    """

    steps: dict[str, int] = field(default_factory=dict)
    scores: list[str] = field(default_factory=list)
    has_ended: bool = False

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
class _Run:
    run: wandb.Run
    follower: Follower
    folder: TrialFolder


class WandbTracker:
    """See `sweep.record.tracker.Tracker` for the contract."""

    def __init__(self, config: WandbConfig, mode: str, entry: SweepEntry, sweep_dir: Path, results_dir: Path) -> None:
        self._config = config
        self._mode = mode
        self._entry = entry
        self._sweep_dir = sweep_dir.resolve()
        self._results_dir = results_dir.resolve()
        self._runs: dict[str, _Run] = {}
        self._marks: dict[str, Marks] = {}
        self._orders: queue.Queue[Trial | TrialResult | None] = queue.Queue()
        self._is_on = True
        self._thread = threading.Thread(target=self._work, name="wandb-tracker", daemon=True)
        self._thread.start()

    def follow(self, trial: Trial) -> None:
        self._orders.put(trial)

    def end(self, result: TrialResult) -> None:
        self._orders.put(result)

    def close(self) -> None:
        self._orders.put(None)
        self._thread.join(_INIT_TIMEOUT_S + _FINISH_TIMEOUT_S)
        if self._thread.is_alive() and self._is_on:
            self._is_on = False
            self._say("wandb had not sent everything when the sweep ended")

    def _work(self) -> None:
        is_open = True
        try:
            self._marks = self._read_marks()
            while is_open:
                is_open = self._obey()
                for train_id in list(self._runs):
                    self._show_new_rows(train_id)
        except (Exception, SystemExit) as error:  # whatever wandb raises, the sweep goes on
            self._is_on = False
            self._say(f"wandb is switched off for this sweep after an error, {type(error).__name__}: {error}")
        for train_id in list(self._runs):
            self._finish(train_id)

    def _obey(self) -> bool:
        """Wait for an order, at most until the next poll. False: no more will come."""
        try:
            order = self._orders.get(timeout=_POLL_S)
        except queue.Empty:
            return True
        if isinstance(order, Trial):
            self._open(order)
        elif isinstance(order, TrialResult):
            self._end(order)
        return order is not None

    def _open(self, trial: Trial) -> None:
        if trial.train_id in self._runs or self._marks.setdefault(trial.train_id, Marks()).has_ended:
            return
        import wandb

        wandb_dir = self._sweep_dir / "wandb"
        wandb_dir.mkdir(parents=True, exist_ok=True)  # without it wandb falls back to a temporary folder
        settings = wandb.Settings(init_timeout=_INIT_TIMEOUT_S, finish_timeout=_FINISH_TIMEOUT_S, silent=True,
                                  console="off", symlink=False, disable_git=True, x_disable_stats=True)
        run = wandb.init(
            project=self._config.project, entity=self._config.entity, id=run_id(self._entry.name, trial.train_id),
            group=self._entry.name, name=_run_name(self._entry.name, trial), config=flat(to_tree(trial.config)),
            dir=str(self._sweep_dir), mode="online" if self._mode == "online" else "offline", reinit="create_new",
            settings=settings, resume="allow" if self._mode == "online" else None)
        run.define_metric("step")
        run.define_metric("*", step_metric="step")
        folder = trial_folder(self._results_dir, trial.train_id)
        self._runs[trial.train_id] = _Run(run, Follower(folder.metrics), folder)

    def _end(self, result: TrialResult) -> None:
        train_id = result.trial.train_id
        self._open(result.trial)
        if train_id not in self._runs:
            return  # shown to its end by an earlier start of the sweep
        self._show_new_rows(train_id)
        run = self._runs[train_id].run
        run.summary.update(summary_of(result))
        run.tags = (*(tag for tag in run.tags or () if tag != FAILED), tag_of(result))
        self._finish(train_id)
        self._marks[train_id].has_ended = result.status != FAILED  # the same command tries a failed trial again
        self._write_marks()

    def _show_new_rows(self, train_id: str) -> None:
        live, marks = self._runs[train_id], self._marks[train_id]
        new = [row for row in live.follower.new_rows() if "kind" in row and "step" in row and marks.take(row)]
        for row in new:
            live.run.log(payload(row) | _picture(row, live.folder))
        if new:
            self._write_marks()

    def _finish(self, train_id: str) -> None:
        live = self._runs.pop(train_id)
        try:
            live.run.finish()
        except (Exception, SystemExit) as error:
            if self._is_on:
                self._is_on = False
                self._say(f"wandb could not end a run, {type(error).__name__}: {error}")

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a full disk; the sweep itself will say so
            note(self._sweep_dir, text)

    @property
    def _marks_path(self) -> Path:
        return self._sweep_dir / "wandb" / "shown.json"

    def _read_marks(self) -> dict[str, Marks]:
        if not self._marks_path.exists():
            return {}
        return {train_id: Marks(**marks) for train_id, marks in read_json(self._marks_path).items()}

    def _write_marks(self) -> None:
        write_json(self._marks_path, {train_id: vars(marks) for train_id, marks in self._marks.items()})


def payload(row: Mapping[str, Any]) -> dict[str, Any]:
    """What one row of metrics.jsonl becomes on the dashboard: "train/loss", "screen/likeness" ..., by `step`."""
    kind = row["kind"]
    shown: dict[str, Any] = {key: row[key] for key in ("step", "epoch") if row.get(key) is not None}
    if kind == "score":
        score = row["score"]
        stage = score["stage"]
        for name, axis in score["axes"].items():
            for suffix, part in (("", "value"), ("_low", "low"), ("_high", "high")):
                if axis[part] is not None:
                    shown[f"{stage}/{name}{suffix}"] = axis[part]
        details = {name: value for name, value in score["details"].items() if value is not None}
        shown |= {f"{stage}/details/{name}": value for name, value in details.items()}
        return shown | {f"{stage}/strength": score["strength"], f"{stage}/verdict": score["verdict"]}
    rest = {k: v for k, v in row.items() if k not in ("kind", "step", "epoch") and v is not None}
    for key, value in rest.items():
        named = value if isinstance(value, Mapping) else {"": value}  # a validation's buckets have names of their own
        shown |= {f"{kind}/{key}/{name}".removesuffix("/"): each for name, each in named.items()}
    return shown


def summary_of(result: TrialResult) -> dict[str, Any]:
    """A trial's end as flat values: its answer's axes with intervals, verdict, file and strength, cost, reason (also
    when it is empty, as an earlier try may have left one)."""
    summary: dict[str, Any] = {"number": result.trial.number, "status": result.status, "steps": result.step,
                               "attributed_minutes": result.attributed_s / 60, "reason": result.reason}
    if result.answer is None:
        return summary
    score = result.answer.score
    summary |= {"verdict": score.verdict, "file": result.answer.file, "strength": result.answer.strength}
    for name in AXES:
        axis = score.axes.get(name)
        if axis is not None:
            bounds = {name: axis.value, f"{name}_low": axis.low, f"{name}_high": axis.high}
            summary |= {key: value for key, value in bounds.items() if value is not None}
    return summary


def tag_of(result: TrialResult) -> str:
    """The verdict, or the status of a trial without one."""
    return (result.answer.score.verdict if result.answer else result.status)[:_MAX_TAG_CHARS]


def flat(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """A plain tree with dotted keys; lists stay values."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{path}.{key}" if path else str(key)
        leaves |= flat(value, name) if isinstance(value, Mapping) and value else {name: value}
    return leaves


def run_id(sweep_name: str, train_id: str) -> str:
    """A trial that two sweeps share is a run of each, so that neither adds its rows to the other's."""
    return f"{train_id}-{stable_hash([sweep_name, train_id], num_digits=6)}"


def _picture(row: Mapping[str, Any], folder: TrialFolder) -> dict[str, Any]:
    """The contact sheet of a score."""
    if row["kind"] != "score":
        return {}
    path = folder.images / f"{row['score']['score_id']}.png"
    if not path.exists():
        return {}
    import wandb

    return {f"{row['score']['stage']}/sheet": wandb.Image(os.fspath(path))}


def _run_name(sweep_name: str, trial: Trial) -> str:
    return f"{sweep_name}-{trial.number:03d}"
