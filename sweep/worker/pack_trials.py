"""The trials of a pack that are not done: what its places, its training and its scoring share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from sweep.errors import is_out_of_memory
from sweep.model.base import Base
from sweep.reg_images import draw_missing
from sweep.stopping import Stopped, is_stop_asked
from sweep.training.pack import Member
from sweep.trial import RUNNING, PackSpec
from sweep.worker.checkpoints import member_of
from sweep.worker.trial_run import TrialRun

T = TypeVar("T")


class PackTrials:
    """Those that train and those that wait for a place, until each is done.

    by_id: the trials, by train id. placed: who has a place, or is just getting one. waiting: who has none, with the
    step to go on from. ready: made for the probe of memory, not in a pack yet.
    """

    def __init__(self, base: Base, runs: Sequence[TrialRun], spec: PackSpec):
        self.base, self.spec = base, spec
        self.by_id = {run.trial.train_id: run for run in runs}
        self.placed: list[str] = []
        self.waiting: dict[str, int] = {}
        self.ready: dict[str, Member] = {}
        self._control = Path(spec.control)

    @property
    def state_dirs(self) -> dict[str, Path]:
        return {i: run.folder.state for i, run in self.by_id.items()}

    def member(self, run: TrialRun) -> Member | None:
        """A trial ready for the pack; None if its photos can't be read, which is then its result."""
        if run.trial.train_id in self.ready:
            return self.ready.pop(run.trial.train_id)
        return self.or_fail(run, lambda: self._made(run))

    def or_fail(self, run: TrialRun, make: Callable[[], T]) -> T | None:
        """What is made for a trial; None if it can't be, which is then its result. Raises Stopped, and what says that
        memory ran out: that is the pack's matter."""
        try:
            return make()
        except Stopped:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            run.fail(error)
            self.release(run)
            return None

    def _made(self, run: TrialRun) -> Member:
        draw_missing(self.base, run.dataset, say=run.say, on_progress=partial(self._note_drawing, run))
        return member_of(run, self.base, Path(self.spec.results_dir), self.stop_if_asked)

    def _note_drawing(self, run: TrialRun, num_done: int, num_all: int) -> None:
        """Regularisation images that no trial has needed before; what has been drawn is kept."""
        run.update(status=RUNNING, phase="drawing" if num_done < num_all else "training")
        self.stop_if_asked(num_done, num_all)

    def release(self, run: TrialRun) -> None:
        """A trial is done, or can't be trained."""
        self.by_id.pop(run.trial.train_id, None)
        self.waiting.pop(run.trial.train_id, None)
        run.lock.release()

    def is_stop_asked(self) -> bool:
        return is_stop_asked(self._control)

    def stop_if_asked(self, num_done: int, num_all: int) -> None:
        """Between two batches of images, or two photos: what was drawn or encoded is kept."""
        if self.is_stop_asked():
            raise Stopped
