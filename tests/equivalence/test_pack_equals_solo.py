"""Contract 1: a trial does not feel its companions."""

import math
from dataclasses import replace

import pytest
import torch

from sweep.training.loop import train
from sweep.training.pack import Member, Pack
from tests.equivalence.trials import NETWORKS, member, run


def three() -> list[Member]:
    """Trials that differ in rank, alpha, rate, optimizer, scheduler, seed, batch size and number of steps."""
    return [
        member("a", dim=4, seed=1, num_steps=12, scheduler="cosine_with_restarts"),
        member("b", dim=4, alpha=1, seed=2, batch_size=3, unet_lr=5e-4, num_steps=20, scheduler="polynomial"),
        member("c", dim=16, seed=3, text_encoder_lr=0, optimizer="adamw8bit", num_steps=16),
    ]


def first_step(base, targets, members: list[Member]) -> dict[str, torch.Tensor]:
    """Gradients of the first step by trial."""
    return first_gradients(Pack(base, targets, members))


def first_gradients(pack: Pack) -> dict[str, torch.Tensor]:
    """Gradients of the pack's next step by trial."""
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
    before = pack.flat_of(frozen).clone()
    run(pack, max_passes=3)
    assert not torch.equal(pack.flat_of(frozen), before)
    assert {part for part, _, _ in pack.bank.spans(0)} == {"unet"}, "it has no adapter there"
    assert all(key.startswith("lora_unet") for key in pack.weights_of(frozen))


def test_eight_bit_states_are_eight_bit(base, targets) -> None:
    """Tensors under 4,096 elements stay in 32 bits and would prove nothing."""
    big = member("big", dim=64, optimizer="adamw8bit", num_steps=3)
    run(Pack(base, targets, [big]), max_passes=2)
    assert big.optimizer is not None
    states = [state["state1"].dtype for state in big.optimizer.inner[0].state.values()]
    assert states.count(torch.uint8) > 50


def every_network(**flat) -> list[Member]:
    """One trial per algorithm, with what each takes of ranks, convolutions and dropout; no two share a structure."""
    return [
        member("lora", dim=4, seed=1, network_dropout=0.2, rank_dropout=0.1, module_dropout=0.1, **flat),
        member("lora too", dim=4, seed=2, alpha=1, network_dropout=0.3, **flat),
        member("locon", network="locon", dim=4, conv_dim=3, conv_alpha=2, seed=3, batch_size=2, rank_dropout=0.2,
               **flat),
        member("loha", network="loha", dim=4, seed=4, module_dropout=0.2, **flat),
        member("lokr", network="lokr", dim=4, conv_dim=2, conv_alpha=1, seed=5, batch_size=2, **flat),
        member("lokr too", network="lokr", dim=4, conv_dim=2, conv_alpha=2, seed=6, batch_size=2, **flat),
        member("ia3", network="ia3", seed=7, unet_lr=5e-3, text_encoder_lr=5e-3, **flat),
        member("dylora", network="dylora", dim=8, seed=8, **flat),
        member("dora", network="dora", dim=4, conv_dim=2, conv_alpha=2, seed=9, rank_dropout=0.2, **flat),
        member("norms", dim=4, conv_dim=4, conv_alpha=4, seed=10, unet_lr=5e-3, scale_weight_norms=0.1, **flat),
    ]


def test_gradients_of_every_network(base, targets) -> None:
    """After one update, so that down has a gradient too."""
    def second_step(members: list[Member]) -> dict[str, torch.Tensor]:
        pack = Pack(base, targets, members)
        run(pack, max_passes=1)
        return first_gradients(pack)

    together = second_step(every_network())
    for alone in every_network():
        solo = second_step([alone])[alone.train_id]
        error = (together[alone.train_id] - solo).norm() / solo.norm()
        assert solo.norm() > 0 and error < 1e-5, f"{alone.train_id}: {error:.2e}"


def doomed_twins(**flat) -> list[Member]:
    """One of each algorithm, of the structure of a trial in `every_network`, so that the two are stacked."""
    twins = {}
    for each in every_network(**flat):
        twins.setdefault(each.config.network.name, each)
    return [replace(each, train_id=f"{name} doomed", config=replace(each.config, seed=100 + each.config.seed))
            for name, each in twins.items()]


@pytest.mark.parametrize("num_steps", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_losses_of_every_network_beside_companions_that_go_nan(base, targets, num_steps: int) -> None:
    doomed = doomed_twins(num_steps=num_steps)
    pack = Pack(base, targets, in_structures([*every_network(num_steps=num_steps), *doomed]))
    together: dict[str, list[float]] = {}
    while pack.members:
        for row in next(train(pack)):
            together.setdefault(row.member.train_id, []).append(row.loss)
        for each in doomed:
            if each.step == 2 and not each.diverged:
                with torch.no_grad():
                    pack.flat_of(each).fill_(math.nan)
        pack.drop([each for each in pack.members if each.is_finished])
    assert len(doomed) == len(NETWORKS)
    assert all(each.step == 2 and "loss nan" in each.diverged and "at step 3" in each.diverged for each in doomed)
    for alone in every_network(num_steps=num_steps):
        solo = run(Pack(base, targets, [alone]))[alone.train_id]
        assert together[alone.train_id] == pytest.approx(solo, rel=1e-4), alone.train_id
        assert len(set(solo)) == num_steps


def in_structures(members: list[Member]) -> list[Member]:
    """Neighbours of one structure are stacked in the bank; `packing` sees to that in a sweep."""
    first: dict[tuple[object, ...], int] = {}
    for one in members:
        first.setdefault(structure(one), len(first))
    return sorted(members, key=lambda one: first[structure(one)])


def structure(one: Member) -> tuple[object, ...]:
    config = one.config
    return (config.network.name, config.network_dim, config.conv_dim)
