"""What a trial is known by: the hash of its training config, its photos and its base's weights.

Imports no torch: a resume or a plan must start at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweep.data.dataset import Dataset
from sweep.data.settings import NEUTRAL as DATASET_NEUTRAL
from sweep.data.settings import training_options
from sweep.files import read_json, sha256_of, stable_hash, write_json
from sweep.methods import LORA
from sweep.model.base import BaseModelConfig, PretrainedConfig
from sweep.model.sources import Source, find_base
from sweep.schema import to_tree
from sweep.train_config import TrainConfig

TRAINING_VERSION = 3
"""Raised when a change to the code makes the same config train something else."""

NEUTRAL: Mapping[str, Any] = {
    "prior_loss_weight": 1.0, "steps_per_epoch": None,
    "clip_skip": 1, "max_token_length": 75,
    "loraplus_lr_ratio": None, "ema_decay": None, "gradient_accumulation_steps": 1, "gradient_checkpointing": False,
    "noise_offset": 0.0, "multires_noise_iterations": 0, "multires_noise_discount": 0.3, "ip_noise_gamma": 0.0,
    "min_snr_gamma": None, "debiased_estimation_loss": False, "loss_type": "l2", "huber_c": 0.1,
    "huber_schedule": "snr",
    "method": {"name": "lora"},
    "conv_dim": None, "conv_alpha": None, "network_dropout": 0.0, "rank_dropout": 0.0, "module_dropout": 0.0,
    "scale_weight_norms": None, "network.preset": "full",
}
"""Keys added after version 1 (a group's own as group.key), with the value at which they change nothing: left out of the
hash while they hold it, so that the trials of older versions are found again."""


def train_id(config: TrainConfig, dataset: Dataset, base_id: str) -> str:
    """12 hex digits. Where files lie does not count; what is in them does."""
    tree = to_tree(config)
    tree["base_model"] = {"weights": base_id, "resolution": config.base_model.resolution}
    tree["dataset"] = dataset.identity
    options = training_options(config.dataset, config.base_model.resolution)
    if options:
        tree["dataset_options"] = options
    tree["trigger"], tree["class_noun"] = dataset.trigger, dataset.class_noun
    del tree["repeats"], tree["steps_per_epoch"]  # counted in each photo's own
    if not dataset.reg_photos:
        del tree["prior_loss_weight"]  # weighs nothing
    if config.max_train_steps is not None:
        del tree["max_train_epochs"]  # overridden
    if tree["lr_warmup_steps"] == int(tree["lr_warmup_steps"]):
        tree["lr_warmup_steps"] = int(tree["lr_warmup_steps"])  # whole before shares of all steps were allowed
    if config.network.name == "locon":
        tree["network"] = {**tree["network"], "name": "lora"}  # which conv_dim makes one of
    if config.loraplus_lr_ratio == 1:
        tree["loraplus_lr_ratio"] = None
    for key in _without_effect(config):
        del tree[key]
    return stable_hash([TRAINING_VERSION, without_neutral(tree)])


def _without_effect(config: TrainConfig) -> list[str]:
    """Keys that only refine another, which is off; the rank where the network has none, and the network where the
    method has none."""
    keys = [] if config.multires_noise_iterations else ["multires_noise_discount"]
    if config.method.name != LORA:
        keys += ["network", "network_dim", "network_alpha"]
    elif config.network.name == "ia3":
        keys += ["network_dim", "network_alpha"]
    return keys if config.loss_type != "l2" else [*keys, "huber_c", "huber_schedule"]


def with_neutral(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's config of any version with all keys of today's."""
    whole = {key: value for key, value in NEUTRAL.items() if "." not in key} | dict(tree)
    for key, value in NEUTRAL.items():
        group, _, name = key.rpartition(".")
        if group:
            whole[group] = {name: value, **whole[group]}
    whole["dataset"] = {**DATASET_NEUTRAL, **whole["dataset"]}
    return whole


def without_neutral(tree: Mapping[str, Any], group: str = "") -> dict[str, Any]:
    """A config without the keys that hold their neutral value: as older versions wrote it."""
    return {key: without_neutral(value, f"{group}{key}.") if isinstance(value, Mapping) else value
            for key, value in tree.items()
            if f"{group}{key}" not in NEUTRAL or value != NEUTRAL[f"{group}{key}"]}


def base_identity(config: BaseModelConfig, results_dir: Path) -> str:
    """Hash of all that decides what the base computes; where it lies does not count.

    Raises ModelError or ConfigError if the base can't be loaded.
    """
    return source_identity(find_base(config), config, results_dir)


def source_identity(source: Source, config: BaseModelConfig, results_dir: Path) -> str:
    """`base_identity` of a base that has been found. A file's own hash is remembered by (path, size, change)."""
    parts = [[name, _remembered_sha256(path, results_dir)] for name, path in source.files()]
    if isinstance(config, PretrainedConfig) and config.prediction_type is not None:
        parts.append(["prediction_type", config.prediction_type])
    return stable_hash(parts)


def _remembered_sha256(path: Path, results_dir: Path) -> str:
    memory = results_dir / "cache" / "file_hashes.json"
    stat = path.stat()
    key = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
    try:
        known = read_json(memory) if memory.exists() else {}
    except ValueError:
        known = {}
    if key not in known:
        known[key] = sha256_of(path)
        write_json(memory, known)
    return str(known[key])
