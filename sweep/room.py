"""How many trials a worker found room for, kept so that the next plan can say it without loading anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sweep.files import read_json, write_json
from sweep.methods import DREAMBOOTH, LORA, method_of
from sweep.trial import Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """gib_each: what one more trial takes. max_trials: how many shared a pass for that reason."""

    gib_each: float
    max_trials: int


def largest(trials: Sequence[Trial]) -> Trial:
    """The one that room is made for."""
    def size(trial: Trial) -> tuple[object, ...]:
        config = trial.config
        is_whole = method_of(config)["name"] == DREAMBOOTH
        return (is_whole, is_whole and config["text_encoder_lr"] > 0, config["train_batch_size"],
                config["network_dim"])

    return max(trials, key=size)


def note_room(results_dir: Path, trial: Trial, room: Room) -> None:
    write_json(_path(results_dir), {**_notes(results_dir), _key(trial): asdict(room)})


def known_room(results_dir: Path, trial: Trial) -> Room | None:
    """As found at the last time for trials like this; None before the first."""
    found = _notes(results_dir).get(_key(trial))
    return None if found is None else Room(**found)


def base_label(base: Mapping[str, Any]) -> str:
    """A base by its name, and by its path where it has one: "file" may be a base of any size."""
    return f"{base['name']} {base['path']}" if base["path"] else f"{base['name']}"


def _key(trial: Trial) -> str:
    config = trial.config
    base = config["base_model"]
    return (f"{base_label(base)} {base['resolution']}px precision={config['mixed_precision']} "
            f"batch={config['train_batch_size']} {_trained(config)}"
            f"{' checkpointing' if config['gradient_checkpointing'] else ''}")


def _trained(config: Mapping[str, Any]) -> str:
    method = method_of(config)
    if method["name"] != LORA:
        return f"{method['name']} text={config['text_encoder_lr'] > 0}"
    return f"{config['network']['name']} rank={config['network_dim']}"


def _notes(results_dir: Path) -> dict[str, Any]:
    try:
        notes: dict[str, Any] = read_json(_path(results_dir))
        return notes
    except (FileNotFoundError, ValueError):
        return {}


def _path(results_dir: Path) -> Path:
    return results_dir / "cache" / "room.json"
