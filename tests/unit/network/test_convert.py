"""Any form in, any form out, and what can't be said in a form is refused by name."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sweep.model.base import EMBEDDED
from sweep.network.bank import AdapterBank, AdapterSpec
from sweep.network.convert import main
from sweep.network.lora_file import LoraFile, read_lora, write_lora


def written(path: Path, targets, spec: AdapterSpec, dtype=torch.float32) -> Path:
    """A file of random weights."""
    bank = AdapterBank(targets, [spec])
    bank.init_weights(0, seed=1)
    bank.flat(0).copy_(torch.randn(bank.flat(0).shape, generator=torch.Generator().manual_seed(1)))
    write_lora(path, bank.weights(0), dtype=dtype, metadata={"ss_network_dim": "4"})
    return path


def products(lora: LoraFile) -> dict[str, torch.Tensor]:
    return {key: w["lora_up.weight"].flatten(1) @ w["lora_down.weight"].flatten(1) * lora.layers[key].scale
            for key, w in lora.weights.items()}


@pytest.mark.parametrize("form", ["peft", "diffusers"])
def test_there_and_back(targets, tmp_path: Path, form: str, capsys) -> None:
    source = written(tmp_path / "a.safetensors", targets, AdapterSpec(dim=4, alpha=2, conv_dim=2, conv_alpha=1))
    there, back = tmp_path / "there.safetensors", tmp_path / "back.safetensors"
    assert main([str(source), str(there), "--to", form]) == 0
    assert main([str(there), str(back), "--to", "kohya"]) == 0
    assert f"in the {form} form" in capsys.readouterr().out
    before, after = products(read_lora(source, targets)), products(read_lora(back, targets))
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    names = {"peft": ("unet.mid_block.attentions.0.proj_in.lora_A.weight",
                      "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_B.weight"),
             "diffusers": ("unet.mid_block.attentions.0.proj_in.lora.down.weight",
                           "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer.up.weight")}
    assert set(names[form]) <= set(load_file(there))
    with safe_open(back, framework="pt") as file:
        assert file.metadata()["ss_network_dim"] == "4"


def test_dora_goes_to_peft_and_back(targets, tmp_path: Path) -> None:
    source = written(tmp_path / "a.safetensors", targets, AdapterSpec(dim=4, alpha=4, algorithm="dora"))
    there, back = tmp_path / "there.safetensors", tmp_path / "back.safetensors"
    assert main([str(source), str(there), "--to", "peft"]) == main([str(there), str(back), "--to", "kohya"]) == 0
    before, after = load_file(source), load_file(back)
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


def test_precision_stays(targets, tmp_path: Path) -> None:
    source = written(tmp_path / "a.safetensors", targets, AdapterSpec(dim=4, alpha=4), torch.float16)
    main([str(source), str(tmp_path / "b.safetensors"), "--to", "peft"])
    assert {tensor.dtype for tensor in load_file(tmp_path / "b.safetensors").values()} == {torch.float16}


@pytest.mark.parametrize("name", EMBEDDED)
def test_every_embedded_base_goes_by_its_name(targets, tmp_path: Path, name: str) -> None:
    source = written(tmp_path / "a.safetensors", targets, AdapterSpec(dim=4, alpha=4))
    assert main([str(source), str(tmp_path / "out.safetensors"), "--to", "peft", "--base", name]) == 0


def test_what_can_not_be_converted_is_said(targets, tmp_path: Path, capsys) -> None:
    loha = written(tmp_path / "loha.safetensors", targets, AdapterSpec(dim=4, alpha=4, algorithm="loha"))
    out = tmp_path / "out.safetensors"
    assert main([str(loha), str(out), "--to", "peft"]) == 1
    assert "is of the kind 'loha'" in capsys.readouterr().err
    strange = load_file(written(tmp_path / "a.safetensors", targets, AdapterSpec(dim=4, alpha=4)))
    save_file({**strange, "lora_unet_elsewhere.lora_down.weight": torch.zeros(4, 4)}, tmp_path / "a.safetensors")
    assert main([str(tmp_path / "a.safetensors"), str(out), "--to", "peft"]) == 1
    assert "1 tensors would be lost" in capsys.readouterr().err
    assert main([str(tmp_path / "nowhere.safetensors"), str(out), "--to", "peft"]) == 1
    assert "can't be read" in capsys.readouterr().err
    assert main([str(loha), str(out), "--to", "kohya", "--base", str(tmp_path)]) == 1
    assert "no model in diffusers layout" in capsys.readouterr().err
    assert main([str(loha), "out.pt", "--to", "kohya"]) == 1
    assert "must end in .safetensors" in capsys.readouterr().err
    assert not out.exists()
