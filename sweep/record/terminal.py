"""What a person sees while a sweep runs: live bars at a terminal, single lines in a log, and the answer at the end."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from sweep.comparison import cautious
from sweep.limits import breach
from sweep.methods import file_word
from sweep.record.best import choices_of
from sweep.record.cost import saved_words
from sweep.record.entry import SweepEntry
from sweep.record.sentences import answer_sentence, figure, value_text
from sweep.trial import DONE, FINISHED, RUNNING, WAITING, Score, Trial, TrialResult

if TYPE_CHECKING:
    from rich.console import RenderableType

_BAR_WIDTH = 16  # characters
_MAX_LABEL_CHARS = 30
_MAX_LIVE_ROWS = 16
_RATE_WINDOW_S = 60.0
_QUIET_S = 60.0  # a log without a terminal says something at least this often


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far one trial is.

    status: as in the trial's status.json. phase: what its worker does, "training", "scoring" ...; may be empty.
    latest: the newest score, if any.
    """

    status: str
    step: int
    num_steps: int
    phase: str
    latest: Score | None


class View(Protocol):
    """Shows a sweep while it runs. `update` is cheap and may come several times a second."""

    def update(self, progress: Mapping[str, Progress]) -> None:
        """Show how far the trials are, by train_id. Trials that are left out keep what was last said of them."""

    def add(self, trial: Trial) -> None:
        """A search has proposed one more trial."""

    def close(self) -> None:
        """Leave the terminal as it was. Closing twice is closing once."""


def make_view(trials: Sequence[Trial], name: str, *, so_far: Mapping[str, Progress] | None = None,
              limits: Mapping[str, float] | None = None, stream: TextIO | None = None,
              clock: Callable[[], float] = time.monotonic) -> View:
    """A live view if the stream is a terminal that rich can draw on, else one line per event.

    so_far: where trials stand that earlier runs have finished, by train_id. limits: of the search; what breaks one is
    never called the best. stream: standard output if None. clock: seconds.
    """
    stream = stream or sys.stdout
    standing = _Standing(trials, so_far or {}, limits or {}, clock)
    can_redraw = stream.isatty() and os.environ.get("TERM") != "dumb"
    if can_redraw and importlib.util.find_spec("rich") is not None:
        return LiveView(standing, name, stream)
    return LineView(standing, name, stream, clock)


class _Standing:
    """What both views know: the last progress of each trial and the rate of steps over the last minute."""

    def __init__(self, trials: Sequence[Trial], so_far: Mapping[str, Progress], limits: Mapping[str, float],
                 clock: Callable[[], float]) -> None:
        self._clock = clock
        self._limits = limits
        self.trials: dict[str, Trial] = {}
        self.progress: dict[str, Progress] = {}
        for trial in trials:
            self.add(trial)
        self.num_steps_done = 0
        self._best: dict[str, Score] = {}  # of each trial, of the checkpoints seen here
        self._marks: deque[tuple[float, int]] = deque()
        self._take(so_far)

    def add(self, trial: Trial) -> None:
        if trial.train_id not in self.trials:
            self.trials[trial.train_id] = trial
            self.progress[trial.train_id] = Progress(status=WAITING, step=0, num_steps=trial.num_steps, phase="",
                                                     latest=None)

    def take(self, progress: Mapping[str, Progress]) -> None:
        self._take(progress)
        if not self._marks:
            # What a resume or another sweep has already trained is not part of this run's rate.
            self._marks.append((self._clock(), self.num_steps_done))
        self._marks.append((self._clock(), self.num_steps_done))
        while len(self._marks) > 2 and self._marks[0][0] < self._clock() - _RATE_WINDOW_S:
            self._marks.popleft()

    def _take(self, progress: Mapping[str, Progress]) -> None:
        for key, now in progress.items():
            if key in self.trials:
                self.num_steps_done += now.step - self.progress[key].step
                self.progress[key] = now
                if now.latest is not None and not breach(self._limits, now.latest):
                    self._best[key] = max(now.latest, self._best.get(key, now.latest), key=cautious)

    @property
    def steps_per_s(self) -> float | None:
        """Of all trials together; None until it can be known."""
        if len(self._marks) < 2:
            return None
        (t0, n0), (t1, n1) = self._marks[0], self._marks[-1]
        return (n1 - n0) / (t1 - t0) if t1 > t0 and n1 > n0 else None

    @property
    def left_s(self) -> float | None:
        """Seconds of training left at the present rate; scoring comes on top."""
        left = sum(p.num_steps - p.step for p in self.progress.values() if p.status not in FINISHED)
        rate = self.steps_per_s
        return left / rate if rate else None

    @property
    def best(self) -> tuple[Trial, Score] | None:
        """The trial with the most useful checkpoint so far that breaks no limit; a screening, not the answer."""
        known = [(self.trials[key], score) for key, score in self._best.items() if score.axes["usefulness"].is_valid]
        return max(known, key=lambda item: cautious(item[1]), default=None)

    def summary(self) -> str:
        """One line: trials, steps, rate, time left, best so far."""
        all_steps = sum(p.num_steps for p in self.progress.values())
        finished = sum(p.status in FINISHED for p in self.progress.values())
        parts = [f"{finished}/{len(self.trials)} trials finished", f"{self.num_steps_done}/{all_steps} steps"]
        if self.steps_per_s is not None:
            parts.append(f"{self.steps_per_s:.1f} steps/s")
        if self.left_s:
            parts.append(f"about {duration(self.left_s)} of training left")
        if self.best is not None:
            trial, score = self.best
            parts.append(f"best so far: {label(trial)}, usefulness {_figure_of(score, 'usefulness')}")
        return ", ".join(parts)


class LineView:
    """One line per event, and a summary when nothing else was said for a minute."""

    def __init__(self, standing: _Standing, name: str, stream: TextIO, clock: Callable[[], float]) -> None:
        self._standing = standing
        self._stream = stream
        self._clock = clock
        self._said_s = clock()
        trials = standing.trials.values()
        self._say(f"sweep {name}: {_count(len(trials), 'trial')}, {sum(t.num_steps for t in trials)} steps")

    def update(self, progress: Mapping[str, Progress]) -> None:
        before = {train_id: self._standing.progress[train_id] for train_id in progress
                  if train_id in self._standing.progress}
        self._standing.take(progress)
        for train_id in progress.keys() & self._standing.trials.keys():
            trial = self._standing.trials[train_id]
            for event in _events(trial, before[train_id], self._standing.progress[train_id]):
                self._say(event)
        if self._clock() - self._said_s >= _QUIET_S:
            self._say(self._standing.summary())

    def add(self, trial: Trial) -> None:
        self._standing.add(trial)

    def close(self) -> None:
        pass

    def _say(self, text: str) -> None:
        self._said_s = self._clock()
        say(text, self._stream)


class LiveView:
    """Lines that are redrawn in place, one bar per trial that runs. Needs rich."""

    def __init__(self, standing: _Standing, name: str, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        self._standing = standing
        self._name = name
        self._is_unicode = _can_write(stream, "█░")
        self._live = Live(self._drawing(), console=Console(file=stream), auto_refresh=False)
        self._live.start()

    def update(self, progress: Mapping[str, Progress]) -> None:
        self._standing.take(progress)
        self._live.update(self._drawing(), refresh=True)

    def add(self, trial: Trial) -> None:
        self._standing.add(trial)

    def close(self) -> None:
        self._live.stop()

    def _drawing(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        standing = self._standing
        rank = {RUNNING: 0, WAITING: 2}
        rows = sorted(standing.progress.items(), key=lambda item: rank.get(item[1].status, 1))
        shown = sorted(rows[:_MAX_LIVE_ROWS], key=lambda item: standing.trials[item[0]].number)
        labels = [label(standing.trials[train_id])[:_MAX_LABEL_CHARS] for train_id, _ in shown]
        lines = [f"sweep {self._name}"]
        for name, (_, progress) in zip(labels, shown, strict=True):
            bar = progress_bar(progress.step, progress.num_steps, is_unicode=self._is_unicode)
            steps = f"{progress.step}/{progress.num_steps}"
            lines.append(f"{name.ljust(max(map(len, labels)))} {bar} {steps:>11} {stage_word(progress):8} "
                         f"{_latest(progress.latest)}".rstrip())
        if len(rows) > _MAX_LIVE_ROWS:
            lines.append(f"and {len(rows) - _MAX_LIVE_ROWS} more")
        # The bars are cropped to the width, the last line wraps: what stands rightmost is the least needed.
        return Group(Text("\n".join(lines), no_wrap=True, overflow="crop"), Text(standing.summary()))


def show_plan(name: str, trials: Sequence[Trial], *, already_done: Sequence[str] = (),
              steps_left: Callable[[Trial], int] = lambda trial: trial.num_steps, num_packs: int | None = None,
              num_files: int | None = None, estimated_s: float | None = None, room: str = "",
              stream: TextIO | None = None) -> None:
    """What would run, in how many steps, files and minutes. What isn't known is left out.

    already_done: train_ids of trials that have been trained before, by this sweep or another. steps_left: of a trial
    that was interrupted fewer than all. room: how many train at a
    time, and what they take.
    """
    todo = [trial for trial in trials if trial.train_id not in already_done and not trial.refused]
    num_refused = sum(bool(trial.refused) for trial in trials)
    refused = f", {num_refused} refused" if num_refused else ""
    num_done = len(trials) - len(todo) - num_refused
    say(f"sweep {name}: {_count(len(trials), 'trial')}, {num_done} already done{refused}", stream)
    for trial in trials:
        left = steps_left(trial)
        state = f"{left} of {trial.num_steps} steps left" if left < trial.num_steps else f"{trial.num_steps} steps"
        state = "done" if trial.train_id in already_done else state
        state = f"refused: {' '.join(trial.refused.split())}" if trial.refused else state
        say(f"  {label(trial)}: {state}", stream)
    parts = [f"{sum(map(steps_left, todo))} steps"]
    if num_packs is not None:
        parts.append(_count(num_packs, "pack"))
    if room:
        parts.append(room)
    if num_files is not None:
        parts.append(_count(num_files, file_word(todo)))
    if estimated_s is not None:
        parts.append(f"about {duration(estimated_s)}")
    say(f"to do: {', '.join(parts)}" if todo else "nothing to do: all trials are done", stream)


def show_results(entry: SweepEntry, results: Sequence[TrialResult], sweep_dir: Path, *,
                 stream: TextIO | None = None) -> None:
    """The table, the sentence that names the file, and where the diary lies."""
    header = ["trial", *entry.swept_keys, "steps", "likeness", "adherence", "usefulness", "verdict", "strength", "min"]
    rows = [header] + [_result_row(entry, *each) for each in zip(results, choices_of(results), strict=True)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    for row in rows:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip(), stream)
    for result in results:
        if result.status != DONE and result.reason:
            reason = " ".join(result.reason.split()).removeprefix(f"{result.status}: ")
            say(f"trial {result.trial.number} {result.status}: {reason}", stream)
        if result.breach:
            say(f"trial {result.trial.number} breaks a limit: {result.breach}", stream)
    if saved := saved_words(results):
        say(saved, stream)
    say("", stream)
    say(answer_sentence(entry, results, sweep_dir.parent.as_posix()).replace("`", ""), stream)
    say(f"diary: {sweep_dir / 'diary.md'}", stream)
    for name, path in (("report", sweep_dir / "report.html"), ("to publish", sweep_dir / "publish")):
        if path.exists():
            say(f"{name}: {path}", stream)


def say(text: str, stream: TextIO | None = None) -> None:
    """One line; characters that the terminal can't write become "?"."""
    stream = stream or sys.stdout
    if not _can_write(stream, text):
        encoding = getattr(stream, "encoding", None) or "ascii"
        text = text.encode(encoding, "replace").decode(encoding)
    stream.write(text + "\n")
    stream.flush()


def stage_word(progress: Progress) -> str:
    """"waiting", "training", "scoring", "done", "failed" or "diverged"."""
    return (progress.phase or "training") if progress.status == RUNNING else progress.status


def progress_bar(step: int, num_steps: int, *, is_unicode: bool) -> str:
    """A bar of fixed width, full at num_steps."""
    full, empty = ("█", "░") if is_unicode else ("#", "-")
    filled = min(_BAR_WIDTH, _BAR_WIDTH * step // max(num_steps, 1))
    return full * filled + empty * (_BAR_WIDTH - filled)


def label(trial: Trial) -> str:
    """A trial in a few words: "2 network_dim=32"."""
    return " ".join([str(trial.number), *(f"{key}={value_text(value)}" for key, value in trial.settings.items())])


def duration(seconds: float) -> str:
    """"40 s", "12 min" or "3 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def _events(trial: Trial, before: Progress, now: Progress) -> list[str]:
    events = []
    if _is_at_work(now) and not _is_at_work(before):
        events.append(f"trial {label(trial)}: started at step {now.step} of {now.num_steps}")
    if now.latest is not None and (before.latest is None or before.latest.score_id != now.latest.score_id):
        events.append(f"trial {label(trial)}: {_latest(now.latest)}")
    if now.status in FINISHED and before.status != now.status:
        events.append(f"trial {label(trial)}: {now.status} at step {now.step} of {now.num_steps}")
    return events


def _is_at_work(progress: Progress) -> bool:
    return progress.status == RUNNING and progress.phase != "loading"


def _latest(score: Score | None) -> str:
    if score is None:
        return ""
    so_far = "" if "bleed" in score.details else " before bleed"  # a screen draws no class prompts: never higher after
    return (f"step {score.step}: likeness {_figure_of(score, 'likeness')}, usefulness "
            f"{_figure_of(score, 'usefulness')}{so_far}, {score.verdict}")


def _result_row(entry: SweepEntry, result: TrialResult, choice: str) -> list[str]:
    score = result.answer.score if result.answer else None
    number = f"{result.trial.number} ({choice})" if choice else str(result.trial.number)
    settings = [value_text(result.trial.settings.get(key)) for key in entry.swept_keys]
    figures = [_figure_of(score, "likeness"), _figure_of(score, "adherence"),
               figure(score.axes.get("usefulness")) if score else ""]
    return [number, *settings, str(result.step), *figures, score.verdict if score else result.status,
            f"{result.answer.strength:g}" if result.answer else "", f"{result.attributed_s / 60:.1f}"]


def _figure_of(score: Score | None, name: str) -> str:
    axis = score.axes.get(name) if score else None
    return f"{axis.value:.2f}" if axis is not None and axis.value is not None else ""


def _can_write(stream: Any, text: str) -> bool:
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
