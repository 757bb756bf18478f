"""One-file checkpoints: the configs that their tensors' shapes tell, and their tensors under diffusers' names.

A checkpoint in CompVis' and Stability's layout ("LDM") carries no config, and the official ones lie on the network.
They are read off the shapes instead; what shapes can't tell (activation, widths of heads) is the same in all models of
a family. Nothing here loads torch before tensors are converted.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.errors import ModelError
from sweep.model.families import CLIP_L, OPEN_CLIP, UNET, VAE, Family, Shapes

if TYPE_CHECKING:
    from torch import Tensor

Tensors = Mapping[str, "Tensor"]

_HEAD_WIDTH = 64  # of CLIP's encoders, and of the UNets of Stable Diffusion 2 and XL; 1.x has 8 heads at every width
_SCALING_FACTOR: Mapping[Family, float] = {"sd1": 0.18215, "sd2": 0.18215, "sdxl": 0.13025}
_TIME_WIDTH = 256  # of each of XL's six size conditions


def unet_config(shapes: Shapes, family: Family) -> dict[str, Any]:
    """The arguments of diffusers' UNet2DConditionModel."""
    resnets: list[list[int]] = [[]]  # per block: output channels of its resnets
    depths: list[int] = [0]  # per block: transformer layers in each of its attentions
    for i in range(1, _count(shapes, f"{UNET}input_blocks.")):
        at = f"{UNET}input_blocks.{i}."
        if f"{at}0.op.weight" in shapes:
            resnets.append([])
            depths.append(0)
            continue
        resnets[-1].append(shapes[f"{at}0.out_layers.3.weight"][0])
        depths[-1] = max(depths[-1], _count(shapes, f"{at}1.transformer_blocks."))
    channels = [block[0] for block in resnets]
    attends = [depth > 0 for depth in depths]
    first = f"{UNET}input_blocks.{1 + next(i for i, block in enumerate(attends) if block) * (len(resnets[0]) + 1)}.1."
    config: dict[str, Any] = {
        "in_channels": shapes[f"{UNET}input_blocks.0.0.weight"][1],
        "out_channels": shapes[f"{UNET}out.2.weight"][0],
        "block_out_channels": channels,
        "layers_per_block": len(resnets[0]),
        "down_block_types": ["CrossAttnDownBlock2D" if each else "DownBlock2D" for each in attends],
        "up_block_types": ["CrossAttnUpBlock2D" if each else "UpBlock2D" for each in reversed(attends)],
        "cross_attention_dim": shapes[f"{first}transformer_blocks.0.attn2.to_k.weight"][1],
        "use_linear_projection": len(shapes[f"{first}proj_in.weight"]) == 2,
        "attention_head_dim": 8 if family == "sd1" else [each // _HEAD_WIDTH for each in channels],
        "upcast_attention": family == "sd2",  # its attention overflows in fp16
        "sample_size": 128 if family == "sdxl" else 64,
    }
    if family == "sdxl":
        added = shapes[f"{UNET}label_emb.0.0.weight"][1]
        config |= {"transformer_layers_per_block": [max(depth, 1) for depth in depths],
                   "addition_embed_type": "text_time", "addition_time_embed_dim": _TIME_WIDTH,
                   "projection_class_embeddings_input_dim": added}
    return config


def vae_config(shapes: Shapes, family: Family) -> dict[str, Any]:
    """The arguments of diffusers' AutoencoderKL."""
    prefix = vae_prefix(shapes)
    assert prefix is not None, "checked when the base was found"
    at = f"{prefix}encoder.down."
    channels = [shapes[f"{at}{i}.block.0.conv2.weight"][0] for i in range(_count(shapes, at))]
    return {"in_channels": shapes[f"{prefix}encoder.conv_in.weight"][1],
            "out_channels": shapes[f"{prefix}decoder.conv_out.weight"][0],
            "latent_channels": shapes[f"{prefix}quant_conv.weight"][0] // 2,
            "block_out_channels": channels, "layers_per_block": _count(shapes, f"{at}0.block."),
            "down_block_types": ["DownEncoderBlock2D"] * len(channels),
            "up_block_types": ["UpDecoderBlock2D"] * len(channels),
            "scaling_factor": _SCALING_FACTOR[family]}


def text_configs(shapes: Shapes, family: Family) -> list[dict[str, Any]]:
    """The arguments of transformers' CLIPTextConfig, of each text encoder."""
    configs = []
    if family in CLIP_L:
        prefix = CLIP_L[family]
        if any(name.startswith(f"{prefix}text_model.") for name in shapes):
            prefix += "text_model."
        rows, width = shapes[f"{prefix}embeddings.token_embedding.weight"]
        configs.append(_clip(rows, width, shapes[f"{prefix}encoder.layers.0.mlp.fc1.weight"][0],
                             _count(shapes, f"{prefix}encoder.layers."), "quick_gelu", width))
    if family in OPEN_CLIP:
        prefix = OPEN_CLIP[family]
        rows, width = shapes[f"{prefix}token_embedding.weight"]
        projection = shapes.get(f"{prefix}text_projection", (width, width))[1]
        num_layers = _count(shapes, f"{prefix}transformer.resblocks.")
        configs.append(_clip(rows, width, shapes[f"{prefix}transformer.resblocks.0.mlp.c_fc.weight"][0],
                             num_layers - (1 if family == "sd2" else 0), "gelu", projection))
    return configs


def check_whole(shapes: Shapes, family: Family, where: str) -> int:
    """Read all configs off the shapes once; returns the number of layers of the (first) text encoder.

    Raises ModelError for a checkpoint that lacks parts of its UNet, VAE or text encoders.
    """
    try:
        unet_config(shapes, family)
        vae_config(shapes, family)
        return int(text_configs(shapes, family)[0]["num_hidden_layers"])
    except (KeyError, IndexError, StopIteration) as error:
        lacking = f": it lacks {error.args[0]}" if isinstance(error, KeyError) else ""
        raise ModelError(f"{where} is no whole checkpoint{lacking}. Get the full one.") from error


def vae_prefix(shapes: Shapes) -> str | None:
    """What stands before the VAE's names: nothing in a VAE of its own; None if there is no VAE in LDM's layout."""
    return next((prefix for prefix in (*VAE, "") if f"{prefix}encoder.down.0.block.0.conv2.weight" in shapes), None)


def unet_tensors(tensors: Tensors, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The UNet's tensors under diffusers' names."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    converted: dict[str, Tensor] = convert_ldm_unet_checkpoint(
        {name: tensor for name, tensor in tensors.items() if name.startswith(UNET)}, dict(config))
    return converted


def vae_tensors(tensors: Tensors, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The VAE's tensors under diffusers' names."""
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    prefix = vae_prefix({name: tuple(tensor.shape) for name, tensor in tensors.items()}) or ""
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    # training's leftovers, e.g. loss.logvar, and the EMA of UNets
    own = {name: tensor for name, tensor in own.items()
           if name.split(".")[0] in ("encoder", "decoder", "quant_conv", "post_quant_conv")}
    converted: dict[str, Tensor] = convert_ldm_vae_checkpoint(own, dict(config))
    return converted


def text_tensors(tensors: Tensors, family: Family, configs: list[dict[str, Any]]) -> list[dict[str, Tensor]]:
    """Each text encoder's tensors under transformers' names, without a level "text_model"."""
    found = []
    if family in CLIP_L:
        prefix = CLIP_L[family]
        own = {name.removeprefix(prefix).removeprefix("text_model."): tensor for name, tensor in tensors.items()
               if name.startswith(prefix) and not name.endswith("position_ids")}
        # some tools save the projection too, which only the image side of CLIP needs
        found.append({name: tensor for name, tensor in own.items() if not name.startswith(("text_proj", "logit_"))})
    if family in OPEN_CLIP:
        prefix = OPEN_CLIP[family]
        own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        found.append(_from_open_clip(own, num_layers=configs[-1]["num_hidden_layers"], projects=family == "sdxl"))
    return found


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint. A .ckpt is a pickle, of which torch takes plain tensors alone (`weights_only`).

    Raises ModelError.
    """
    import safetensors
    import safetensors.torch
    import torch

    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except (safetensors.SafetensorError, OSError) as error:
            raise ModelError(f"{path} can't be read: {error}") from error
    try:
        tree = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle's own errors, zip's, and whatever a hostile file provokes
        raise ModelError(f"{path} can't be read as plain tensors, and nothing else of a pickle is ever run: "
                         f"{str(error).splitlines()[0]} Get the model as safetensors.") from error
    tree = tree.get("state_dict", tree) if isinstance(tree, dict) else {}
    return {str(name): tensor for name, tensor in tree.items() if isinstance(tensor, torch.Tensor)}


_BLOCK = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj", "mlp.c_fc": "mlp.fc1",
          "mlp.c_proj": "mlp.fc2"}
_OUTER = {"positional_embedding": "embeddings.position_embedding.weight",
          "token_embedding.weight": "embeddings.token_embedding.weight",
          "ln_final.weight": "final_layer_norm.weight", "ln_final.bias": "final_layer_norm.bias"}


def _from_open_clip(own: Tensors, *, num_layers: int, projects: bool) -> dict[str, Tensor]:
    """OpenCLIP's text encoder as transformers' CLIP. Layers from `num_layers` on are left out: Stable Diffusion 2 was
    trained on the last but one. Its projection is stored transposed, its query, key and value stacked."""
    converted = {new: own[old] for old, new in _OUTER.items()}
    if projects:
        converted["text_projection.weight"] = own["text_projection"].T.contiguous()
    for name, tensor in own.items():
        if not name.startswith("transformer.resblocks."):
            continue
        index, _, rest = name.removeprefix("transformer.resblocks.").partition(".")
        layer = f"encoder.layers.{index}."
        if int(index) >= num_layers:
            continue
        if rest.startswith("attn.in_proj_"):
            kind = rest.removeprefix("attn.in_proj_")
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                converted[f"{layer}self_attn.{letter}_proj.{kind}"] = part  # a view, as network.tools writes into it
        else:
            module, _, kind = rest.rpartition(".")
            converted[f"{layer}{_BLOCK[module]}.{kind}"] = tensor
    return converted


def _clip(rows: int, width: int, inner: int, num_layers: int, activation: str, projection: int) -> dict[str, Any]:
    # eos_token_id=2 is what all families' configs say: transformers then pools at the highest id, which is EOS
    return {"vocab_size": rows, "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": num_layers,
            "num_attention_heads": width // _HEAD_WIDTH, "hidden_act": activation, "projection_dim": projection,
            "max_position_embeddings": 77, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}


def _count(shapes: Shapes, prefix: str) -> int:
    """How many numbered children stand under a prefix."""
    return len({name[len(prefix):].partition(".")[0] for name in shapes if name.startswith(prefix)})
