"""The training loop that all stages of the build share: AdamW, averaged weights, checkpoints, figures as JSONL.

Randomness is a function of (seed, stage, step, process), so to resume, run the same command again.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import nn

from sweep.pocket.recipe import SEED, Stage

LossFunction = Callable[[torch.Generator], tuple[torch.Tensor, dict[str, float]]]
"""Draws a batch from the generator; returns the loss and figures to log."""


def learning_rate(stage: Stage, step: int) -> float:
    """Warm up linearly, hold, decay linearly to zero (so that a longer run shares its beginning)."""
    decay_steps = max(1, int(stage.num_steps * stage.decay_frac))
    return stage.lr * min((step + 1) / stage.warmup_steps, (stage.num_steps - step) / decay_steps, 1.0)


def generator_for(name: str, step: int, process: int = 0, device: str = "cpu") -> torch.Generator:
    """The generator of one step."""
    key = zlib.crc32(f"{SEED}/{name}/{step}/{process}".encode())
    return torch.Generator(device).manual_seed(key)


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
    return folder / "checkpoints" / f"{name}.safetensors"


def save_checkpoint(
    path: Path, module: nn.Module, average: Averaged, optimizer: torch.optim.Optimizer, step: int
) -> None:
    """Weights, average, optimizer state and step in one file, replaced in one go."""
    tensors = {f"model/{name}": tensor for name, tensor in module.state_dict().items()}
    tensors |= {f"average/{name}": tensor for name, tensor in average.state.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{key}": torch.as_tensor(value) for key, value in state.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".tmp")
    # Copies: tied or expanded tensors may share memory, which safetensors refuses.
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}, partial,
              metadata={"step": str(step)})  # fmt: skip
    partial.replace(path)


def load_checkpoint(path: Path, module: nn.Module, average: Averaged, optimizer: torch.optim.Optimizer) -> int:
    """Restore what `save_checkpoint` wrote; returns the next step."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        step = int(file.metadata()["step"])
    tensors = load_file(path)
    module.load_state_dict(_under(tensors, "model/"))
    for name, tensor in _under(tensors, "average/").items():
        average.state[name].copy_(tensor)
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in _under(tensors, "optimizer/").items():
        index, key = name.split("/")
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return step


def _under(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def load_average(folder: Path, name: str, module: nn.Module) -> int:
    """Put the averaged weights of stage `name`'s checkpoint into `module`; returns the steps trained."""
    from safetensors import safe_open

    path = checkpoint_path(folder, name)
    with safe_open(path, framework="pt") as file:
        step = int(file.metadata()["step"])
    module.load_state_dict(_under(load_file(path), "average/"))
    return step


def fit(
    name: str,
    stage: Stage,
    module: nn.Module,
    loss_function: LossFunction,
    folder: Path,
    device: str = "cpu",
) -> None:
    """Train `module` to `stage.num_steps` (on from a checkpoint if there is one); leaves the average in it."""
    process = dist.get_rank() if dist.is_initialized() else 0
    optimizer = torch.optim.AdamW(module.parameters(), lr=stage.lr, weight_decay=stage.weight_decay, betas=(0.9, 0.99))
    average = Averaged(module, stage.ema_decay)
    path = checkpoint_path(folder, name)
    start = load_checkpoint(path, module, average, optimizer) if path.is_file() else 0
    module.train()
    log = _Log(folder / "log" / f"{name}.jsonl", is_silent=process > 0)
    for step in range(start, stage.num_steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(stage, step)
        with torch.autocast(device, torch.bfloat16, enabled=stage.bf16):
            loss, figures = loss_function(generator_for(name, step, process, "cpu"))
        optimizer.zero_grad()
        loss.backward()
        _average_gradients(module)
        norm = nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        average.update(step)
        log.add(step, {"loss": loss.item(), "gradient_norm": norm.item(), **figures}, stage)
        is_last = step + 1 == stage.num_steps
        if process == 0 and (is_last or (step + 1) % stage.checkpoint_steps == 0):
            save_checkpoint(path, module, average, optimizer, step + 1)
    module.load_state_dict(average.state)
    module.eval()


def _average_gradients(module: nn.Module) -> None:
    """The mean over processes, as one flat message."""
    if not dist.is_initialized():
        return
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


class _Log:
    """Means over `EVERY` steps, printed and appended to a file."""

    EVERY = 50

    def __init__(self, path: Path, is_silent: bool) -> None:
        self.path, self.is_silent = path, is_silent
        self.sums: dict[str, float] = {}
        self.num, self.since = 0, time.monotonic()
        path.parent.mkdir(parents=True, exist_ok=True)

    def add(self, step: int, figures: dict[str, float], stage: Stage) -> None:
        for key, value in figures.items():
            self.sums[key] = self.sums.get(key, 0.0) + value
        self.num += 1
        if self.num < self.EVERY and step + 1 < stage.num_steps:
            return
        elapsed_s = time.monotonic() - self.since
        row: dict[str, float] = {"step": step + 1, "images_per_s": round(self.num * stage.batch_size / elapsed_s, 1)}
        row |= {key: round(value / self.num, 5) for key, value in self.sums.items()}
        self.sums, self.num, self.since = {}, 0, time.monotonic()
        if not self.is_silent:
            print(self.path.stem, json.dumps(row), flush=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
