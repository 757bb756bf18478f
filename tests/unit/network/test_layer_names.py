"""Files of other trainers: the same adapter, whatever its keys are called."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sweep.errors import AdapterFileError
from sweep.evaluation.lora_files import trained_header
from sweep.network.bank import AdapterBank, AdapterSpec
from sweep.network.lora_file import read_lora, write_lora

UNET = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
OUT = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out"
TEXT = "text_model.encoder.layers.0.self_attn.q_proj"
UNET_KEY, TEXT_KEY = f"lora_unet_{UNET.replace('.', '_')}", f"lora_te_{TEXT.replace('.', '_')}"
OUT_KEY = f"lora_unet_{OUT.replace('.', '_')}_0"


def pair(targets, key: str, rank: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    target = next(target for target in targets if target.key == key)
    g = torch.Generator().manual_seed(rank)
    return (torch.randn(rank, target.in_features, generator=g), torch.randn(target.out_features, rank, generator=g))


@pytest.mark.parametrize(("key", "down", "up"), [
    (UNET_KEY, f"unet.{UNET}.lora_A.weight", f"unet.{UNET}.lora_B.weight"),
    (UNET_KEY, f"base_model.model.{UNET}.lora_A.weight", f"base_model.model.{UNET}.lora_B.weight"),
    (UNET_KEY, f"base_model.model.{UNET}.lora_A.default.weight", f"base_model.model.{UNET}.lora_B.default.weight"),
    (UNET_KEY, f"unet.{UNET}.lora.down.weight", f"unet.{UNET}.lora.up.weight"),
    (UNET_KEY, f"{UNET}.lora_A.weight", f"{UNET}.lora_B.weight"),
    (UNET_KEY, f"unet.{UNET.replace('to_q', 'processor.to_q')}_lora.down.weight",
     f"unet.{UNET.replace('to_q', 'processor.to_q')}_lora.up.weight"),
    (OUT_KEY, f"unet.{OUT.replace('to_out', 'processor.to_out')}_lora.down.weight",
     f"unet.{OUT.replace('to_out', 'processor.to_out')}_lora.up.weight"),
    (TEXT_KEY, f"text_encoder.{TEXT}.lora_linear_layer.down.weight",
     f"text_encoder.{TEXT}.lora_linear_layer.up.weight"),
    (TEXT_KEY, f"text_encoder.{TEXT.removeprefix('text_model.')}.lora_A.weight",
     f"text_encoder.{TEXT.removeprefix('text_model.')}.lora_B.weight"),
    (TEXT_KEY, f"lora_te1_{TEXT.replace('.', '_')}.lora_down.weight",
     f"lora_te1_{TEXT.replace('.', '_')}.lora_up.weight"),
])
def test_every_spelling_is_the_same_layer(targets, tmp_path: Path, key: str, down: str, up: str) -> None:
    tensors = pair(targets, key)
    path = tmp_path / "a.safetensors"
    save_file(dict(zip((down, up), tensors, strict=True)), path)
    trained_header(path)
    lora = read_lora(path, targets)
    assert list(lora.layers) == [key] and lora.layers[key].scale == 1 and not lora.unknown
    assert torch.equal(lora.weights[key]["lora_down.weight"].flatten(1), tensors[0])
    assert torch.equal(lora.weights[key]["lora_up.weight"].flatten(1), tensors[1])


def test_peft_keeps_alpha_beside_the_tensors(targets, tmp_path: Path) -> None:
    tensors = dict(zip((f"unet.{UNET}.lora_A.weight", f"unet.{UNET}.lora_B.weight"), pair(targets, UNET_KEY),
                       strict=True))
    save_file(tensors, tmp_path / "a.safetensors", {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 1})})
    assert read_lora(tmp_path / "a.safetensors", targets).layers[UNET_KEY].scale == 0.5
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 4}')
    assert read_lora(tmp_path / "adapter_model.safetensors", targets).layers[UNET_KEY].scale == 2
    save_file(tensors, tmp_path / "b.safetensors", {"lora_adapter_metadata": "[not json"})
    with pytest.raises(AdapterFileError, match="alphas can't be read"):
        read_lora(tmp_path / "b.safetensors", targets)


@pytest.mark.parametrize(("config", "alpha"), [
    ({"lora_alpha": 16, "use_rslora": True}, 16 * 2 ** 0.5),  # of rank 2: alpha / sqrt(2)
    ({"lora_alpha": 16, "alpha_pattern": {"attn2.to_k": 8, "attn1.to_q": 4, "to_q": 2}}, 4),
    ({"lora_alpha": 16, "alpha_pattern": {r"down_blocks\.0.*to_q": 4}, "use_rslora": True}, 4 * 2 ** 0.5),
    ({"lora_alpha": 16, "alpha_pattern": {"1.to_q": 4, "o_q": 2}}, 16),  # whole names alone
])
def test_the_strength_that_peft_gives_a_layer(targets, tmp_path: Path, config: dict, alpha: float) -> None:
    tensors = dict(zip((f"{UNET}.lora_A.weight", f"{UNET}.lora_B.weight"), pair(targets, UNET_KEY), strict=True))
    whole = {"peft_type": "LORA", "r": 2, "bias": "none", "init_lora_weights": True, "use_dora": False, **config}
    in_file = {"lora_adapter_metadata": json.dumps({f"unet.{key}": value for key, value in whole.items()})}
    save_file({f"unet.{key}": tensor for key, tensor in tensors.items()}, tmp_path / "a.safetensors", in_file)
    save_file({f"base_model.model.{key}": tensor for key, tensor in tensors.items()},
              tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(whole))
    for name in ("a.safetensors", "adapter_model.safetensors"):
        layer = read_lora(tmp_path / name, targets).layers[UNET_KEY]
        assert layer.scale == pytest.approx(alpha / 2)


@pytest.mark.parametrize(("config", "message"), [
    ({"lora_alpha": 4, "init_lora_weights": "pissa_niter_4"}, "init_lora_weights='pissa_niter_4', which changes"),
    ({"lora_alpha": 4, "lora_bias": True}, "lora_bias=True"),
    ({"lora_alpha": 4, "use_newest_trick": {"strength": 2}}, "use_newest_trick="),
    ({"alpha": 4, "peft_type": "LOHA"}, "peft_type='LOHA'"),
    ({"use_rslora": True}, "alphas can't be read"),
    ({"lora_alpha": 4, "alpha_pattern": {"(": 4}}, "alphas can't be read"),
])
def test_what_peft_says_and_is_not_known_here_is_refused(targets, tmp_path: Path, config: dict, message: str) -> None:
    tensors = dict(zip((f"{UNET}.lora_A.weight", f"{UNET}.lora_B.weight"), pair(targets, UNET_KEY), strict=True))
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(AdapterFileError, match=re.escape(message)):
        read_lora(tmp_path / "adapter_model.safetensors", targets)


def test_strange_keys_are_listed_and_the_rest_is_read(targets, tmp_path: Path) -> None:
    down, up = pair(targets, UNET_KEY)
    save_file({f"{UNET_KEY}.lora_down.weight": down, f"{UNET_KEY}.lora_up.weight": up,
               "bundle_emb.trigger": down.clone(),
               "lora_unet_time_embedding_linear_1.diff": up.clone()}, tmp_path / "a.safetensors")
    lora = read_lora(tmp_path / "a.safetensors", targets)
    assert list(lora.layers) == [UNET_KEY]
    assert lora.unknown == ("bundle_emb.trigger", "lora_unet_time_embedding_linear_1.diff")


@pytest.mark.parametrize("algorithm", ["lora", "loha", "lokr", "ia3", "dora"])
def test_a_header_says_that_it_is_an_adapter(targets, tmp_path: Path, algorithm: str) -> None:
    bank = AdapterBank(targets, [AdapterSpec(dim=4, alpha=4, algorithm=algorithm, parts=("text_encoder",))])
    write_lora(tmp_path / "a.safetensors", bank.weights(0), dtype=torch.float16, metadata={})
    assert trained_header(tmp_path / "a.safetensors").shapes


def test_what_has_no_packed_form_becomes_a_weight_difference(targets, tmp_path: Path) -> None:
    """A LoHa with Tucker cores, and a LoKr of two low-rank factors."""
    conv = next(target for target in targets if target.is_spatial)
    target = next(target for target in targets if target.key == UNET_KEY)
    num_out, num_in, g = target.out_features, target.in_features, torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=g)

    hada = {name: draw(2, size) for name, size in (
        ("hada_w1_a", conv.out_features), ("hada_w2_a", conv.out_features), ("hada_w1_b", conv.in_features),
        ("hada_w2_b", conv.in_features))} | {"hada_t1": draw(2, 2, 3, 3), "hada_t2": draw(2, 2, 3, 3)}
    lokr = {"lokr_w1_a": draw(4, 1), "lokr_w1_b": draw(1, 4), "lokr_w2_a": draw(num_out // 4, 1),
            "lokr_w2_b": draw(1, num_in // 4), "alpha": torch.tensor(0.5)}
    save_file({**{f"{conv.key}.{name}": tensor for name, tensor in hada.items()},
               **{f"{UNET_KEY}.{name}": tensor for name, tensor in lokr.items()}}, tmp_path / "a.safetensors")
    lora = read_lora(tmp_path / "a.safetensors", targets)
    assert {layer.form.algorithm for layer in lora.layers.values()} == {"diff"}
    halves = [torch.einsum("ijhw,ip,jr->prhw", hada[f"hada_t{n}"], hada[f"hada_w{n}_a"], hada[f"hada_w{n}_b"])
              for n in (1, 2)]
    torch.testing.assert_close(lora.weights[conv.key]["diff"], halves[0] * halves[1], rtol=1e-4, atol=1e-4)
    product = torch.kron(lokr["lokr_w1_a"] @ lokr["lokr_w1_b"], lokr["lokr_w2_a"] @ lokr["lokr_w2_b"]) * 0.5
    torch.testing.assert_close(lora.weights[UNET_KEY]["diff"], product, rtol=1e-4, atol=1e-4)


def test_a_transposed_matrix_is_no_matrix_of_the_layer(targets, tmp_path: Path) -> None:
    """It has as many values."""
    down, up = pair(targets, UNET_KEY)
    save_file({f"{UNET_KEY}.lora_down.weight": down, f"{UNET_KEY}.lora_up.weight": up.T.contiguous()},
              tmp_path / "a.safetensors")
    with pytest.raises(AdapterFileError, match=re.escape(f"lora_up.weight {list(up.T.shape)}")):
        read_lora(tmp_path / "a.safetensors", targets)


def test_factors_that_do_not_fit_are_named(targets, tmp_path: Path) -> None:
    save_file({f"{UNET_KEY}.lokr_w1": torch.zeros(3, 3), f"{UNET_KEY}.lokr_w2": torch.zeros(5, 5)},
              tmp_path / "a.safetensors")
    with pytest.raises(AdapterFileError, match="attn1_to_q has lokr_w1"):
        read_lora(tmp_path / "a.safetensors", targets)
    bank = AdapterBank(targets, [AdapterSpec(dim=4, alpha=4)])
    write_lora(tmp_path / "b.safetensors", bank.weights(0), dtype=torch.float16, metadata={})
    tensors = load_file(tmp_path / "b.safetensors")
    del tensors[f"{UNET_KEY}.lora_up.weight"]
    save_file(tensors, tmp_path / "b.safetensors")
    with pytest.raises(AdapterFileError, match="attn1_to_q .*don't make a weight of the base's layer"):
        read_lora(tmp_path / "b.safetensors", targets)
