"""What a resume needs of a pack: each member's adapter, optimizer, loss scale, EMA and step, saved together at a step
boundary. (A boundary lies between updates, so there is no phase of accumulation to keep.)"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.files import write_bytes
from sweep.training.loss_scale import LossScale
from sweep.training.pack import Member, Pack

if TYPE_CHECKING:
    from torch import Tensor

NUM_KEPT = 2  # a kill inside a save leaves the one before
FORMAT = "2"  # raised when the files change; others count as not there


def state_path(state_dir: Path, step: int) -> Path:
    return state_dir / f"step-{step:08d}.safetensors"


def save_states(pack: Pack, state_dirs: Mapping[str, Path]) -> None:
    """Save every member. Each file names the whole pack with its steps: a save counts only if all its files stand."""
    steps = {member.train_id: member.step for member in pack.members}
    for member in pack.members:
        _save(pack, member, state_dirs[member.train_id], steps)
    for member in pack.members:
        forget_states(state_dirs[member.train_id], keep=NUM_KEPT)


def forget_states(state_dir: Path, keep: int = 0) -> None:
    for path in sorted(state_dir.glob("step-*.safetensors"))[:-keep or None]:
        path.unlink(missing_ok=True)


def latest_save(state_dirs: Mapping[str, Path]) -> dict[str, int]:
    """The newest complete save among these trials, as steps by train id in the pack's order; empty if there is none.

    Trials of the save that are not among `state_dirs` make it incomplete.
    """
    saves: dict[str, dict[str, int]] = {}
    for folder in state_dirs.values():
        for path in folder.glob("step-*.safetensors"):
            steps = _pack_steps(path)
            saves[json.dumps(steps)] = steps
    whole = [steps for steps in saves.values()
             if steps and all(i in state_dirs and _pack_steps(state_path(state_dirs[i], step)) == steps
                              for i, step in steps.items())]
    newest: dict[str, int] = {}
    for steps in whole:
        ahead = [steps[i] - newest[i] for i in steps if i in newest]
        is_larger = len(steps) > len(newest)
        # at the same steps the smaller pack is the newer: the others left it; without a common member the larger wins
        if max(ahead) > 0 or (not any(ahead) and not is_larger) if ahead else is_larger:
            newest = steps
    return newest


def newest_step(train_id: str, state_dirs: Mapping[str, Path]) -> int:
    """The step of a trial's own newest state if its companions' are gone for good; 0 if there is none.

    A single state whose save names only present trials is one that a kill cut short: the pack then goes on as if it had
    not been made, so that it ends in the same bits.
    """
    saves = [steps for path in state_dirs[train_id].glob("step-*.safetensors") if (steps := _pack_steps(path))]
    if len(saves) == 1 and all(companion in state_dirs for companion in saves[0]):
        return 0
    return max((steps[train_id] for steps in saves), default=0)


def load_states(pack: Pack, state_dirs: Mapping[str, Path], steps: Mapping[str, int]) -> None:
    """Put the members that `steps` names back to where a save left them; later states, now void, are deleted."""
    for member in pack.members:
        state_dir, step = state_dirs[member.train_id], steps.get(member.train_id, 0)
        if step > 0:
            _load(pack, member, state_path(state_dir, step))
        for path in state_dir.glob("step-*.safetensors"):
            if path.name > state_path(state_dir, step).name:
                path.unlink()


def _save(pack: Pack, member: Member, state_dir: Path, steps: Mapping[str, int]) -> None:
    import safetensors.torch

    assert member.optimizer is not None
    tensors: dict[str, Tensor] = {"adapter": pack.flat_of(member).detach().cpu().contiguous()}
    if member.ema_N is not None:
        tensors["ema"] = member.ema_N.cpu().contiguous()
    of_optimizer, optimizer = member.optimizer.save()
    metadata = {"format": FORMAT, "pack_steps": json.dumps(steps), "optimizer": json.dumps(optimizer),
                "loss_scale": json.dumps(asdict(member.loss_scale) if member.loss_scale else None)}
    write_bytes(state_path(state_dir, member.step),
                safetensors.torch.save({**tensors, **of_optimizer}, metadata=metadata))


def _load(pack: Pack, member: Member, path: Path) -> None:
    import safetensors
    import torch

    assert member.optimizer is not None
    with safetensors.safe_open(path, framework="pt") as file:  # type: ignore[no-untyped-call]
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    with torch.no_grad():
        pack.flat_of(member).copy_(tensors["adapter"])
    if member.ema_N is not None:
        member.ema_N.copy_(tensors["ema"])
    if member.loss_scale is not None:
        member.loss_scale = LossScale(**json.loads(metadata["loss_scale"]))
    member.optimizer.load(tensors, json.loads(metadata["optimizer"]))
    member.step = json.loads(metadata["pack_steps"])[member.train_id]


def _pack_steps(path: Path) -> dict[str, int]:
    """The save that a state file belongs to; empty if the file is missing, broken or of another format."""
    import safetensors

    try:
        with safetensors.safe_open(path, framework="pt") as file:  # type: ignore[no-untyped-call]
            metadata = file.metadata()
            steps: dict[str, int] = json.loads(metadata["pack_steps"])
            return steps if metadata["format"] == FORMAT else {}
    except (safetensors.SafetensorError, OSError, KeyError, ValueError, TypeError):
        return {}


def ordered(members: Sequence[Member], steps: Mapping[str, int]) -> list[Member]:
    """The members of a save, in its order."""
    by_id = {member.train_id: member for member in members}
    return [by_id[train_id] for train_id in steps]
