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
    targets = find_targets(SimpleNamespace(unet=unet, text_encoders=[text_encoder], family="sd1"))
    for spec, golden in ((AdapterSpec(dim=32, alpha=32), "keys_a_dim32"),
                         (AdapterSpec(dim=32, alpha=32, conv_dim=8, conv_alpha=4), "keys_b_conv8")):
        bank = AdapterBank(targets, [spec], "meta")
        ours = {f"{key}.{name}": list(tensor.shape) for key, tensors in bank.weights(0).items()
                for name, tensor in tensors.items()}
        assert ours == json.loads((ASSETS / f"{golden}.json").read_text())["keys"]


def test_layers_of_sdxl_are_sd_scripts() -> None:
    """722 + 264 layers; the UNet's have the LDM names."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    with torch.device("meta"):
        unet = UNet2DConditionModel(
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), sample_size=128,
            block_out_channels=(320, 640, 1280), cross_attention_dim=2048, transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20), use_linear_projection=True, addition_embed_type="text_time",
            addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816)
        first = CLIPTextModel(CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
                                             num_attention_heads=12))
        second = CLIPTextModelWithProjection(CLIPTextConfig(
            hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20))
    targets = find_targets(SimpleNamespace(unet=unet, text_encoders=[first, second], family="sdxl"))
    layers = AdapterSpec(dim=4, alpha=4).layers(targets)
    unet_keys = {key for key in layers if key.startswith("lora_unet_")}
    assert (len(unet_keys), len(layers) - len(unet_keys)) == (722, 264)
    assert sum(key.startswith("lora_te2_text_model_encoder_layers_") for key in layers) == 192
    assert {"lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q", "lora_unet_input_blocks_8_1_proj_in",
            "lora_unet_middle_block_1_transformer_blocks_9_ff_net_2", "lora_unet_output_blocks_5_1_proj_out",
            } <= unet_keys
    convolutional = AdapterSpec(dim=4, alpha=4, conv_dim=2, conv_alpha=2).layers(targets)
    assert {"lora_unet_input_blocks_3_0_op", "lora_unet_input_blocks_4_0_skip_connection",
            "lora_unet_input_blocks_1_0_in_layers_2", "lora_unet_middle_block_2_out_layers_3",
            "lora_unet_output_blocks_2_2_conv", "lora_unet_output_blocks_8_0_emb_layers_1"} <= set(convolutional)


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
        bank.load_weights(0, {"lora_unet_x": {"lora_down.weight": down, "lora_up.weight": up}})
        with torch.no_grad(), bank.attached(), bank.rows([2]):
            ours = layer(x)[:, 0]
        assert torch.allclose(ours, torch.tensor(golden[f"output_mult_{strength}"]), atol=1e-5)


@pytest.fixture
def saved(targets, tmp_path: Path) -> tuple[Path, AdapterBank]:
    bank = AdapterBank(targets, [AdapterSpec(dim=4, alpha=2)])
    bank.init_weights(0, seed=1)
    with torch.no_grad():
        for tensors in bank.weights(0).values():
            tensors["lora_up.weight"].normal_(generator=torch.Generator().manual_seed(2))
    path = tmp_path / "a.safetensors"
    write_lora(path, bank.weights(0), dtype=torch.float32, metadata={"ss_network_dim": "4"})
    return path, bank


def test_what_was_written_is_read_back(saved, targets) -> None:
    path, bank = saved
    read = read_lora(path, targets)
    assert {(layer.form.dim, layer.alpha) for layer in read.layers.values()} == {(4, 2)} and not read.unknown
    for key, tensors in bank.weights(0).items():
        assert all(torch.equal(read.weights[key][name], tensors[name]) for name in read.weights[key])


def test_the_same_weights_give_the_same_bytes(saved, targets, tmp_path: Path) -> None:
    path, bank = saved
    again = tmp_path / "elsewhere" / "b.safetensors"
    write_lora(again, bank.weights(0), dtype=torch.float32, metadata={"ss_network_dim": "4"})
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
        down, up = read.weights[key].values()
        assert torch.allclose(up @ down * read.layers[key].scale, delta, atol=1e-5)


@pytest.mark.parametrize(("make", "message"), [
    (lambda p: p.write_bytes(b"not a file of tensors"), "can't be read as safetensors"),
    (lambda p: save_file({"weight": torch.zeros(2)}, p), "holds no LoRA: no key is like"),
    (lambda p: save_file({"lora_unet_nowhere.lora_down.weight": torch.zeros(2, 2),
                          "lora_unet_nowhere.lora_up.weight": torch.zeros(2, 2)}, p),
     "1 layers that this base lacks.*lora_unet_nowhere"),
    (lambda p: save_file({"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": torch.zeros(2, 7),
                          "lora_unet_mid_block_attentions_0_proj_in.lora_up.weight": torch.zeros(9, 2)}, p),
     r"proj_in has lora_down.weight \[2, 7\].*the base's layer is"),
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
