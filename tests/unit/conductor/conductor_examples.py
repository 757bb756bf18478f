"""A small search, and what a sweep named "s" leaves in a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import optuna

from sweep.search.storage import _journal
from sweep.trial import TrialResult

Sweeper = Callable[..., list[TrialResult]]
SEARCH = ("search=tpe", "unet_lr=tag(log,interval(1e-6,1e-2))", "network_dim=choice(8,32,128)",
          "search.num_startup_trials=4", "pack.max_trials=2")


def study_of(folder: Path) -> optuna.Study:
    storage = optuna.storages.JournalStorage(_journal(folder / "s" / "study.log"))
    return optuna.load_study(study_name="s", storage=storage)


def log_of(folder: Path) -> str:
    return (folder / "s" / "sweep.log").read_text()
