"""Each algorithm against its formula, its file against LyCORIS' own modules, dropout, and the norm limit."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from sweep.network.apply import weight_difference
from sweep.network.bank import AdapterBank, AdapterSpec
from sweep.network.counter_random import uniform
from sweep.network.forms import Form, Layer
from sweep.network.lora_file import LoadedSpec, LoraFile, read_lora, write_lora
from sweep.network.targets import Target

ASSETS = Path(__file__).parents[2] / "assets/kohya"
ALGORITHMS = ("lora", "loha", "lokr", "ia3", "dylora", "dora")


def toy_targets() -> list[Target]:
    """A Linear, a 1x1 and a strided 3x3 convolution with biases."""
    torch.manual_seed(0)
    linear, point, spatial = nn.Linear(12, 8), nn.Conv2d(12, 8, 1), nn.Conv2d(12, 8, 3, stride=2, padding=1)
    return [Target("lora_unet_ff_net_2", "unet", linear, 12, 8, False, kind="feed_forward"),
            Target("lora_unet_to_k", "unet", point, 12, 8, True),
            Target("lora_unet_conv", "unet", spatial, 12, 8, True, (3, 3), (2, 2), (1, 1), "resnet")]


def inputs(target: Target, num_rows: int = 4) -> torch.Tensor:
    g = torch.Generator().manual_seed(1)
    return torch.randn(num_rows, *((12, 6, 6) if target.is_conv else (5, 12)), generator=g)


def spec(algorithm: str, **changes) -> AdapterSpec:
    values = {"dim": 4, "alpha": 2, "conv_dim": 2, "conv_alpha": 1, "algorithm": algorithm,
              "option": {"lokr": 2, "dylora": 2}.get(algorithm, 0)}
    return AdapterSpec(**{**values, **changes})


def random_bank(targets: list[Target], specs: list, seeds: list[int]) -> AdapterBank:
    bank = AdapterBank(targets, specs)
    for k, seed in enumerate(seeds):
        bank.init_weights(k, seed)
        bank.flat(k).add_(0.3 * torch.randn(bank.flat(k).shape, generator=torch.Generator().manual_seed(seed)))
    return bank


def outputs(bank: AdapterBank, target: Target, x: torch.Tensor, counts: list[int], draws=None) -> torch.Tensor:
    with torch.no_grad(), bank.attached(), bank.rows(counts, draws):
        return target.module(x)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_output_is_that_of_the_changed_weight(algorithm: str) -> None:
    """Two stacked adapters; the reference merges W' = W + strength * difference and runs the layer."""
    targets = toy_targets()
    bank = random_bank(targets, [spec(algorithm), spec(algorithm, alpha=4, strength=0.5)], [1, 2])
    assert len(bank.groups) == 1
    for target in targets:
        weights = [bank.weights(k).get(target.key) for k in range(2)]
        if weights[0] is None:
            assert algorithm == "ia3" and target.is_spatial
            continue
        x, module = inputs(target), target.module
        ours = outputs(bank, target, x, [2, 2])
        for k, strength in enumerate((1.0, 0.5)):
            changed = module.weight + strength * difference(bank, k, target)
            rows = x[2 * k:2 * k + 2]
            theirs = (nn.functional.conv2d(rows, changed, module.bias, module.stride, module.padding)
                      if target.is_conv else nn.functional.linear(rows, changed, module.bias))
            assert torch.allclose(ours[2 * k:2 * k + 2], theirs, atol=1e-4), target.key
            assert (theirs - module(rows)).abs().max() > 1e-2


def difference(bank: AdapterBank, k: int, target: Target) -> torch.Tensor:
    """The weight difference, by each paper's formula."""
    layer, weight = bank.groups[0].layers_K[k][target.key], target.module.weight.detach()
    tensors = {name: tensor.detach() for name, tensor in bank.weights(k)[target.key].items()}
    if layer.form.algorithm == "ia3":
        scales = tensors["weight"].flatten()
        return weight * (scales.view(1, -1) if layer.form.option else scales.view(-1, *[1] * (weight.ndim - 1)))
    if layer.form.algorithm == "loha":
        product = (tensors["hada_w1_a"] @ tensors["hada_w1_b"]) * (tensors["hada_w2_a"] @ tensors["hada_w2_b"])
        return product.reshape(weight.shape) * layer.scale
    if layer.form.algorithm == "lokr":
        whole = "lokr_w2" in tensors
        w2 = tensors["lokr_w2"].flatten(1) if whole else tensors["lokr_w2_a"] @ tensors["lokr_w2_b"]
        return torch.kron(tensors["lokr_w1"], w2).reshape(weight.shape) * (1 if whole else layer.scale)
    low_rank = weight_difference(Form("lora", layer.form.dim), target, tensors, torch.tensor(layer.scale))
    if layer.form.algorithm != "dora":
        return low_rank
    merged = weight + low_rank
    norms = merged.flatten(1).norm(dim=1)
    return merged * (tensors["dora_scale"].flatten() / norms).view(-1, *[1] * (weight.ndim - 1)) - weight


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_fresh_adapter_changes_nothing(algorithm: str) -> None:
    targets = toy_targets()
    bank = AdapterBank(targets, [spec(algorithm)])
    global_state = torch.get_rng_state()
    bank.init_weights(0, seed=3)
    assert torch.equal(torch.get_rng_state(), global_state), "the global generator is left alone"
    again = AdapterBank(targets, [spec(algorithm)] * 2)
    again.init_weights(1, seed=3)
    assert torch.equal(again.flat(1), bank.flat(0)), "a function of the seed alone"
    for target in targets:
        x = inputs(target)
        assert torch.allclose(outputs(bank, target, x, [4]), target.module(x), atol=1e-5)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_parts_and_ups_stand_in_contiguous_runs(targets, algorithm: str) -> None:
    bank = AdapterBank(targets, [spec(algorithm)])
    bank.init_weights(0, seed=1)
    spans = bank.spans(0)
    order = [(part, is_up) for part, is_up, _ in spans]
    expected = [(part, is_up) for part in ("unet", "text_encoder") for is_up in (False, True)]
    assert order == ([pair for pair in expected if pair[1]] if algorithm == "ia3" else expected)
    assert spans[0][2].start == 0 and spans[-1][2].stop == len(bank.flat(0))
    assert all(before[2].stop == after[2].start for before, after in pairwise(spans))
    for _, is_up, span in spans:
        assert bank.flat(0)[span].any() != is_up
    parameters = torch.cat([parameter.tensor.flatten() for parameter in bank.parameters_of(0)])
    assert torch.equal(parameters, bank.flat(0))


def test_the_attention_preset_takes_attention_alone(targets) -> None:
    keys = AdapterSpec(dim=4, alpha=4, preset="attention").layers(targets)
    assert keys and all("_attn" in key for key in keys)


@pytest.mark.parametrize("algorithm", ["lora", "dora", "loha", "lokr"])
def test_lycoris_reads_our_file_as_we_mean_it(algorithm: str, tmp_path: Path) -> None:
    """LyCORIS' own modules, given our tensors, change the weight as ours do. For LoHa and LoKr on the Linear: what its
    modules make of a convolution has its shape in the layer's forward pass alone."""
    from lycoris.modules import get_module, make_module

    targets = toy_targets()
    bank = random_bank(targets, [spec(algorithm)], [1])
    path = tmp_path / "a.safetensors"
    write_lora(path, bank.weights(0), dtype=torch.float32, metadata={})
    from safetensors.torch import load_file

    saved = load_file(path)
    for target in targets:
        if target.is_conv and algorithm in ("loha", "lokr"):
            continue
        kind, tensors = get_module(saved, target.key)
        module = make_module(kind, tensors, target.key, target.module)
        merged, _ = module.get_merged_weight(1.0)
        theirs = merged.detach().reshape(target.weight_shape) - target.module.weight.detach()
        scale = bank.groups[0].layers_K[0][target.key].scale if algorithm == "loha" else 1.0
        # its LoHa module multiplies by alpha / dim once in get_weight and once more when it merges
        assert torch.allclose(theirs, difference(bank, 0, target) * scale, atol=1e-4), (target.key, algorithm)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_file_draws_what_was_trained(algorithm: str, tmp_path: Path) -> None:
    targets = toy_targets()
    for target in targets:
        target.module.requires_grad_(False)
    bank = random_bank(targets, [spec(algorithm)], [1])
    write_lora(tmp_path / "a.safetensors", bank.weights(0), dtype=torch.float32, metadata={})
    lora = read_lora(tmp_path / "a.safetensors", targets)
    loaded = AdapterBank(targets, [LoadedSpec(lora)])
    loaded.load_weights(0, lora.weights)
    for target in targets:
        x = inputs(target)
        assert torch.allclose(outputs(loaded, target, x, [4]), outputs(bank, target, x, [4]), atol=1e-5)


DROPOUTS = [("lora", "network_dropout"), ("lora", "rank_dropout"), ("dora", "rank_dropout"), ("loha", "module_dropout"),
            ("dylora", "network_dropout")]


@pytest.mark.parametrize(("algorithm", "name"), DROPOUTS)
def test_dropout_is_a_function_of_seed_and_batch(algorithm: str, name: str) -> None:
    targets = toy_targets()
    one = spec(algorithm, **{name: 0.5})
    packed, solo = random_bank(targets, [one, one], [1, 2]), random_bank(targets, [one], [2])
    for target in targets:
        x = inputs(target)
        together = outputs(packed, target, x, [2, 2], [(7, 3), (8, 5)])
        alone = outputs(solo, target, x[2:], [2], [(8, 5)])
        assert torch.allclose(together[2:], alone, atol=1e-5)
        later = [outputs(solo, target, x[2:], [2], [(8, index)]) for index in range(8)]
        assert len({round(float(answer.sum()), 4) for answer in later}) > 1, "another batch drops others"
        clean = random_bank(targets, [spec(algorithm)], [2])
        drawn = outputs(solo, target, x[2:], [2])
        assert torch.allclose(drawn, outputs(clean, target, x[2:], [2])), "images are drawn without dropout"


@pytest.mark.parametrize("name", ["network_dropout", "rank_dropout"])
def test_dropout_keeps_the_mean(name: str) -> None:
    """Rescaled by 1 / (1 - p), as sd-scripts does."""
    target = toy_targets()[0]
    bank = random_bank([target], [spec("lora", **{name: 0.4})], [1])
    x = inputs(target)
    bare = target.module(x).detach()
    added = torch.stack([outputs(bank, target, x, [4], [(1, index)]) - bare for index in range(400)])
    full = outputs(bank, target, x, [4]) - bare
    assert (added.mean(dim=0) - full).norm() < 0.1 * full.norm()
    assert (added[0] - full).norm() > 0.2 * full.norm()


def test_module_dropout_drops_the_whole_batch_and_does_not_rescale() -> None:
    target = toy_targets()[0]
    bank = random_bank([target], [spec("lora", module_dropout=0.3)], [1])
    x = inputs(target)
    bare, full = target.module(x).detach(), outputs(bank, target, x, [4])
    answers = [outputs(bank, target, x, [4], [(1, index)]) for index in range(300)]
    dropped = [torch.allclose(answer, bare) for answer in answers]
    assert all(torch.allclose(answer, full) for answer, is_bare in zip(answers, dropped, strict=True) if not is_bare)
    assert 0.2 < sum(dropped) / 300 < 0.4


def test_dylora_trains_one_block_over_the_earlier_ones() -> None:
    target = toy_targets()[0]
    bank = random_bank([target], [spec("dylora", dim=8)], [1])
    seen = set()
    for index in range(40):
        bank.zero_grad()
        with bank.attached(), bank.rows([4], [(1, index)]):
            target.module(inputs(target)).square().sum().backward()
        gradient = bank.groups[0].leaves[target.key]["lora_down.weight"].grad[0].abs().sum(dim=1) > 0
        [block] = {rank // 2 for rank in range(8) if gradient[rank]}
        assert gradient.sum() == 2
        seen.add(block)
    assert seen == {0, 1, 2, 3}


@pytest.mark.parametrize(("optimizer", "moves_others"), [
    (lambda tensors: torch.optim.SGD(tensors, lr=0.1), False),
    (lambda tensors: torch.optim.SGD(tensors, lr=0.1, weight_decay=0.1), True),
    (lambda tensors: torch.optim.AdamW(tensors, lr=0.1, weight_decay=0.0), True)])
def test_what_moves_of_dylora_is_what_the_docs_say(optimizer, moves_others: bool) -> None:
    """The drawn block; under momentum and weight decay the others too, once they have learnt something."""
    target = toy_targets()[0]
    bank = random_bank([target], [spec("dylora", dim=8)], [1])
    down = bank.groups[0].leaves[target.key]["lora_down.weight"]
    tensors = [parameter.tensor for parameter in bank.parameters_of(0)]
    for tensor, parameter in zip(tensors, bank.parameters_of(0), strict=True):
        tensor.grad = parameter.grad
    stepped, others_moved = optimizer(tensors), False
    for index in range(12):
        bank.zero_grad()
        with bank.attached(), bank.rows([4], [(1, index)]):
            target.module(inputs(target)).square().mean().backward()
        drawn = down.grad[0].abs().sum(dim=1) > 0
        before = down.detach()[0].clone()
        stepped.step()
        moved = (down.detach()[0] - before).abs().sum(dim=1) > 0
        assert drawn.sum() == 2 and moved[drawn].all()
        others_moved |= bool(moved[~drawn].any())
    assert others_moved == moves_others


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_stacked_companion_of_nan_is_not_felt(algorithm: str) -> None:
    targets = toy_targets()
    both, alone = random_bank(targets, [spec(algorithm)] * 2, [1, 2]), random_bank(targets, [spec(algorithm)], [2])
    both.flat(0).fill_(float("nan"))
    both.zero_grad()
    alone.zero_grad()
    for target in targets:
        x = inputs(target)
        with both.attached(), both.rows([2, 2], [(1, 0), (2, 0)]):
            together = target.module(x)
        together.square().mean(dim=tuple(range(1, together.ndim))).sum().backward()
        with alone.attached(), alone.rows([2], [(2, 0)]):
            solo = target.module(x[2:])
        solo.square().mean(dim=tuple(range(1, solo.ndim))).sum().backward()
        assert torch.allclose(together[2:], solo, atol=1e-5)
    assert alone.flat_grad(0).norm() > 0
    assert torch.allclose(both.flat_grad(1), alone.flat_grad(0), rtol=1e-4, atol=1e-5)


def test_counter_random_is_uniform_and_fixed() -> None:
    keys = torch.tensor([0, 1, 2**62])
    values = uniform(keys, 100_000)
    assert values.min() >= 0 and values.max() < 1
    assert (values.mean(dim=1) - 0.5).abs().max() < 0.005
    counts = torch.histc(values[0], bins=20, min=0, max=1)
    assert counts.min() > 4700 and counts.max() < 5300
    assert abs(float(torch.corrcoef(values[:2])[0, 1])) < 0.01
    assert torch.equal(uniform(keys[:1], 10), values[:1, :10]), "a value depends on its key and place alone"
    # SplitMix64 from state 0 begins with 0xE220A8397B1DCDAF (the reference implementation's first output)
    assert float(values[0, 0]) == (0xE220A8397B1DCDAF >> 40) / 2**24


@pytest.mark.parametrize("case", [0, 1, 2])
def test_weight_norms_are_scaled_as_sd_scripts_does(case: int) -> None:
    golden = json.loads((ASSETS / "scale_weight_norms.json").read_text())["cases"]
    before, expected = golden[0]["before"], golden[case]
    targets, layers, weights = [], {}, {}
    for name, module in before.items():
        down, up = torch.tensor(module["down"]), torch.tensor(module["up"])
        kernel = tuple(down.shape[2:]) or (1, 1)
        targets.append(Target(name, "unet", nn.Identity(), down.shape[1], len(up), down.ndim == 4, kernel))
        layers[name] = Layer(Form("lora", module["dim"]), module["alpha"])
        weights[name] = {"lora_down.weight": down, "lora_up.weight": up}
    bank = AdapterBank(targets, [LoadedSpec(LoraFile(layers, weights, {}))])
    bank.load_weights(0, weights)
    before_T, after_T = bank.scale_weight_norms(0, expected["max_norm"])
    assert int((after_T < before_T).sum()) == expected["keys_scaled"]
    assert (float(after_T.mean()), float(after_T.max())) == pytest.approx(
        (expected["mean_norm_reported"], expected["max_norm_reported"]), rel=1e-5)
    for name, module in expected["after"].items():
        for ours, theirs in zip(weights[name], ("down", "up"), strict=True):
            assert torch.allclose(bank.weights(0)[name][ours], torch.tensor(module[theirs]), atol=1e-5), name
