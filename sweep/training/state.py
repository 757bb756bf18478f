"""What a resume needs of a pack: each member's adapter, optimizer, loss scale, EMA and step, saved together at a step
boundary. (A boundary lies between updates, so there is no phase of accumulation to keep.)"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.files import write_bytes
from sweep.training.loss_scale import LossScale
from sweep.training.pack import Member, Pack

if TYPE_CHECKING:
    from torch import Tensor

NUM_KEPT = 2  # a kill inside a save leaves the one before
FORMAT = "3"  # raised when the files change; others count as not there


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a pack stands: how many updates and changes of membership it has behind it.

    history: tells the packs apart that a trial was in; a resume goes on with the same one.
    """

    history: str = ""
    update: int = 0
    change: int = 0


@dataclass(frozen=True, slots=True)
class Save:
    """The members of a pack at a boundary, in the bank's order, with their steps. It counts only if every member's file
    stands."""

    position: Position
    steps: Mapping[str, int]


def state_path(state_dir: Path, step: int, change: int) -> Path:
    """A save after a change of membership leaves the one before it in place, although the step may be the same."""
    return state_dir / f"step-{step:08d}-{change:04d}.safetensors"


def save_states(pack: Pack, state_dirs: Mapping[str, Path], position: Position) -> None:
    """Save every member. Each file names the whole pack with its steps."""
    save = Save(position, {member.train_id: member.step for member in pack.members})
    for member in pack.members:
        _save(pack, member, state_dirs[member.train_id], save)
    for member in pack.members:
        forget_states(state_dirs[member.train_id], keep=NUM_KEPT)


def forget_states(state_dir: Path, keep: int = 0) -> None:
    for path in _paths(state_dir)[:-keep or None]:
        path.unlink(missing_ok=True)


def latest_save(state_dirs: Mapping[str, Path]) -> Save | None:
    """The newest complete save among these trials; None if there is none.

    Trials of the save that are not among `state_dirs` make it incomplete.
    """
    saves = {json.dumps(asdict(save)): save for folder in state_dirs.values() for path in _paths(folder)
             if (save := _save_of(path)) is not None}
    newest: Save | None = None
    for save in saves.values():
        if _is_whole(save, state_dirs) and (newest is None or _is_newer(save, newest)):
            newest = save
    return newest


def newest_step(train_id: str, state_dirs: Mapping[str, Path]) -> int:
    """The step of a trial's own newest state if its companions' are gone for good; 0 if there is none.

    A single state whose save names only present trials is one that a kill cut short: the pack then goes on as if it had
    not been made, so that it ends in the same bits.
    """
    saves = [save for path in _paths(state_dirs[train_id]) if (save := _save_of(path)) is not None]
    if len(saves) == 1 and not _is_whole(saves[0], state_dirs) and all(i in state_dirs for i in saves[0].steps):
        return 0
    return max((save.steps[train_id] for save in saves), default=0)


def load_state(pack: Pack, member: Member, state_dir: Path, step: int, *, change: int | None = None) -> None:
    """Put a member back to where a save left it; later states, now void, are deleted.

    change: of the save; None = the newest at this step.
    """
    for path in _paths(state_dir):
        name = path.name.removesuffix(".safetensors").split("-")
        if int(name[1]) > step or (int(name[1]) == step and change is not None and int(name[2]) > change):
            path.unlink()
    if step > 0:
        paths = [path for path in _paths(state_dir) if (save := _save_of(path)) and save.steps[member.train_id] == step]
        _load(pack, member, paths[-1])


def load_states(pack: Pack, state_dirs: Mapping[str, Path], save: Save) -> None:
    """Put the members of a save back to where it left them."""
    for member in pack.members:
        load_state(pack, member, state_dirs[member.train_id], save.steps[member.train_id], change=save.position.change)


def ordered(members: Sequence[Member], steps: Mapping[str, int]) -> list[Member]:
    """The members of a save, in its order."""
    by_id = {member.train_id: member for member in members}
    return [by_id[train_id] for train_id in steps]


def _paths(state_dir: Path) -> list[Path]:
    """The state files of a trial, oldest first."""
    return sorted(state_dir.glob("step-????????-????.safetensors"))


def _is_whole(save: Save, state_dirs: Mapping[str, Path]) -> bool:
    return bool(save.steps) and all(
        i in state_dirs and _save_of(state_path(state_dirs[i], step, save.position.change)) == save
        for i, step in save.steps.items())


def _is_newer(save: Save, other: Save) -> bool:
    """Within a history by its updates. Of two histories that one is newer in which a common member is further; without
    a common member the larger wins."""
    mine, its = save.position, other.position
    if mine.history == its.history:
        return (mine.update, mine.change) > (its.update, its.change)
    ahead = [save.steps[i] - other.steps[i] for i in save.steps if i in other.steps]
    return max(ahead) > 0 if ahead else len(save.steps) > len(other.steps)


def _save(pack: Pack, member: Member, state_dir: Path, save: Save) -> None:
    import safetensors.torch

    assert member.optimizer is not None
    tensors: dict[str, Tensor] = {"adapter": pack.flat_of(member).detach().cpu().contiguous()}
    if member.ema_N is not None:
        tensors["ema"] = member.ema_N.cpu().contiguous()
    of_optimizer, optimizer = member.optimizer.save()
    metadata = {"format": FORMAT, "save": json.dumps(asdict(save)), "optimizer": json.dumps(optimizer),
                "loss_scale": json.dumps(asdict(member.loss_scale) if member.loss_scale else None)}
    write_bytes(state_path(state_dir, member.step, save.position.change),
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
    member.step = json.loads(metadata["save"])["steps"][member.train_id]


def _save_of(path: Path) -> Save | None:
    """The save that a state file belongs to; None if the file is missing, broken or of another format."""
    import safetensors

    try:
        with safetensors.safe_open(path, framework="pt") as file:  # type: ignore[no-untyped-call]
            metadata = file.metadata()
            tree = json.loads(metadata["save"])
            return Save(Position(**tree["position"]), tree["steps"]) if metadata["format"] == FORMAT else None
    except (safetensors.SafetensorError, OSError, KeyError, ValueError, TypeError):
        return None
