"""What a person may say about dashboards; `tracker=[wandb,tensorboard]` chooses several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweep.errors import ConfigError
from sweep.schema import bounds, build, near_match, one_of


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
    wait_s: int = bounds(1, 86_400)
    # how long the end of a sweep may wait for what is unsent


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorboardConfig:
    """TensorBoard's event files, in results/<sweep>/tensorboard."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NoTracker:
    """The record on disk alone."""

    name: str


TRACKERS: dict[str, type] = {"wandb": WandbConfig, "tensorboard": TensorboardConfig, "none": NoTracker}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackersConfig:
    """Those that were chosen, in order."""

    chosen: tuple[Any, ...]


def trackers_from_tree(tree: Any) -> TrackersConfig:
    """From the composed group: member -> its keys. Raises ConfigError for an unknown member."""
    if not isinstance(tree, Mapping):
        raise ConfigError(f"tracker = {tree!r} must name trackers: {', '.join(TRACKERS)}, or several as "
                          "tracker=[wandb,tensorboard].")
    for name in tree:
        if name not in TRACKERS:
            raise ConfigError(f'Unknown key "tracker.{name}".{near_match(str(name), TRACKERS)} Settings of a tracker '
                              f"are tracker.NAME.KEY, e.g. tracker.wandb.project; known: {', '.join(TRACKERS)}.")
    return TrackersConfig(chosen=tuple(build(TRACKERS[name], keys, f"tracker.{name}") for name, keys in tree.items()))
