"""The one boundary between YAML and code: Hydra's composed config in, a typed and checked `RunConfig` out.

Beyond it no DictConfig is seen. Components own their settings' dataclasses; here they are put together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweep.command_line import CONF_DIR
from sweep.errors import ConfigError
from sweep.evaluation.settings import SCORINGS
from sweep.launch.settings import LAUNCHERS
from sweep.record.settings import TrackersConfig, trackers_from_tree
from sweep.record.use import UseConfig
from sweep.redact import without_secrets
from sweep.schema import bounds, build, family
from sweep.search.settings import SEARCHES
from sweep.train_config import TrainConfig

if TYPE_CHECKING:
    from omegaconf import DictConfig

@dataclass(frozen=True, slots=True, kw_only=True)
class PackConfig:
    """How trials share a worker. Alters no result beyond rounding."""

    max_trials: int | None = bounds(1, 1024)
    save_state_every_n_steps: int = bounds(1)
    max_retries: int = bounds(0, 100)


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepConfig:
    """The sweep's name and place. name: null = made from the swept keys."""

    name: str | None
    results_dir: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """One cell of the grid, whole."""

    train: TrainConfig
    scoring: Any = family(SCORINGS)
    search: Any = family(SEARCHES)
    launcher: Any = family(LAUNCHERS)
    tracker: TrackersConfig
    pack: PackConfig
    sweep: SweepConfig
    use: UseConfig
    validate: bool
    plan: bool
    early_stop: int | None = bounds(1)
    note: str


_RUN_KEYS = ("scoring", "search", "launcher", "tracker", "pack", "sweep", "use", "validate", "plan", "early_stop",
             "note")


def load(cfg: DictConfig) -> RunConfig:
    """Check a composed config and make it typed.

    Raises ConfigError naming the key, what was given and what is allowed.
    """
    from omegaconf import OmegaConf

    refuse_resolvers(OmegaConf.to_container(cfg, resolve=False))
    return from_tree(plain_tree(cfg))


def plain_tree(cfg: DictConfig) -> dict[str, Any]:
    """A composed config with its references resolved. Raises ConfigError for a reference to nothing."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        tree = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"The config refers to something that does not exist: {error}") from error
    assert isinstance(tree, dict)
    return {str(key): value for key, value in tree.items()}


def compose(overrides: Sequence[str]) -> RunConfig:
    """What `python train.py OVERRIDES` would run, for tools that start nothing.

    Raises ConfigError.
    """
    import hydra
    from hydra.errors import HydraException

    try:
        with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            return load(hydra.compose("config", list(overrides)))
    except HydraException as error:
        raise ConfigError(str(error)) from error


def from_tree(tree: Mapping[str, Any]) -> RunConfig:
    """The typed config of a plain tree with flat training keys, "auto" values resolved."""
    if isinstance(tree.get("experiment"), Mapping):
        raise ConfigError("An experiment's keys were put under experiment., where they have no effect: its file must "
                          "begin with the line\n# @package _global_")
    run = {key: tree[key] for key in _RUN_KEYS if key in tree}
    if isinstance(run.get("note"), str):
        run["note"] = without_secrets(run["note"])  # before anything keeps it
    if "tracker" in run:
        run["tracker"] = trackers_from_tree(run["tracker"])
    return build(RunConfig, {**run, "train": train_part(tree)})


def train_part(tree: Mapping[str, Any]) -> TrainConfig:
    """What a trial trains, of the same plain tree."""
    train = {key: value for key, value in tree.items() if key not in (*_RUN_KEYS, "experiment")}
    return build(TrainConfig, _resolved(train))


def _resolved(train: dict[str, Any]) -> dict[str, Any]:
    """sd-scripts reads an alpha of 0 or none as alpha = dim; the rates that a method or an optimizer brings have
    already gone into the flat keys by interpolation."""
    if train.get("network_alpha") in (None, 0):
        train["network_alpha"] = train.get("network_dim")
    if train.get("conv_alpha") in (None, 0):
        train["conv_alpha"] = train.get("conv_dim")
    for group in ("method", "optimizer"):
        brings = train.get(group)
        if isinstance(brings, Mapping):
            train[group] = {k: v for k, v in brings.items() if k not in ("unet_lr", "text_encoder_lr")}
    return train


def refuse_resolvers(node: Any, path: str = "") -> None:
    """Values that change from run to run can't be part of an identity."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            refuse_resolvers(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for item in node:
            refuse_resolvers(item, path)
    elif isinstance(node, str) and (match := re.search(r"\$\{\s*([\w.]+)\s*:", node)):
        raise ConfigError(f"{path} = {node!r}: ${{{match[1]}:...}} changes from run to run, so a trial could not be "
                          "found again. Write the value itself.")
