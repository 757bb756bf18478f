"""pocket_rv is the pocket base and its difference: merged once, of an identity of its own, and shipped."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

import pytest
import torch

from sweep.errors import ModelError, ScoringError
from sweep.evaluation.generate import Row, generate
from sweep.evaluation.settings import check_fits
from sweep.identity import base_identity
from sweep.model.base import EMBEDDED, BaseModelConfig
from sweep.model.difference import merge_difference
from sweep.model.loading import load_base
from sweep.model.sources import DIFFERENCE, find_base
from sweep.network.lora_file import read_lora
from sweep.network.targets import find_targets
from sweep.network.tools.base_weights import read_base
from sweep.pocket import WEIGHTS_DIR
from tests.conftest import ROOT
from tests.unit.test_config import loaded


def rv(path: Path | None = None) -> BaseModelConfig:
    return BaseModelConfig(name="pocket_rv", path=None if path is None else str(path), resolution=64)


@pytest.fixture(scope="module")
def base_rv():
    return load_base(rv(), "rv")


@pytest.fixture
def other_set(tmp_path: Path) -> Path:
    """A copy of the weight set without its difference."""
    shutil.copytree(WEIGHTS_DIR / "sd", tmp_path / "sd")
    return tmp_path


def predicted(base) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    noisy, timesteps = torch.randn(2, 4, 16, 16, generator=generator), torch.tensor([300, 700])
    with torch.no_grad():
        return base.predict(noisy, timesteps, base.text_states(["photo of a man", "photo of a woman, on a beach"]))


def test_it_is_the_pocket_base_with_its_file_as_a_lora(base, targets, base_rv) -> None:
    """Merged weights and the adapter over the frozen base are the same function (Hu et al. 2021, 4.1)."""
    lora = read_lora(WEIGHTS_DIR / DIFFERENCE, targets)
    assert lora.unknown == () and len(lora.layers) == sum(target.part == "unet" for target in targets)
    sampler = loaded("base_model=pocket_rv").scoring.sampler
    prompts = ("photo of a man with red hair, on a beach, portrait", "photo of a woman, in a forest, close-up")
    with_lora = [Row(lora, 1.0, prompt, seed) for seed, prompt in enumerate(prompts)]
    alone = [Row(None, 0.0, prompt, seed) for seed, prompt in enumerate(prompts)]
    merged = generate(base_rv, [], alone, sampler, resolution=64)
    assert (merged - generate(base, targets, with_lora, sampler, resolution=64)).abs().max() < 2e-3
    assert (merged - generate(base, [], alone, sampler, resolution=64)).abs().mean() > 0.02  # it looks otherwise


def test_nothing_else_differs(base, base_rv) -> None:
    assert base_rv.name == "pocket_rv" and base_rv.family == base.family
    states, states_rv = (each.text_states(["photo of a man"]).states_BLD for each in (base, base_rv))
    assert torch.equal(states, states_rv)
    assert all(torch.equal(a, b) for a, b in zip(base.vae.parameters(), base_rv.vae.parameters(), strict=True))
    assert not any(parameter.requires_grad for parameter in base_rv.unet.parameters())


def test_it_is_merged_before_it_is_rounded(base_rv) -> None:
    stored = load_base(rv(), "rv", "cpu", torch.bfloat16)
    for whole, half in zip(base_rv.unet.parameters(), stored.unet.parameters(), strict=True):
        assert torch.equal(whole.to(half.dtype), half)


def test_the_tools_read_the_same_weights(base_rv) -> None:
    layers = read_base("pocket_rv", torch.float32).layers
    expected = {target.key: target.module.weight for target in find_targets(base_rv)}
    assert layers.keys() == expected.keys()
    for key, weight in expected.items():
        torch.testing.assert_close(layers[key], weight.detach().float(), atol=1e-6, rtol=0)


def test_its_identity_covers_base_and_difference(other_set: Path, tmp_path: Path) -> None:
    pocket = base_identity(BaseModelConfig(name="pocket", path=None, resolution=64), tmp_path)
    shipped = base_identity(rv(), tmp_path)
    assert pocket != shipped == base_identity(rv(), tmp_path / "another memory")
    shutil.copy(WEIGHTS_DIR / DIFFERENCE, other_set)
    assert base_identity(rv(other_set / "sd"), tmp_path) == shipped  # where it lies does not count
    content = bytearray((other_set / DIFFERENCE).read_bytes())
    content[-1] ^= 1
    (other_set / DIFFERENCE).write_bytes(bytes(content))
    assert base_identity(rv(other_set / "sd"), tmp_path) != shipped


def test_a_set_without_a_difference_says_how_to_make_one(other_set: Path) -> None:
    with pytest.raises(ModelError, match=r"base_model=pocket_rv .* no .*rv\.safetensors.*build --stages rv --out"):
        find_base(rv(other_set / "sd"))


def test_a_file_that_is_no_difference_is_refused(base, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    with pytest.raises(ModelError, match=r"is no difference of this UNet"):
        merge_difference(base.unet, WEIGHTS_DIR / "judge.safetensors")
    tensors = load_file(WEIGHTS_DIR / DIFFERENCE)
    key = next(name.partition(".")[0] for name in sorted(tensors) if "attn1_to_q" in name)
    one = {f"{key}.{name}": tensors[f"{key}.{name}"] for name in ("lora_down.weight", "lora_up.weight")}
    save_file(one, tmp_path / "lacking.safetensors")
    with pytest.raises(ModelError, match=r"lacks .*\.alpha"):
        merge_difference(base.unet, tmp_path / "lacking.safetensors")
    down = f"{key}.lora_down.weight"
    narrow = {**one, f"{key}.alpha": torch.tensor(1.0), down: one[down][:, :-1]}
    save_file({name: tensor.contiguous() for name, tensor in narrow.items()}, tmp_path / "narrow.safetensors")
    with pytest.raises(ModelError, match=r"has the shape .* the UNet's layer"):
        merge_difference(base.unet, tmp_path / "narrow.safetensors")


def test_it_is_small_and_part_of_the_package() -> None:
    assert (WEIGHTS_DIR / DIFFERENCE).stat().st_size <= 2_000_000
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["sweep.pocket"]
    packed = {path for pattern in patterns for path in (ROOT / "sweep" / "pocket").glob(pattern)}
    assert WEIGHTS_DIR / DIFFERENCE in packed


def test_the_pockets_scoring_takes_it_and_no_real_base() -> None:
    for name in EMBEDDED:
        assert loaded(f"base_model={name}").train.base_model.name == name
        check_fits(loaded().scoring, name)
    with pytest.raises(ScoringError, match="pocket bases alone, not of base_model=sd15"):
        check_fits(loaded().scoring, "sd15")
