"""Every family trains in a pack, and in the base's own precision as under autocast."""

from pathlib import Path

import pytest
import torch

from tests.equivalence.trials import member, run
from tests.unit.model.conftest import FAMILIES

BF16 = {"mixed_precision": "bf16"}


@pytest.fixture(scope="module")
def bases(folders, load):
    return {family: load(path) for family, path in folders.items()}


def _pack(base, members):
    from sweep.network.targets import find_targets
    from sweep.training.pack import Pack

    return Pack(base, find_targets(base), members)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pack_of_two_trains_as_each_alone(bases, family: str) -> None:
    def members():
        return [member("a", dim=4, seed=1, num_steps=2, unet_lr=1e-3), member("b", dim=8, seed=2, num_steps=2)]

    together = _pack(bases[family], members())
    before = together.bank.flat(0).clone()
    losses = run(together, max_passes=1)
    assert not torch.equal(together.bank.flat(0), before)
    for train_id, values in run(together).items():
        losses[train_id] += values
    for alone in members():
        [(train_id, values)] = run(_pack(bases[family], [alone])).items()
        assert losses[train_id] == pytest.approx(values, rel=1e-4)
        assert len(values) == 2 and all(0 < value < 100 for value in values)


def test_how_captions_are_read_counts_and_companions_do_not(base, targets) -> None:
    from sweep.training.pack import Pack

    def losses(*members):
        return run(Pack(base, targets, list(members)))

    def one(name: str, seed: int = 1, **reading):
        return member(name, seed=seed, num_steps=3, unet_lr=1e-3, text_encoder_lr=1e-3, **reading)

    reading = {"clip_skip": 2, "max_token_length": 150}
    together = losses(one("a", **reading), one("b", seed=2, **reading))
    assert together["a"] == pytest.approx(losses(one("a", **reading))["a"], rel=1e-4)
    assert together["a"] != pytest.approx(losses(one("a"))["a"], rel=1e-4)
    assert together["a"] != pytest.approx(losses(one("a", clip_skip=2))["a"], rel=1e-4)


def test_a_base_in_bf16_is_autocast_to_the_last_bit(base, targets, tmp_path: Path) -> None:
    """What autocast casts at every step is stored cast; all else stays as it is."""
    from sweep.model.base import BaseModelConfig
    from sweep.model.loading import load_base
    from sweep.network.targets import find_targets
    from sweep.training.loop import train
    from sweep.training.pack import Pack

    stored = load_base(BaseModelConfig(name="pocket", path=None, resolution=64), base.identity, "cpu", torch.bfloat16)
    assert stored.unet.conv_in.weight.dtype == torch.bfloat16
    assert stored.text_encoder.encoder.layers[0].mlp.fc1.weight.dtype == torch.bfloat16
    assert {p.dtype for p in stored.vae.parameters()} == {torch.float32}
    assert torch.equal(stored.encode_moments(torch.ones(1, 3, 64, 64)), base.encode_moments(torch.ones(1, 3, 64, 64)))
    packs = [Pack(each, its, [member("a", **BF16), member("b", dim=4, seed=2, batch_size=2, **BF16)])
             for each, its in ((base, targets), (stored, find_targets(stored)))]
    for _ in range(3):
        rows = [next(train(pack)) for pack in packs]
        assert [row.loss for row in rows[0]] == [row.loss for row in rows[1]]
        for k in range(2):
            assert torch.equal(packs[0].bank.flat_grad(k), packs[1].bank.flat_grad(k))
            assert packs[0].bank.flat(k).dtype == torch.float32
    exact = Pack(base, targets, [member("a"), member("b", dim=4, seed=2, batch_size=2)])
    for row, other in zip(rows[0], [next(train(exact)) for _ in range(3)][-1], strict=True):
        assert row.loss == pytest.approx(other.loss, rel=0.02) and row.loss != other.loss


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_base_in_half_precision_draws(base, targets, dtype) -> None:
    from sweep.evaluation.generate import Row, generate
    from sweep.evaluation.settings import Sampler
    from sweep.model.base import BaseModelConfig
    from sweep.model.loading import load_base

    stored = load_base(BaseModelConfig(name="pocket", path=None, resolution=64), base.identity, "cpu", dtype)
    sampler = Sampler(name="dpmpp_2m_karras", num_steps=4, guidance_scale=5.0, negative_prompt="")
    rows = [Row(None, 1.0, "photo of a man with red hair", 7)]
    ours = generate(stored, targets, rows, sampler, resolution=64)
    theirs = generate(base, targets, rows, sampler, resolution=64)
    assert ours.dtype == torch.float32 and 0 < float((ours - theirs).abs().mean()) < 0.02


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_and_a_folder_are_kept_in_the_same_precision(folders, files, load, family: str) -> None:
    told = {"prediction_type": "v_prediction"} if family == "sd2" else {}
    for base in (load(folders[family], dtype=torch.bfloat16), load(files[family], dtype=torch.bfloat16, **told)):
        assert {p.dtype for p in base.vae.parameters()} == {torch.float32}
        for model in (base.unet, *base.text_encoders):
            for name, parameter in model.named_parameters():
                is_kept = (parameter.ndim == 1 and "norm" in name) or "embeddings." in name
                assert parameter.dtype == (torch.float32 if is_kept else torch.bfloat16), name
        with torch.no_grad(), base.autocast():
            answer = base.predict(torch.zeros(1, 4, 8, 8), torch.tensor([5]), base.text_states(["a man"]))
        assert bool(torch.isfinite(answer).all())


def test_how_prompts_are_read_changes_the_image(base, targets) -> None:
    from sweep.evaluation.generate import Row, generate
    from sweep.evaluation.settings import Sampler

    sampler = Sampler(name="dpmpp_2m_karras", num_steps=2, guidance_scale=5.0, negative_prompt="")
    rows = [Row(None, 1.0, "photo of a man with red hair", 7)]
    images = [generate(base, targets, rows, sampler, resolution=64, **reading)
              for reading in ({}, {"clip_skip": 2}, {"max_token_length": 225})]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert float((images[i] - images[j]).abs().max()) > 1e-3
