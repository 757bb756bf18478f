"""A training stage's checkpoint: weights, their average and the optimizer's state in one file that says what made it.

Checkpoints of the first weight set say only their step; what they do not say is read as None and written as "unknown".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from sweep.errors import ModelError
from sweep.pocket.recipe import RECIPE_VERSION, SEED, Stage

UNKNOWN = "unknown"
LENGTH_SETTINGS = ("num_steps", "warmup_steps", "checkpoint_steps")
"""What may differ when a run is gone on with: a longer run shares its beginning, but short ones warm up faster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a stage has trained."""

    step: int
    samples: int | None
    """Pictures seen, by all processes; None = unknown, and it stays so."""
    processes: int | None
    """That shared the last step's batch; None = unknown."""

    def after_step(self, samples: int, processes: int) -> Progress:
        """One step further, with `samples` more pictures."""
        seen = None if self.samples is None else self.samples + samples
        return Progress(step=self.step + 1, samples=seen, processes=processes)


START = Progress(step=0, samples=0, processes=None)


class Averaged:
    """An exponential moving average of a module's floating-point state, kept on the side."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module, self.decay = module, decay
        self.state = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Early on the average follows closely: min(decay, (1 + step) / (10 + step))."""
        decay = min(self.decay, (1 + step) / (10 + step))
        floats = [(self.state[n], t) for n, t in self.module.state_dict().items() if t.is_floating_point()]
        averages, current = [list(side) for side in zip(*floats, strict=True)]
        torch._foreach_lerp_(averages, current, 1 - decay)


def checkpoint_path(folder: Path, name: str) -> Path:
    """Where stage `name` keeps its checkpoint."""
    return folder / "checkpoints" / f"{name}.safetensors"


def save_checkpoint(
    path: Path,
    stage: Stage,
    module: nn.Module,
    average: Averaged,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
) -> None:
    """Weights, average, optimizer state and what made them in one file, replaced in one go."""
    tensors = {f"model/{name}": tensor for name, tensor in module.state_dict().items()}
    tensors |= {f"average/{name}": tensor for name, tensor in average.state.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{key}": torch.as_tensor(value) for key, value in state.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".tmp")
    # Copies: tied or expanded tensors may share memory, which safetensors refuses.
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}, partial,
              metadata=_metadata(stage, progress))  # fmt: skip
    partial.replace(path)


def load_checkpoint(
    path: Path, stage: Stage, module: nn.Module, average: Averaged, optimizer: torch.optim.Optimizer
) -> Progress:
    """Restore what `save_checkpoint` wrote. Raises ModelError if another recipe, seed or other settings made it."""
    progress = read_progress(path, stage)
    tensors = load_file(path)
    module.load_state_dict(_under(tensors, "model/"))
    for name, tensor in _under(tensors, "average/").items():
        average.state[name].copy_(tensor)
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in _under(tensors, "optimizer/").items():
        index, key = name.split("/")
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return progress


def load_average(folder: Path, name: str, module: nn.Module) -> Progress:
    """Put the averaged weights of stage `name`'s checkpoint into `module`; returns how far they have trained.

    Raises ModelError if another recipe or seed made it.
    """
    path = checkpoint_path(folder, name)
    progress = read_progress(path)
    module.load_state_dict(_under(load_file(path), "average/"))
    return progress


def read_progress(path: Path, stage: Stage | None = None) -> Progress:
    """How far a checkpoint's stage has trained.

    Raises ModelError if another recipe or seed made it, and, where a `stage` is to go on from it, other settings.
    """
    with safe_open(path, framework="pt") as file:
        found = file.metadata()
    wanted = {"recipe_version": RECIPE_VERSION, "seed": SEED} | (_kept_settings(stage) if stage else {})
    said = {key: json.loads(found[key]) for key in ("recipe_version", "seed") if key in found}
    said |= json.loads(found.get("settings", "{}"))
    differing = [key for key, value in wanted.items() if said.get(key, value) != value]
    if differing:
        gaps = ", ".join(f"{key} {said[key]} instead of {wanted[key]}" for key in differing)
        raise ModelError(
            f"{path} was trained with {gaps}. Only {', '.join(LENGTH_SETTINGS)} may differ: move the "
            "file away to train the stage from its beginning, or give another folder with --work"
        )
    return Progress(
        step=int(found["step"]),
        samples=_known(found.get("samples", UNKNOWN)),
        processes=_known(found.get("processes", UNKNOWN)),
    )


def shown(number: int | None) -> int | str:
    """The number, or "unknown"."""
    return UNKNOWN if number is None else number


def _known(text: str) -> int | None:
    return None if text == UNKNOWN else int(text)


def _metadata(stage: Stage, progress: Progress) -> dict[str, str]:
    numbers = {"step": progress.step, "samples": shown(progress.samples), "processes": shown(progress.processes),
               "recipe_version": RECIPE_VERSION, "seed": SEED}  # fmt: skip
    return {key: str(value) for key, value in numbers.items()} | {"settings": json.dumps(_kept_settings(stage))}


def _kept_settings(stage: Stage) -> dict[str, object]:
    return {key: value for key, value in asdict(stage).items() if key not in LENGTH_SETTINGS}


def _under(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
