"""Contracts 1 and 2 for every optimizer: four unlike trials in a pack against the same four alone, while a fifth goes
NaN; and interrupted against uninterrupted, bit for bit."""

import math

import pytest
import torch

from sweep.training.loop import train
from sweep.training.pack import Member, Pack
from sweep.training.state import Position, latest_save, load_states, save_states
from tests.equivalence.trials import OPTIMIZERS, member

EIGHT_BIT = ("adamw8bit", "lion8bit")
AVERAGING = "adamw_schedulefree"


def four(optimizer: str, num_steps: int) -> list[Member]:
    """Trials that differ in rank, alpha, seed, batch size, scheduler and the parts that they train. A rank of 64 gives
    matrices of 4,096 elements and more, which 8-bit optimizers really quantise."""
    largest = 64 if optimizer in EIGHT_BIT else 16
    return [
        member("a", dim=4, seed=1, num_steps=num_steps, optimizer=optimizer),
        member("b", dim=8, alpha=1, seed=2, num_steps=num_steps, optimizer=optimizer, batch_size=2),
        member("c", dim=8, seed=3, num_steps=num_steps, optimizer=optimizer, scheduler="polynomial"),
        member("d", dim=largest, seed=4, num_steps=num_steps, optimizer=optimizer, text_encoder_lr=0),
    ]


def trained(pack: Pack, *, poisoned: Member | None = None) -> dict[str, list[float]]:
    """Losses by trial; a poisoned member's weights go NaN after two steps."""
    losses: dict[str, list[float]] = {}
    while pack.members:
        rows = next(train(pack))
        for row in rows:
            losses.setdefault(row.member.train_id, []).append(row.loss)
        if poisoned is not None and poisoned.step == 2 and not poisoned.diverged:
            with torch.no_grad():
                pack.flat_of(poisoned)[5] = math.nan
        pack.drop([m for m in pack.members if m.is_finished])
    return losses


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("num_steps", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_a_pack_trains_what_its_members_train_alone(base, targets, optimizer: str, num_steps: int) -> None:
    broken = member("broken", dim=8, seed=9, num_steps=num_steps, optimizer=optimizer)
    [a, b, c, d] = four(optimizer, num_steps)
    together = trained(Pack(base, targets, [a, b, c, broken, d]), poisoned=broken)
    assert broken.step == 2 and "at step 3" in broken.diverged and "loss nan" in broken.diverged
    for alone in four(optimizer, num_steps):
        solo = trained(Pack(base, targets, [alone]))[alone.train_id]
        assert together[alone.train_id] == pytest.approx(solo, rel=1e-4)
        assert len(set(solo)) == num_steps
    if optimizer in EIGHT_BIT:
        assert d.optimizer is not None
        large = [state["state1"].dtype for param, state in d.optimizer.inner[0].state.items() if param.numel() >= 4096]
        assert len(large) > 50 and set(large) == {torch.uint8}


def weights_of(pack: Pack, member: Member) -> tuple[torch.Tensor, torch.Tensor]:
    """As trained on, and as saved."""
    training = pack.flat_of(member).detach().clone()
    with pack.as_saved(member):
        saved = pack.flat_of(member).detach().clone()
    assert torch.equal(pack.flat_of(member), training), "looking at what is saved must change nothing"
    return training, saved


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_interrupted_equals_uninterrupted(base, targets, optimizer: str, tmp_path) -> None:
    def two() -> list[Member]:
        common = {"dim": 32 if optimizer in EIGHT_BIT else 8, "num_steps": 6, "optimizer": optimizer,
                  "scheduler": "cosine_with_restarts"}
        ema = None if optimizer == AVERAGING else 0.9
        return [member("a", seed=1, ema_decay=ema, **common), member("b", seed=2, **common)]

    def steps(pack: Pack, count: int) -> None:
        for done, _ in enumerate(train(pack), start=1):
            if done == count:
                return

    folders = {name: tmp_path / name for name in ("a", "b")}
    whole = Pack(base, targets, two())
    steps(whole, 3)
    save_states(whole, folders, Position())
    for one in whole.members:
        weights_of(whole, one)
    steps(whole, 3)
    resumed = Pack(base, targets, two())
    load_states(resumed, folders, latest_save(folders))
    steps(resumed, 3)
    for one, other in zip(whole.members, resumed.members, strict=True):
        assert one.step == other.step == 6
        for expected, found in zip(weights_of(whole, one), weights_of(resumed, other), strict=True):
            assert torch.equal(expected, found)
        training, saved = weights_of(whole, one)
        assert torch.equal(training, saved) == (one.config.ema_decay is None and optimizer != AVERAGING)
