"""The configs that are read off a checkpoint's shapes are the official ones, at the families' real size."""

import pytest

from tests.miniatures import UNETS, ldm_unet, ldm_vae_name, open_clip

# unet/config.json of stable-diffusion-v1-5, stable-diffusion-2-1 and stable-diffusion-xl-base-1.0, where they differ
REAL = {
    "sd1": {"block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 768, "attention_head_dim": 8},
    "sd2": {"block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 1024,
            "attention_head_dim": [5, 10, 20, 20]},
    "sdxl": {"block_out_channels": [320, 640, 1280], "cross_attention_dim": 2048, "attention_head_dim": [5, 10, 20],
             "transformer_layers_per_block": [1, 2, 10], "projection_class_embeddings_input_dim": 2816},
}
NUM_TENSORS = {"sd1": 686, "sd2": 686, "sdxl": 1680}  # of the UNet in the official checkpoints


@pytest.fixture(scope="module", params=["sd1", "sd2", "sdxl"])
def real(request):
    """A UNet of real size without weights, its config, its shapes under LDM's names."""
    from accelerate import init_empty_weights
    from diffusers import UNet2DConditionModel

    config = {**UNETS[request.param], **REAL[request.param]}
    with init_empty_weights():
        unet = UNet2DConditionModel(**config)
    return request.param, config, unet, {f"model.diffusion_model.{name}": tensor
                                         for name, tensor in ldm_unet(unet.state_dict(), config).items()}


def test_a_real_unets_config_is_read_off_its_shapes(real) -> None:
    from sweep.model.checkpoint import unet_config

    family, config, _, tensors = real
    assert len(tensors) == NUM_TENSORS[family]
    found = unet_config({name: tuple(tensor.shape) for name, tensor in tensors.items()}, family)
    for key in (*REAL[family], "down_block_types", "up_block_types"):
        assert found[key] == (list(config[key]) if isinstance(config[key], tuple) else config[key]), key
    assert found["use_linear_projection"] == (family != "sd1") and found["layers_per_block"] == 2


def test_every_tensor_of_a_real_unet_finds_its_place(real) -> None:
    from sweep.model.checkpoint import unet_config, unet_tensors

    family, _, unet, tensors = real
    config = unet_config({name: tuple(tensor.shape) for name, tensor in tensors.items()}, family)
    converted = unet_tensors(tensors, config)
    expected = {name: tensor.shape for name, tensor in unet.state_dict().items()}
    assert {name: tensor.shape for name, tensor in converted.items()} == expected


def test_a_real_vae() -> None:
    import torch
    from accelerate import init_empty_weights
    from diffusers import AutoencoderKL

    from sweep.model.checkpoint import vae_config, vae_prefix, vae_tensors

    with init_empty_weights():
        vae = AutoencoderKL(block_out_channels=(128, 256, 512, 512), latent_channels=4, layers_per_block=2,
                            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4)
    tensors = {f"first_stage_model.{ldm_vae_name(name)}": tensor for name, tensor in vae.state_dict().items()}
    assert len(tensors) == 248
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    assert vae_prefix(shapes) == "first_stage_model."
    config = vae_config(shapes, "sdxl")
    assert config["block_out_channels"] == [128, 256, 512, 512] and config["scaling_factor"] == 0.13025
    assert vae_config(shapes, "sd1")["scaling_factor"] == 0.18215
    converted = vae_tensors({**tensors, "first_stage_model.loss.logvar": torch.zeros(())}, config)
    assert set(converted) == set(vae.state_dict())


@pytest.mark.parametrize(("family", "widths"), [
    ("sd1", [(768, 3072, 12, 12, "quick_gelu")]), ("sd2", [(1024, 4096, 23, 16, "gelu")]),
    ("sdxl", [(768, 3072, 12, 12, "quick_gelu"), (1280, 5120, 32, 20, "gelu")])])
def test_real_text_encoders(family: str, widths) -> None:
    from accelerate import init_empty_weights
    from transformers import CLIPTextConfig, CLIPTextModel

    from sweep.model.checkpoint import text_configs, text_tensors
    from sweep.model.families import CLIP_L, OPEN_CLIP

    tensors, models = {}, []
    for width, inner, layers, heads, activation in widths:
        stored = layers + (family == "sd2")  # OpenCLIP's last layer is in the file and not used
        with init_empty_weights():
            model = CLIPTextModel(CLIPTextConfig(hidden_size=width, intermediate_size=inner, num_hidden_layers=stored,
                                                 num_attention_heads=heads))
        models.append(model)
        state = model.state_dict()
        if activation == "gelu":
            tensors |= {OPEN_CLIP[family] + name: tensor for name, tensor in open_clip(state).items()}
        else:
            tensors |= {f"{CLIP_L[family]}text_model.{name}": tensor for name, tensor in state.items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    configs = text_configs(shapes, family)
    keys = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act")
    assert [tuple(config[key] for key in keys) for config in configs] == widths
    assert all(config["vocab_size"] == 49408 and config["eos_token_id"] == 2 for config in configs)
    assert configs[-1]["projection_dim"] == widths[-1][0]
    for model, config, converted in zip(models, configs, text_tensors(tensors, family, configs), strict=True):
        last = f"encoder.layers.{config['num_hidden_layers']}."
        expected = {name: tensor.shape for name, tensor in model.state_dict().items() if not name.startswith(last)}
        converted.pop("text_projection.weight", None)
        assert {name: tensor.shape for name, tensor in converted.items()} == expected
