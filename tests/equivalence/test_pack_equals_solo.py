"""Contract 1: a trial does not feel its companions."""

import math

import pytest
import torch

from sweep.training.loop import train
from sweep.training.pack import Member, Pack
from tests.equivalence.trials import member, run


def three() -> list[Member]:
    """Trials that differ in rank, alpha, rate, optimizer, scheduler, seed, batch size and number of steps."""
    return [
        member("a", dim=4, seed=1, num_steps=12, scheduler="cosine_with_restarts"),
        member("b", dim=4, alpha=1, seed=2, batch_size=3, unet_lr=5e-4, num_steps=20, scheduler="polynomial"),
        member("c", dim=16, seed=3, text_encoder_lr=0, optimizer="adamw8bit", num_steps=16),
    ]


def first_step(base, targets, members: list[Member]) -> dict[str, torch.Tensor]:
    """Gradients of the first step by trial."""
    pack = Pack(base, targets, members)
    grads = {}
    for _ in train(pack):
        for k, m in enumerate(pack.members):
            grads[m.train_id] = pack.bank.flat_grad(k).clone()
        break
    return grads


def test_gradients_of_one_step(base, targets) -> None:
    together = first_step(base, targets, three())
    for alone in three():
        solo = first_step(base, targets, [alone])[alone.train_id]
        assert solo.norm() > 0
        error = (together[alone.train_id] - solo).norm() / solo.norm()
        assert error < 1e-5, f"{alone.train_id}: {error:.2e}"


def test_losses_over_twenty_steps(base, targets) -> None:
    """Members leave at steps 12 and 16; the others must not notice."""
    together = run(Pack(base, targets, three()))
    assert {name: len(losses) for name, losses in together.items()} == {"a": 12, "b": 20, "c": 16}
    for alone in three():
        solo = run(Pack(base, targets, [alone]))[alone.train_id]
        assert together[alone.train_id] == pytest.approx(solo, rel=1e-4)


def test_a_companion_that_diverges_stops_alone(base, targets) -> None:
    sane = run(Pack(base, targets, [member("a", num_steps=12)]))["a"]
    broken = member("broken", seed=9, num_steps=12)
    pack = Pack(base, targets, [member("a", num_steps=12), broken])
    losses: list[float] = []
    for rows in train(pack):
        losses += [row.loss for row in rows if row.member.train_id == "a"]
        if len(losses) == 3:
            with torch.no_grad():
                pack.flat_of(broken)[5] = math.nan
        finished = [m for m in pack.members if m.is_finished]
        if finished:
            pack.drop(finished)
    assert losses == pytest.approx(sane, rel=1e-4)
    assert broken.step == 3 and "loss nan" in broken.diverged and "at step 4" in broken.diverged


def test_a_part_with_rate_zero_is_not_trained(base, targets) -> None:
    pack = Pack(base, targets, [member("unet only", text_encoder_lr=0, num_steps=4)])
    [frozen] = pack.members
    columns = pack.bank.columns(0, "text_encoder")
    before = pack.flat_of(frozen).clone()
    run(pack, max_passes=3)
    after = pack.flat_of(frozen)
    assert torch.equal(after[columns], before[columns])
    assert not torch.equal(after[pack.bank.columns(0, "unet")], before[pack.bank.columns(0, "unet")])
    assert all(key.startswith("lora_unet") for key in pack.weights_of(frozen))


def test_eight_bit_states_are_eight_bit(base, targets) -> None:
    """Tensors under 4,096 elements stay in 32 bits and would prove nothing."""
    big = member("big", dim=64, optimizer="adamw8bit", num_steps=3)
    run(Pack(base, targets, [big]), max_passes=2)
    assert big.optimizer is not None
    states = [state["state1"].dtype for state in big.optimizer.inner[0].state.values()]
    assert states.count(torch.uint8) > 50
