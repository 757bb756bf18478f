"""Trackers: other people's dashboards as views of the record. They read what the trials' folders say, never more."""

from __future__ import annotations

import configparser
import contextlib
import netrc
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import urlparse

from sweep.errors import ConfigError
from sweep.record.entry import SweepEntry
from sweep.record.exporter import Exporter, Sink
from sweep.record.facts import Record
from sweep.record.settings import TensorboardConfig, TrackersConfig, WandbConfig
from sweep.trial import Trial, TrialResult


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

    def conclude(self, record: Record) -> None:
        """Show the sweep's answer, when its views are written."""

    def close(self) -> None:
        """End all runs; those of unfinished trials go on when the sweep does."""


class Trackers:
    """Several as one; none is a tracker that shows nothing."""

    def __init__(self, members: Sequence[Tracker]) -> None:
        self._members = members

    def follow(self, trial: Trial) -> None:
        for member in self._members:
            member.follow(trial)

    def end(self, result: TrialResult) -> None:
        for member in self._members:
            member.end(result)

    def conclude(self, record: Record) -> None:
        for member in self._members:
            member.conclude(record)

    def close(self) -> None:
        for member in self._members:
            member.close()


def make_tracker(config: TrackersConfig, entry: SweepEntry, sweep_dir: Path, results_dir: Path) -> Tracker:
    """The trackers of a config as one. Raises ConfigError if wandb must be online and has no API key."""
    sinks: list[Sink] = []
    for chosen in config.chosen:
        if isinstance(chosen, WandbConfig) and (mode := wandb_mode(chosen)) != "disabled":
            from sweep.record.wandb_sink import WandbSink

            sinks.append(WandbSink(chosen, mode, entry, sweep_dir, results_dir))
        elif isinstance(chosen, TensorboardConfig):
            from sweep.record.tensorboard_sink import TensorboardSink

            sinks.append(TensorboardSink(entry, sweep_dir))
    return Trackers([Exporter(sink, entry, sweep_dir, results_dir) for sink in sinks])


def wandb_mode(config: WandbConfig) -> str:
    """ "online", "offline" or "disabled". Decided here because wandb itself asks at a terminal, fails without one, and
    waits for minutes when it has a key and no network. WANDB_MODE, wandb's own switch, is heeded under "auto".
    """
    has_key = has_wandb_key()
    if config.mode == "online" and not has_key:
        raise ConfigError("tracker.wandb.mode=online needs an API key and there is none. Run `wandb login`, set "
                          "WANDB_API_KEY, or choose tracker.wandb.mode=offline or tracker=none.")
    if config.mode != "auto":
        return config.mode
    asked = os.environ.get("WANDB_MODE", "")
    if asked in ("offline", "dryrun"):
        return "offline"
    if asked == "disabled":
        return asked
    return "online" if has_key else "offline"


def has_wandb_key() -> bool:
    """Whether wandb would find a key without asking: WANDB_API_KEY, or an entry for its host in the netrc file, where
    `wandb login` writes it."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(_wandb_address()).netloc  # with the port, as wandb does
    named = os.environ.get("NETRC")
    paths = [Path(named).expanduser()] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]
    for path in paths:
        try:
            if host and netrc.netrc(str(path)).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


def _wandb_address() -> str:
    """Where wandb would send to: WANDB_BASE_URL, or what `wandb login --host` left in wandb's settings."""
    if address := os.environ.get("WANDB_BASE_URL"):
        return address
    settings = configparser.ConfigParser(interpolation=None)
    folder = Path(os.environ.get("WANDB_CONFIG_DIR") or Path.home() / ".config" / "wandb")
    with contextlib.suppress(OSError, UnicodeDecodeError, configparser.Error):
        settings.read([folder / "settings", Path("wandb") / "settings"], encoding="utf-8")
    return settings.get("default", "base_url", fallback="https://api.wandb.ai")
