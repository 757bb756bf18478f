"""Packs that a real worker trains on photos on disk, and what they leave behind."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import sweep.files
from sweep.data.folder import read_dataset
from sweep.identity import base_identity, train_id
from sweep.reg_images import with_drawn
from sweep.schema import to_tree
from sweep.train_config import train_from_tree
from sweep.trial import PackSpec, Status, Trial, status_from_json, trial_folder
from tests.conftest import dataset_config
from tests.equivalence.trials import member


class Killed(BaseException):
    """Not an Exception, so that nothing handles it."""


def pack_of(results: Path, photos: Path, cells: Mapping[str, Mapping[str, Any]], *, threads: int = 1) -> PackSpec:
    """A pack of one trial per cell: `dataset` holds changes of the dataset's settings, the rest is `trials.member`'s.
    Identities are the real ones. A checkpoint every 3 steps."""
    trials = []
    for number, cell in enumerate(cells.values(), start=1):
        data, settings = cell.get("dataset", {}), {key: value for key, value in cell.items() if key != "dataset"}
        settings = {"dim": 4, "num_steps": 6, **settings}
        config = replace(member("x", **settings).config, dataset=dataset_config(dir=str(photos), **data),
                         save_every_n_steps=3)
        config = train_from_tree(to_tree(config))  # as the conductor has it: 1 becomes 1.0
        base_id = base_identity(config.base_model, results)
        dataset = with_drawn(read_dataset(config.dataset, trigger=config.trigger, class_noun=config.class_noun,
                                          repeats=config.repeats), config, base_id, results)
        trials.append(Trial(number=number, settings={}, config=to_tree(config), num_steps=settings["num_steps"],
                            train_id=train_id(config, dataset, base_id)))
    return PackSpec(trials=tuple(trials), scoring={"name": "none"}, results_dir=str(results), device="cpu:0",
                    threads=threads, save_state_every_n_steps=2, control=str(results / "control.json"))


def files_of(results: Path) -> dict[str, bytes]:
    """All LoRA files by trial and name."""
    return {f"{path.parents[1].name}/{path.name}": path.read_bytes()
            for path in results.glob("trials/*/checkpoints/*.safetensors")}


def losses_of(results: Path, trial: Trial) -> list[float]:
    rows = sweep.files.read_jsonl(trial_folder(results, trial.train_id).metrics)
    return [row["loss"] for row in rows if row["kind"] == "train"]


def statuses(spec: PackSpec) -> list[Status]:
    """Of each of its trials, in their order."""
    return [status_from_json(sweep.files.read_json(trial_folder(Path(spec.results_dir), trial.train_id).status))
            for trial in spec.trials]


def memberships(results: Path) -> list[tuple[int, dict[str, int]]]:
    """(update, members) of every change, oldest first."""
    rows = {row["change"]: row for path in results.glob("trials/*/packs.jsonl") for row in sweep.files.read_jsonl(path)}
    return [(rows[number]["update"], rows[number]["members"]) for number in sorted(rows)]


@contextmanager
def killed_at_write(number: int) -> Iterator[list[int]]:
    """Kill at the given atomic write: the temporary file is there, the real one is not yet replaced."""
    count = [0]
    real = sweep.files.write_bytes

    def write(path: Path, content: bytes, *, durable: bool = True) -> None:
        count[0] += 1
        if count[0] == number:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(f"{path.name}.1.tmp").write_bytes(content[:len(content) // 2])
            raise Killed
        real(path, content, durable=durable)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sweep.worker.pack_run.STATUS_EVERY_S", math.inf)  # the same writes however slow the machine
        for module in ("sweep.files", "sweep.training.state", "sweep.network.lora_file", "sweep.data.cache",
                       "sweep.reg_images"):
            patch.setattr(f"{module}.write_bytes", write)
        yield count
