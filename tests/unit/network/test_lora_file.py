"""Files against what sd-scripts wrote for SD 1.5's exact shape (tests/assets/kohya)."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from sweep.errors import AdapterFileError
from sweep.network.bank import AdapterBank, AdapterSpec
from sweep.network.lora_file import read_lora, write_lora
from sweep.network.targets import Target, find_targets

ASSETS = Path(__file__).parents[2] / "assets/kohya"


def test_keys_and_shapes_are_sd_scripts_for_sd15() -> None:
    """The real SD 1.5 layout, on the meta device: no weights, no memory."""
    from sweep.model.torchvision_ops import declare_missing_operators

    declare_missing_operators()
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8, sample_size=64)
        text_encoder = CLIPTextModel(CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
                                                    num_attention_heads=12))
    targets = find_targets(SimpleNamespace(unet=unet, text_encoder=text_encoder))
    ours = {}
    for target in targets:
        tail = [1, 1] if target.is_conv else []
        ours[f"{target.key}.lora_down.weight"] = [32, target.in_features, *tail]
        ours[f"{target.key}.lora_up.weight"] = [target.out_features, 32, *tail]
        ours[f"{target.key}.alpha"] = []
    assert ours == json.loads((ASSETS / "keys_a_dim32.json").read_text())["keys"]


def test_output_is_sd_scripts() -> None:
    golden = json.loads((ASSETS / "lora_module.json").read_text())
    state = np.random.RandomState(0)
    weight = (state.randn(320, 320) / np.sqrt(320)).astype(np.float32)
    bias = (state.randn(320) * 0.1).astype(np.float32)
    down, up = (torch.tensor(golden[name]) for name in ("down", "up"))
    layer = torch.nn.Linear(320, 320)
    layer.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
    target = Target("lora_unet_x", "unet", layer, 320, 320, False)
    x = torch.tensor(golden["x"]).unsqueeze(1)
    for strength in (1.0, 0.7):
        bank = AdapterBank([target], [AdapterSpec(dim=4, alpha=2, strength=strength)])
        bank.load_weights(0, {"lora_unet_x": (down, up)})
        with torch.no_grad(), bank.attached(), bank.rows([2]):
            ours = layer(x)[:, 0]
        assert torch.allclose(ours, torch.tensor(golden[f"output_mult_{strength}"]), atol=1e-5)


@pytest.fixture
def saved(targets, tmp_path: Path) -> tuple[Path, AdapterBank]:
    bank = AdapterBank(targets, [AdapterSpec(dim=4, alpha=2)])
    bank.init_weights(0, seed=1)
    with torch.no_grad():
        for _, up in bank.weights(0).values():
            up.normal_(generator=torch.Generator().manual_seed(2))
    path = tmp_path / "a.safetensors"
    write_lora(path, targets, bank.weights(0), alpha=2, dtype=torch.float32, metadata={"ss_network_dim": "4"})
    return path, bank


def test_what_was_written_is_read_back(saved, targets) -> None:
    path, bank = saved
    read = read_lora(path, targets)
    assert (read.dim, read.alpha) == (4, 2)
    for key, (down, up) in bank.weights(0).items():
        assert torch.equal(read.weights[key][0], down) and torch.equal(read.weights[key][1], up)


def test_the_same_weights_give_the_same_bytes(saved, targets, tmp_path: Path) -> None:
    path, bank = saved
    again = tmp_path / "elsewhere" / "b.safetensors"
    write_lora(again, targets, bank.weights(0), alpha=2, dtype=torch.float32, metadata={"ss_network_dim": "4"})
    assert again.read_bytes() == path.read_bytes()
    with safe_open(path, framework="pt") as file:
        assert len(file.metadata()["sshs_model_hash"]) == 64 and len(file.metadata()["sshs_legacy_hash"]) == 8


def test_layers_of_other_rank_and_alpha_keep_their_meaning(targets, tmp_path: Path) -> None:
    """Files in the wild mix ranks; up @ down * alpha / rank must come out the same."""
    one, other = targets[1], targets[2]
    g = torch.Generator().manual_seed(0)
    tensors, expected = {}, {}
    for target, rank, alpha in ((one, 4, 4.0), (other, 2, 1.0)):
        down = torch.randn(rank, target.in_features, generator=g)
        up = torch.randn(target.out_features, rank, generator=g)
        tensors |= {f"{target.key}.lora_down.weight": down, f"{target.key}.lora_up.weight": up,
                    f"{target.key}.alpha": torch.tensor(alpha)}
        expected[target.key] = up @ down * alpha / rank
    save_file(tensors, tmp_path / "mixed.safetensors")
    read = read_lora(tmp_path / "mixed.safetensors", targets)
    for key, delta in expected.items():
        down, up = read.weights[key]
        assert torch.allclose(up @ down * read.alpha / read.dim, delta, atol=1e-5)


@pytest.mark.parametrize(("make", "message"), [
    (lambda p: p.write_bytes(b"not a file of tensors"), "can't be read as safetensors"),
    (lambda p: save_file({"weight": torch.zeros(2)}, p), "holds no LoRA in kohya's form"),
    (lambda p: save_file({"lora_unet_nowhere.lora_down.weight": torch.zeros(2, 2),
                          "lora_unet_nowhere.lora_up.weight": torch.zeros(2, 2)}, p),
     "1 layers that this base lacks.*lora_unet_nowhere"),
])
def test_what_is_no_lora_for_this_base_is_named(targets, tmp_path: Path, make, message: str) -> None:
    path = tmp_path / "bad.safetensors"
    make(path)
    with pytest.raises(AdapterFileError, match=message):
        read_lora(path, targets)


def test_a_truncated_file_is_named(saved, targets) -> None:
    path, _ = saved
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(AdapterFileError, match="can't be read"):
        read_lora(path, targets)
