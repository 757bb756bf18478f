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
from torch import nn

from sweep.files import append_jsonl, read_jsonl, write_text
from sweep.pocket.checkpoint import START, Averaged, checkpoint_path, load_checkpoint, save_checkpoint
from sweep.pocket.recipe import SEED, Stage

LossFunction = Callable[[torch.Generator], tuple[torch.Tensor, dict[str, float]]]
"""Draws a batch from the generator; returns the loss and figures to log."""


def learning_rate(stage: Stage, step: int) -> float:
    """Warm up linearly, hold, decay linearly to zero (so that a longer run shares its beginning)."""
    decay_steps = max(1, int(stage.num_steps * stage.decay_frac))
    return stage.lr * min((step + 1) / stage.warmup_steps, (stage.num_steps - step) / decay_steps, 1.0)


def step_seed(*key: object) -> int:
    """The seed of what `key` names: the stage, step and process, and the purpose where there are several."""
    return zlib.crc32("/".join(map(str, (SEED, *key))).encode())


def fit(
    name: str,
    stage: Stage,
    module: nn.Module,
    loss_function: LossFunction,
    folder: Path,
    device: str = "cpu",
) -> None:
    """Train `module` to `stage.num_steps` (on from a checkpoint if there is one); leaves the average in it.

    Raises ModelError for a checkpoint of another recipe, seed or other settings.
    """
    process, processes = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    optimizer = torch.optim.AdamW(module.parameters(), lr=stage.lr, weight_decay=stage.weight_decay, betas=(0.9, 0.99))
    average = Averaged(module, stage.ema_decay)
    path = checkpoint_path(folder, name)
    progress = load_checkpoint(path, stage, module, average, optimizer) if path.is_file() else START
    module.train()
    log = _Log(folder / "log" / f"{name}.jsonl", stage, progress.step, processes, is_silent=process > 0)
    for step in range(progress.step, stage.num_steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(stage, step)
        # nn.Dropout knows no generator but the global one, which a resumed run would find in another state.
        torch.manual_seed(step_seed(name, step, process, "dropout"))
        with torch.autocast(device, torch.bfloat16, enabled=stage.bf16):
            loss, figures = loss_function(torch.Generator().manual_seed(step_seed(name, step, process)))
        optimizer.zero_grad()
        loss.backward()
        _average_gradients(module)
        norm = nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        average.update(step)
        progress = progress.after_step(stage.batch_size * processes, processes)
        log.add(step, {"loss": loss.item(), "gradient_norm": norm.item(), **figures})
        is_last = progress.step == stage.num_steps
        if process == 0 and (is_last or progress.step % stage.checkpoint_steps == 0):
            save_checkpoint(path, stage, module, average, optimizer, progress)
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
    """Means over `EVERY` steps, printed and appended to a file; rows of steps that are trained again are dropped."""

    EVERY = 50

    def __init__(self, path: Path, stage: Stage, start: int, processes: int, is_silent: bool) -> None:
        self.path, self.stage, self.is_silent = path, stage, is_silent
        self.images_per_step = stage.batch_size * processes
        self.sums: dict[str, float] = {}
        self.num, self.since = 0, time.monotonic()
        if not is_silent:
            kept = [row for row in read_jsonl(path) if row["step"] <= start]
            write_text(path, "".join(json.dumps(row) + "\n" for row in kept))

    def add(self, step: int, figures: dict[str, float]) -> None:
        for key, value in figures.items():
            self.sums[key] = self.sums.get(key, 0.0) + value
        self.num += 1
        if self.num < self.EVERY and step + 1 < self.stage.num_steps:
            return
        elapsed_s = time.monotonic() - self.since
        row: dict[str, float] = {
            "step": step + 1,
            "images_per_s": round(self.num * self.images_per_step / elapsed_s, 1),
        }
        row |= {key: round(value / self.num, 5) for key, value in self.sums.items()}
        self.sums, self.num, self.since = {}, 0, time.monotonic()
        if not self.is_silent:
            print(self.path.stem, json.dumps(row), flush=True)
            append_jsonl(self.path, row)
