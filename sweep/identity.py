"""What a trial is known by: the hash of its training config, its photos and its base's weights.

Imports no torch: a resume or a plan must start at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweep.data.folder import Dataset
from sweep.data.settings import training_options
from sweep.files import read_json, sha256_of, stable_hash, write_json
from sweep.model.base import BaseModelConfig, base_folder, weights_files
from sweep.schema import to_tree
from sweep.train_config import TrainConfig

TRAINING_VERSION = 1
"""Raised when a change to the code makes the same config train something else."""

NEUTRAL: Mapping[str, Any] = {
    "dataset_options": {},
    "gradient_accumulation_steps": 1,
    "prior_loss_weight": 1.0,
}
"""Keys added after version 1, with the value at which they change nothing: left out of the hash while they hold it, so
that the trials of older versions are found again."""


def train_id(config: TrainConfig, dataset: Dataset, base_id: str) -> str:
    """12 hex digits. Where files lie does not count; what is in them does."""
    tree = to_tree(config)
    tree["base_model"] = {"weights": base_id, "resolution": config.base_model.resolution}
    tree["dataset"] = dataset.identity
    tree["dataset_options"] = training_options(config.dataset, config.base_model.resolution)
    tree["trigger"], tree["class_noun"] = dataset.trigger, dataset.class_noun
    del tree["repeats"]  # counted in each photo's own
    if not dataset.reg_photos:
        del tree["prior_loss_weight"]  # weighs nothing
    if config.max_train_steps is not None:
        del tree["max_train_epochs"]  # overridden
    tree = {key: value for key, value in tree.items() if key not in NEUTRAL or value != NEUTRAL[key]}
    return stable_hash([TRAINING_VERSION, tree])


def base_identity(config: BaseModelConfig, results_dir: Path) -> str:
    """Hash of the base's weights; a file's own hash is remembered by (path, size, time of change).

    Raises ModelError if the base can't be loaded.
    """
    folder = base_folder(config)
    files = [f for component in ("unet", "vae", "text_encoder")
             for f in (*weights_files(folder, component), folder / component / "config.json")]
    files += [*sorted((folder / "tokenizer").glob("*.*")), folder / "scheduler" / "scheduler_config.json"]
    return stable_hash([[f.relative_to(folder).as_posix(), _remembered_sha256(f, results_dir)] for f in files
                        if f.is_file()])


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
