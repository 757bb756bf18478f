"""Accumulation, checkpointing, half precision, LoRA+ and EMA: each against the plain way, and inside a pack."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest
import torch

from sweep.data.batches import Batch, TrainData
from sweep.data.cache import cached_text_states
from sweep.errors import ConfigError
from sweep.training import loop
from sweep.training.loop import StepRow, train
from sweep.training.objective import noised_batch
from sweep.training.pack import Member, Pack
from sweep.training.state import Position, latest_save, load_states, save_states
from tests.equivalence.trials import member, run


def steps(pack: Pack, count: int) -> list[list[StepRow]]:
    rows = []
    for each in train(pack):
        rows.append(each)
        if len(rows) == count:
            break
    return rows


def first_gradient(base, targets, members: list[Member], index: int = 0) -> torch.Tensor:
    pack = Pack(base, targets, members)
    steps(pack, 1)
    return pack.bank.flat_grad(index).clone()


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert expected.norm() > 0
    return float((found - expected).norm() / expected.norm())


@dataclass(frozen=True, slots=True, kw_only=True)
class Halves(TrainData):
    """Every batch in two, to be accumulated; the second half has noise of its own."""

    def batches_at(self, step: int) -> list[Batch]:
        [whole] = TrainData.batches_at(self, step)
        half = whole.num_rows // 2
        return [replace(whole, index=2 * step + i, captions=whole.captions[rows], sizes=whole.sizes[rows],
                        moments_BMHW=whole.moments_BMHW[rows], loss_weights_B=whole.loss_weights_B[rows])
                for i, rows in enumerate((slice(half), slice(half, None)))]


def accumulating(name: str, **settings) -> Member:
    one = member(name, batch_size=4, max_grad_norm=0, gradient_accumulation_steps=2, **settings)
    return replace(one, data=Halves(moments_NMHW=one.data.moments_NMHW, captions=one.data.captions,
                                    plan=replace(one.data.plan, accumulation=1)))


def test_accumulated_gradients_are_the_mean_over_the_batches(base, targets) -> None:
    accumulated = first_gradient(base, targets, [accumulating("a")])
    total = torch.zeros_like(accumulated)
    for i in range(2):
        alone = accumulating("a")
        [batch] = [alone.data.batches_at(0)[i]]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Halves, "batches_at", lambda self, step, batch=batch: [batch])
            total += first_gradient(base, targets, [alone])  # of one batch, divided by 2
    assert relative(accumulated, total) < 1e-5


def test_an_accumulating_trial_feels_no_companion(base, targets) -> None:
    def companions() -> list[Member]:
        return [accumulating("a"), member("b", seed=2), accumulating("c", seed=3)]

    for index in range(3):
        together = first_gradient(base, targets, companions(), index)
        assert relative(together, first_gradient(base, targets, [companions()[index]])) < 1e-5


def test_known_text_states_train_the_same(base, targets, tmp_path) -> None:
    """From the cache or through the text encoder; also beside a companion whose text encoder is trained."""
    frozen = {"dim": 8, "num_steps": 5, "text_encoder_lr": 0.0, "seed": 4}
    expected = run(Pack(base, targets, [member("a", **frozen)]))["a"]
    for companions in ([], [member("b", dim=4, num_steps=5)]):
        known = member("a", **frozen)
        known.known_text = cached_text_states(base, known.data.captions, tmp_path)
        assert run(Pack(base, targets, [known, *companions]))["a"] == pytest.approx(expected, rel=1e-4)


def test_checkpointing_gives_the_same_gradients(base, targets) -> None:
    """Adapters run again in the backward pass, with the same rows."""
    calls = [0]

    def count(module, args, output) -> None:
        calls[0] += 1

    inside = next(target for target in targets if target.key.endswith("transformer_blocks_0_attn1_to_q"))
    handle = inside.module.register_forward_hook(count)
    try:
        def gradients(is_on: bool) -> tuple[torch.Tensor, int]:
            calls[0] = 0
            members = [member(name, dim=dim, seed=dim, batch_size=dim // 4, gradient_checkpointing=is_on)
                       for name, dim in (("a", 4), ("b", 8))]
            pack = Pack(base, targets, members)
            steps(pack, 2)  # the second one has up matrices that are not zero
            return torch.cat([pack.bank.flat_grad(k) for k in range(2)]), calls[0]

        plain, calls_plain = gradients(False)
        checkpointed, calls_checkpointed = gradients(True)
    finally:
        handle.remove()
        base.unet.disable_gradient_checkpointing()
    assert calls_checkpointed > calls_plain == 2
    assert relative(checkpointed, plain) < 1e-5


def test_loraplus_gives_up_matrices_a_higher_rate(base, targets) -> None:
    """Adagrad's first step is the rate itself, whatever the gradient."""
    for optimizer in ("custom", "adamw"):
        one = member("a", dim=4, optimizer=optimizer, loraplus_lr_ratio=16, max_grad_norm=0)
        one = replace(one, config=replace(one.config, optimizer=_without_decay(one.config.optimizer)))
        pack = Pack(base, targets, [one])
        pack.flat_of(one).normal_(std=0.02, generator=torch.Generator().manual_seed(1))  # all have gradients
        before = pack.flat_of(one).clone()
        steps(pack, 1)
        moved = (pack.flat_of(one) - before).abs()
        largest: dict[tuple[str, bool], float] = {}
        for part, is_up, span in pack.bank.spans(0):
            largest[part, is_up] = max(largest.get((part, is_up), 0.0), float(moved[span].max()))
        assert largest["unet", False] == pytest.approx(1e-4, rel=1e-2)
        assert largest["unet", True] == pytest.approx(16e-4, rel=1e-2)
        assert largest["text_encoder", False] == pytest.approx(5e-5, rel=1e-2)
        assert largest["text_encoder", True] == pytest.approx(8e-4, rel=1e-2)


def _without_decay(optimizer):
    return replace(optimizer, weight_decay=0) if optimizer.name == "adamw" else replace(optimizer, args=None)


def test_the_file_holds_the_mean_of_the_weights(base, targets) -> None:
    pack = Pack(base, targets, [member("a", unet_lr=1e-3, ema_decay=0.6)])
    [one] = pack.members
    mean = pack.flat_of(one).clone()
    for step in range(1, 5):
        steps(pack, 1)
        decay = min(0.6, step / (step + 9))
        mean = decay * mean + (1 - decay) * pack.flat_of(one)
        with pack.as_saved(one):
            assert torch.allclose(pack.flat_of(one), mean, atol=1e-7)
            saved = [tensor.clone() for layer in pack.weights_of(one).values()
                     for tensor in layer.values()]
        training = [tensor for layer in pack.weights_of(one).values() for tensor in layer.values()]
        assert not all(torch.equal(a, b) for a, b in zip(saved, training, strict=True))


@pytest.mark.parametrize("optimizer", ["prodigy", "dadapt_adam"])
def test_the_rate_that_was_found_is_told(base, targets, optimizer: str) -> None:
    rows = [row for [row] in steps(Pack(base, targets, [member("a", dim=4, optimizer=optimizer)]), 6)]
    found = [row.used_rates["unet"] for row in rows]
    assert found[0] == pytest.approx(1e-6) and found == sorted(found) and found[-1] > 2e-6
    assert [row.unet_lr for row in rows] == [1.0] * 6
    half = 0.5 if optimizer == "dadapt_adam" else 1.0  # the tutorial's 1 and 0.5
    assert [row.used_rates["text_encoder"] for row in rows] == pytest.approx([half * rate for rate in found])


def test_adafactors_own_steps_are_told(base, targets) -> None:
    rows = [row for [row] in steps(Pack(base, targets, [member("a", dim=4, optimizer="adafactor", unet_lr=1.0)]), 2)]
    assert [row.used_rates["unet"] for row in rows] == [0.01, 0.01] and rows[0].unet_lr == 1.0


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_near_full_and_the_same_in_a_pack(base, targets, precision: str) -> None:
    def one(name: str, seed: int, precision: str = precision) -> Member:
        return member(name, dim=4, seed=seed, mixed_precision=precision)

    full = first_gradient(base, targets, [one("a", 1, "no")])
    half = first_gradient(base, targets, [one("a", 1)])
    packed = first_gradient(base, targets, [one("b", 2), one("a", 1)], index=1)
    bound = {"bf16": 0.1, "fp16": 0.02}[precision]
    assert relative(half, full) < bound and relative(packed, half) < bound


def test_a_precision_that_a_device_lacks_is_named(base, targets, monkeypatch) -> None:
    def unsupported(*_: object) -> None:
        raise RuntimeError("could not create a primitive\nwith details")

    monkeypatch.setattr(torch.nn.Conv2d, "forward", unsupported)
    with pytest.raises(ConfigError, match=r"=fp16 does not work on cpu \(could not create a primitive\)"):
        Pack(base, targets, [member("a", mixed_precision="fp16")])


def test_a_full_device_does_not_lack_a_precision(base, targets, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("tried to allocate 2 GiB")

    monkeypatch.setattr(torch.nn.Conv2d, "forward", full)
    with pytest.raises(torch.OutOfMemoryError):
        Pack(base, targets, [member("a", mixed_precision="fp16")])


def test_a_velocity_base_is_asked_for_velocities(base, targets) -> None:
    """Its first loss is that of the untrained base on the target written out here."""
    velocity_base = replace(base, prediction_type="v_prediction")
    one = member("a", batch_size=2)
    [[row]] = steps(Pack(velocity_base, targets, [one]), 1)
    [batch] = member("a", batch_size=2).data.batches_at(0)
    given = noised_batch(batch, base.alphas_cumprod, base.scaling_factor, "epsilon", one.config)
    a = base.alphas_cumprod[given.timesteps_B].view(-1, 1, 1, 1)
    latents = (given.noisy_BCHW - (1 - a).sqrt() * given.target_BCHW) / a.sqrt()
    with torch.no_grad():
        predicted = base.predict(given.noisy_BCHW, given.timesteps_B, base.text_states(batch.captions))
    velocity = a.sqrt() * given.target_BCHW - (1 - a).sqrt() * latents
    assert row.loss == pytest.approx(float((predicted - velocity).square().mean()), rel=1e-4)


@contextmanager
def overflowing(name: str, at_step: int) -> Iterator[None]:
    """One member's gradient is infinite at one step."""
    real = Pack.clip_gradients

    def poisoned(pack: Pack) -> list[float]:
        return [math.inf if m.train_id == name and m.step == at_step else norm
                for m, norm in zip(pack.members, real(pack), strict=True)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pack, "clip_gradients", poisoned)
        yield


def test_an_overflow_costs_its_trial_one_update_and_no_one_else(base, targets, tmp_path) -> None:
    def two() -> list[Member]:
        return [member(name, dim=4, seed=seed, num_steps=9, mixed_precision="fp16")
                for seed, name in enumerate("ab", start=1)]

    pack = Pack(base, targets, two())
    [a, b] = pack.members
    with overflowing("b", at_step=1):
        [_, second, third] = steps(pack, 3)
    assert (a.step, b.step) == (3, 3) and not b.diverged
    assert [row.is_skipped for row in second] == [False, True]
    assert second[1].used_rates == {"unet": 0.0, "text_encoder": 0.0}
    assert [row.loss_scale for row in third] == [65536, 32768]
    folders = {name: tmp_path / name for name in "ab"}
    save_states(pack, folders, Position())
    resumed = Pack(base, targets, two())
    load_states(resumed, folders, latest_save(folders))
    assert [m.loss_scale for m in resumed.members] == [a.loss_scale, b.loss_scale]
    steps(pack, 1)
    steps(resumed, 1)
    for k in range(2):
        assert torch.equal(pack.bank.flat(k), resumed.bank.flat(k))


def test_a_gradient_that_always_overflows_ends_its_trial(base, targets) -> None:
    pack = Pack(base, targets, [member("a", dim=4, mixed_precision="fp16")])
    [one] = pack.members
    assert one.loss_scale is not None
    one.loss_scale.value = 2.0**-10
    with overflowing("a", at_step=0):
        [[row]] = steps(pack, 1)
    assert "at step 1" in one.diverged and "loss scale" in one.diverged and one.step == 0 and row.is_skipped


def test_an_infinite_loss_is_no_matter_of_scale(base, targets) -> None:
    pack = Pack(base, targets, [member("a", dim=4, mixed_precision="fp16")])
    loop._step(pack, pack.members[0], math.nan, math.nan, 0.0)
    assert pack.members[0].diverged == "loss nan with gradient norm nan at step 1"
