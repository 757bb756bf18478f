"""Trackers: other people's dashboards as views of the record. They read what the trials' folders say, never more."""

from __future__ import annotations

import netrc
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlparse

from sweep.errors import ConfigError
from sweep.record.entry import SweepEntry
from sweep.schema import one_of
from sweep.trial import Trial, TrialResult


@dataclass(frozen=True, slots=True, kw_only=True)
class WandbConfig:
    """Weights & Biases: one run per trial, all in one group."""

    name: str
    project: str
    # the project of the runs; made if it does not exist
    entity: str | None
    # the user or team; null = the key's own
    mode: str = one_of("auto", "online", "offline")
    # auto = online if there is an API key, else offline into results/<sweep>/wandb


@dataclass(frozen=True, slots=True, kw_only=True)
class NoTracker:
    """The record on disk alone."""

    name: str


TRACKERS: dict[str, type] = {"wandb": WandbConfig, "none": NoTracker}


class Tracker(Protocol):
    """Follows trials and shows them elsewhere. The contract of every tracker:

    - It reads the trials' folders and changes nothing in them; without it the results are the same.
    - No method raises and none waits for a network, but `close`, which waits a bounded time for what is unsent.
    - The first failure is said once, in `sweep.log`, and switches the tracker off for the rest of the sweep.
    - A row is shown once, however often a trial is rewound by a resume, and however often the sweep is started again.
    - It never asks a question.
    """

    def follow(self, trial: Trial) -> None:
        """Begin to show a trial, from what its folder already holds. Following twice is following once."""

    def end(self, result: TrialResult) -> None:
        """Show what is left of a finished trial and its scores, and end its run."""

    def close(self) -> None:
        """End all runs; those of unfinished trials go on when the sweep does."""


class SilentTracker:
    """Shows nothing."""

    def follow(self, trial: Trial) -> None:
        pass

    def end(self, result: TrialResult) -> None:
        pass

    def close(self) -> None:
        pass


def make_tracker(config: WandbConfig | NoTracker, entry: SweepEntry, sweep_dir: Path, results_dir: Path) -> Tracker:
    """The tracker of a config. Raises ConfigError if wandb must be online and has no API key."""
    if isinstance(config, NoTracker):
        return SilentTracker()
    mode = wandb_mode(config)
    if mode == "disabled":
        return SilentTracker()
    from sweep.record.wandb_tracker import WandbTracker

    return WandbTracker(config, mode, entry, sweep_dir, results_dir)


def wandb_mode(config: WandbConfig) -> str:
    """ "online", "offline" or "disabled". Decided here because wandb itself asks at a terminal, fails without one, and
    waits for minutes when it has a key and no network. WANDB_MODE, wandb's own switch, is heeded under "auto".
    """
    has_key = has_wandb_key()
    if config.mode == "online" and not has_key:
        raise ConfigError("tracker.mode=online needs an API key and there is none. Run `wandb login`, set "
                          "WANDB_API_KEY, or choose tracker.mode=offline or tracker=none.")
    if config.mode != "auto":
        return config.mode
    asked = os.environ.get("WANDB_MODE", "")
    if asked in ("offline", "dryrun"):
        return "offline"
    if asked == "disabled":
        return asked
    return "online" if has_key else "offline"


def has_wandb_key() -> bool:
    """Whether wandb would find a key without asking: WANDB_API_KEY, or an entry for its host in the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    named = os.environ.get("NETRC")
    paths = [Path(named).expanduser()] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]
    for path in paths:
        try:
            if host and netrc.netrc(str(path)).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False
