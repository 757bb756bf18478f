"""How many trials of a pack memory holds: the largest is tried, alone, before any takes a place. And what they take."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.network.targets import Target
from sweep.packing import MOST_TRIALS
from sweep.room import Room, largest, note_room
from sweep.training.memory import num_that_fit, trial_bytes
from sweep.worker.pack_trials import PackTrials

if TYPE_CHECKING:
    import torch


def num_places(trials: PackTrials, targets: list[Target], limit: int) -> int:
    """For trials like the largest one, `limit` at most. One that can't be tried fails alone; with none left it is 1."""
    while trials.by_id:
        untrained = [run.trial for run in trials.by_id.values() if not run.status.is_trained]
        run = trials.by_id[largest(untrained or [run.trial for run in trials.by_id.values()]).train_id]
        trials.placed = [run.trial.train_id]
        member = trials.member(run)
        each = None if member is None else trials.or_fail(run, partial(trial_bytes, trials.base, targets, member))
        if member is None or each is None:
            continue
        trials.ready[member.train_id] = member
        num_fit = min(MOST_TRIALS, num_that_fit(trials.base.device, each, trials.spec.threads))
        run.say(f"a trial like this takes {each / 2**30:.2f} GiB: places for {min(limit, num_fit)} at a time")
        note_room(Path(trials.spec.results_dir), run.trial, Room(gib_each=each / 2**30, max_trials=num_fit))
        return min(limit, num_fit)
    return 1


def memory_gib(device: torch.device) -> float:
    """What this process takes, base and all trials together: of a GPU the most since the last call, else what is
    resident now."""
    if device.type == "cuda":
        import torch

        peak = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return peak / 2**30
    import psutil

    return float(psutil.Process().memory_info().rss) / 2**30
