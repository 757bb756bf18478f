"""What the tools write is what was asked for: the same weights, and through the base the same images."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sweep.errors import ModelError
from sweep.evaluation.generate import Row, generate
from sweep.evaluation.settings import Sampler
from sweep.model.base import BaseModelConfig
from sweep.model.loading import load_base
from sweep.network.bank import AdapterBank, AdapterSpec
from sweep.network.lora_file import LoraFile, read_lora, write_lora
from sweep.network.targets import find_targets
from sweep.network.tools.base_weights import read_base
from sweep.network.tools.layers import matrix_of
from sweep.network.tools.low_rank import spectrum_of
from sweep.network.tools.make import bake, extract, inner, merge, resize
from tests import miniatures

PLAIN = AdapterSpec(dim=4, alpha=2)
WITH_CONVOLUTIONS = AdapterSpec(dim=4, alpha=2, conv_dim=2, conv_alpha=1)


def lora_file(path: Path, targets, spec: AdapterSpec, *, seed: int = 1, size: float = 0.05) -> Path:
    """A file of random weights."""
    bank = AdapterBank(targets, [spec])
    bank.init_weights(0, seed=seed)
    bank.flat(0).add_(size * torch.randn(bank.flat(0).shape, generator=torch.Generator().manual_seed(seed)))
    metadata = {"ss_network_dim": "4", "ss_base_model_version": "x"}
    write_lora(path, bank.weights(0), dtype=torch.float32, metadata=metadata)
    return path


def matrices(path: Path, targets) -> dict[str, torch.Tensor]:
    lora = read_lora(path, targets)
    by_key = {target.key: target for target in targets}
    return {key: matrix_of(layer, by_key[key], lora.weights[key]) for key, layer in lora.layers.items()}


def drawn(base, targets, lora: LoraFile | None, strength: float = 1.0) -> torch.Tensor:
    sampler = Sampler(name="ddim", num_steps=6, guidance_scale=4.0, negative_prompt="")
    rows = [Row(lora, strength, prompt, seed=3) for prompt in ("photo of alexq man on a beach", "photo of a woman")]
    return generate(base, targets, rows, sampler, resolution=64)


def pocket(folder: Path):
    return load_base(BaseModelConfig(name="pocket", path=str(folder), resolution=64), "tuned")


@pytest.mark.parametrize("spec", [
    WITH_CONVOLUTIONS, *(AdapterSpec(dim=4, alpha=2, algorithm=name, option=2) for name in ("loha", "lokr", "ia3")),
    AdapterSpec(dim=4, alpha=4, algorithm="dora")], ids=lambda spec: spec.algorithm)
def test_a_baked_base_draws_what_base_and_lora_draw(base, targets, tmp_path: Path, spec: AdapterSpec) -> None:
    path = lora_file(tmp_path / "a.safetensors", targets, spec)
    done = bake([path], [0.7], "pocket", tmp_path / "baked", torch.float32)
    tuned = pocket(tmp_path / "baked")
    beside = drawn(base, targets, read_lora(path, targets), 0.7)
    assert (drawn(tuned, find_targets(tuned), None) - beside).abs().max() < 2e-3
    assert (drawn(base, targets, None) - beside).abs().max() > 0.05  # the LoRA does something
    assert done.kept_frac > 1 - 1e-9


def test_extracting_gives_the_baked_lora_back(targets, tmp_path: Path) -> None:
    path = lora_file(tmp_path / "a.safetensors", targets, WITH_CONVOLUTIONS)
    bake([path], [1.0], "pocket", tmp_path / "baked", torch.float32)
    out = tmp_path / "extracted.safetensors"
    done = extract(str(tmp_path / "baked"), "pocket", out, rank=4, conv_rank=2, dtype=torch.float32)
    before, after = matrices(path, targets), matrices(out, targets)
    assert before.keys() == after.keys()
    for key, matrix in before.items():
        assert (after[key] - matrix).norm() < 1e-4 * matrix.norm(), key
    assert done.kept_frac > 1 - 1e-8 and set(done.ranks.values()) == {4, 2} and done.notes == ()


def test_a_base_in_half_precision_rounds_what_is_baked_into_it(targets, tmp_path: Path) -> None:
    path = lora_file(tmp_path / "a.safetensors", targets, PLAIN)
    done = bake([path], [1.0], "pocket", tmp_path / "baked")
    assert {tensor.dtype for tensor in read_base(str(tmp_path / "baked")).layers.values()} == {torch.float16}
    assert 1e-6 < 1 - done.kept_frac < 1e-3
    back = extract(str(tmp_path / "baked"), "pocket", tmp_path / "b.safetensors", rank=4, dtype=torch.float16)
    assert back.kept_frac > 0.999


def test_extracting_less_loses_what_the_singular_values_say(targets, tmp_path: Path) -> None:
    path = lora_file(tmp_path / "a.safetensors", targets, PLAIN)
    bake([path], [1.0], "pocket", tmp_path / "baked", torch.float32)
    done = extract(str(tmp_path / "baked"), "pocket", tmp_path / "b.safetensors", rank=2, dtype=torch.float32)
    expected = sum(spectrum_of(matrix).lost(2) ** 2 for matrix in matrices(path, targets).values()) ** 0.5
    assert done.left == pytest.approx(expected, rel=1e-3)


def test_extract_says_what_a_lora_can_not_hold(tmp_path: Path, targets) -> None:
    path = lora_file(tmp_path / "a.safetensors", targets, WITH_CONVOLUTIONS)
    bake([path], [1.0], "pocket", tmp_path / "baked")
    file = tmp_path / "baked" / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["conv_in.bias"] = tensors["conv_in.bias"] + 1
    save_file(tensors, file)
    done = extract(str(tmp_path / "baked"), "pocket", tmp_path / "b.safetensors", rank=4, dtype=torch.float32)
    assert any("--conv-rank" in note for note in done.notes) and any("conv_in.bias" in note for note in done.notes)


@pytest.mark.parametrize("algorithm", ["lora", "loha", "lokr"])
def test_half_the_rank_loses_what_the_singular_values_say(targets, tmp_path: Path, algorithm: str) -> None:
    spec = AdapterSpec(dim=8, alpha=8, algorithm=algorithm, option=2)
    path, out = lora_file(tmp_path / "a.safetensors", targets, spec), tmp_path / "half.safetensors"
    done = resize(path, out, targets, rank=4, keep=None)
    before, after = matrices(path, targets), matrices(out, targets)
    for key, matrix in before.items():
        lost = torch.linalg.svdvals(matrix)[4:].norm()
        assert float((after[key] - matrix).norm()) == pytest.approx(float(lost), rel=1e-3, abs=1e-5), key
    assert set(done.ranks.values()) == {4}
    assert done.left == pytest.approx(sum(float(torch.linalg.svdvals(m)[4:].square().sum()) for m in before.values())
                                      ** 0.5, rel=1e-3)


def test_kept_energy_picks_the_smallest_rank_that_keeps_it(targets, tmp_path: Path) -> None:
    path, out = lora_file(tmp_path / "a.safetensors", targets, AdapterSpec(dim=8, alpha=8)), tmp_path / "b.safetensors"
    done = resize(path, out, targets, rank=None, keep=0.8)
    for key, matrix in matrices(path, targets).items():
        energy = torch.linalg.svdvals(matrix).double().square()
        shares = energy.cumsum(0) / energy.sum()
        rank = done.ranks[key]
        assert shares[rank - 1] >= 0.8 - 1e-6 and (rank == 1 or shares[rank - 2] < 0.8)
    assert done.kept_frac >= 0.8 and len(set(done.ranks.values())) > 1
    assert read_lora(out, targets).metadata["ss_network_dim"] == "Dynamic"
    assert max(resize(path, tmp_path / "c.safetensors", targets, rank=3, keep=0.99).ranks.values()) == 3


def test_resizing_to_its_own_rank_changes_nothing(targets, tmp_path: Path) -> None:
    path, out = lora_file(tmp_path / "a.safetensors", targets, WITH_CONVOLUTIONS), tmp_path / "b.safetensors"
    assert resize(path, out, targets, rank=4, keep=None).kept_frac > 1 - 1e-9
    metadata = read_lora(out, targets).metadata
    assert metadata["ss_base_model_version"] == "x" and metadata["ss_training_comment"] == "resized to rank 4"


def test_merged_loras_add_up(base, targets, tmp_path: Path) -> None:
    a = lora_file(tmp_path / "a.safetensors", targets, PLAIN, seed=1)
    b = lora_file(tmp_path / "b.safetensors", targets, AdapterSpec(dim=2, alpha=1, parts=("unet",)), seed=2)
    out = tmp_path / "both.safetensors"
    done = merge([a, b], [0.6, 0.7], out, targets, dtype=torch.float32)
    first, second, both = (matrices(path, targets) for path in (a, b, out))
    for key, matrix in both.items():
        expected = 0.6 * first[key] + (0.7 * second[key] if key in second else 0)
        assert torch.allclose(matrix, expected, atol=1e-6), key
    assert done.kept_frac > 1 - 1e-9 and set(done.ranks.values()) == {6, 4}
    bake([a, b], [0.6, 0.7], "pocket", tmp_path / "baked")
    tuned = pocket(tmp_path / "baked")
    merged = drawn(base, targets, read_lora(out, targets))
    assert (drawn(tuned, find_targets(tuned), None) - merged).abs().max() < 2e-3


def test_merging_into_a_rank_is_the_nearest_of_that_rank(targets, tmp_path: Path) -> None:
    a, b = (lora_file(tmp_path / f"{seed}.safetensors", targets, PLAIN, seed=seed) for seed in (1, 2))
    done = merge([a, b], [1.0, 1.0], tmp_path / "c.safetensors", targets, rank=4, dtype=torch.float32)
    first, second = matrices(a, targets), matrices(b, targets)
    sums = {key: matrix + second[key] for key, matrix in first.items()}
    expected = sum(spectrum_of(matrix).lost(4) ** 2 for matrix in sums.values()) ** 0.5
    assert done.left == pytest.approx(expected, rel=1e-3) and set(done.ranks.values()) == {4}


def test_the_inner_ranks_of_a_dylora(targets, tmp_path: Path) -> None:
    spec = AdapterSpec(dim=8, alpha=4, algorithm="dylora", option=4)
    path, out = lora_file(tmp_path / "a.safetensors", targets, spec), tmp_path / "a4.safetensors"
    inner(path, out, targets, rank=4)
    whole, part = read_lora(path, targets), matrices(out, targets)
    for key, tensors in whole.weights.items():
        up, down = tensors["lora_up.weight"].flatten(1), tensors["lora_down.weight"].flatten(1)
        assert torch.allclose(part[key], 0.5 * up[:, :4] @ down[:4], atol=1e-6), key


@pytest.mark.parametrize("family", [pytest.param("sd1", marks=pytest.mark.slow), "sd2", "sdxl"])  # XL has sd1's encoder
def test_folder_and_checkpoint_file_of_each_family(tmp_path: Path, family: str) -> None:
    folder = miniatures.write_folder(tmp_path / "folder", family)
    file = miniatures.write_checkpoint(tmp_path / "model.safetensors", folder, family, metadata={"kept": "yes"})
    targets = read_base(str(file)).targets
    assert [target.key for target in targets] == [target.key for target in read_base(str(folder)).targets]
    path = lora_file(tmp_path / "a.safetensors", targets, PLAIN)
    bake([path], [1.0], str(file), tmp_path / "baked.safetensors")
    bake([path], [1.0], str(folder), tmp_path / "baked")
    with pytest.raises(ModelError, match=r"must end in .safetensors, since .*model.safetensors is a file"):
        bake([path], [1.0], str(file), tmp_path / "folder_of_a_file")
    of_file, of_folder = read_base(str(tmp_path / "baked.safetensors")), read_base(str(tmp_path / "baked"))
    for key, weight in of_folder.layers.items():
        assert torch.equal(of_file.layers[key].reshape(weight.shape), weight), key
    before, after = load_file(file), load_file(tmp_path / "baked.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed and all(("attn" in name or "ff.net" in name or "proj_" in name or "mlp" in name) for name in changed)
    done = extract(str(tmp_path / "baked.safetensors"), str(file), tmp_path / "b.safetensors", rank=4,
                   dtype=torch.float32)
    assert done.kept_frac > 1 - 1e-6
