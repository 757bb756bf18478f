"""Miniatures of each family of Stable Diffusion: the exact layout and config keys, few channels, random weights.

Folders are written by diffusers and transformers themselves. Checkpoint files are made from them by the inverse of the
LDM layout's naming, written here independently of what reads them.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweep.pocket import WEIGHTS_DIR

VOCABULARY = WEIGHTS_DIR / "sd" / "tokenizer"  # 726 words; id 0 is "!", as in CLIP's own

_SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
_FOUR_DOWN = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
_FOUR_UP = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3

# The UNets' config keys as in the hub's unet/config.json; the real widths beside, where they were cut down.
UNETS: Mapping[str, dict[str, Any]] = {
    "sd1": {"block_out_channels": (32, 64, 64, 64), "cross_attention_dim": 64, "attention_head_dim": 8,
            "down_block_types": _FOUR_DOWN, "up_block_types": _FOUR_UP, "sample_size": 64},  # 320 640 1280 1280, 768
    "sd2": {"block_out_channels": (64, 64, 128, 128), "cross_attention_dim": 128, "attention_head_dim": (1, 1, 2, 2),
            "down_block_types": _FOUR_DOWN, "up_block_types": _FOUR_UP, "sample_size": 96,
            "dual_cross_attention": False, "only_cross_attention": False, "use_linear_projection": True,
            "upcast_attention": True},  # 5 10 20 20, 1024
    "sdxl": {"block_out_channels": (64, 64, 128), "cross_attention_dim": 64 + 128, "attention_head_dim": (1, 1, 2),
             "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
             "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
             "transformer_layers_per_block": (1, 2, 3), "use_linear_projection": True, "sample_size": 128,
             "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
             "projection_class_embeddings_input_dim": 6 * 256 + 128},  # 320 640 1280, 2048, 1 2 10, 2816
}
_CLIP_L = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 1,
           "hidden_act": "quick_gelu", "projection_dim": 64}  # 768, 3072, 12, 12
_OPEN_CLIP = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 2,
              "hidden_act": "gelu", "projection_dim": 128}  # H: 1024, 4096, 23, 16; bigG: 1280, 5120, 32, 20
TEXTS: Mapping[str, list[dict[str, Any]]] = {"sd1": [_CLIP_L], "sd2": [_OPEN_CLIP], "sdxl": [_CLIP_L, _OPEN_CLIP]}
SCALING = {"sd1": 0.18215, "sd2": 0.18215, "sdxl": 0.13025}


def write_folder(folder: Path, family: str, *, seed: int = 0) -> Path:
    """A miniature in diffusers layout."""
    from sweep.model.torchvision_ops import declare_missing_operators

    declare_missing_operators()
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, EulerDiscreteScheduler, PNDMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(seed)
    UNet2DConditionModel(**UNETS[family]).save_pretrained(folder / "unet")
    AutoencoderKL(block_out_channels=(32, 32, 32, 32), latent_channels=4, layers_per_block=2,
                  down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
                  scaling_factor=SCALING[family], force_upcast=family == "sdxl").save_pretrained(folder / "vae")
    for number, widths in enumerate(TEXTS[family], start=1):
        suffix = "" if number == 1 else f"_{number}"
        kind = CLIPTextModel if number == 1 else CLIPTextModelWithProjection
        kind(CLIPTextConfig(vocab_size=726, bos_token_id=0, eos_token_id=2, pad_token_id=1, **widths)
             ).save_pretrained(folder / f"text_encoder{suffix}")
        _write_tokenizer(folder / f"tokenizer{suffix}", padding="!" if widths is _OPEN_CLIP else "<|endoftext|>")
    scheduler = {"sd1": PNDMScheduler, "sd2": DDIMScheduler, "sdxl": EulerDiscreteScheduler}[family]
    told = {"prediction_type": "v_prediction"} if family == "sd2" else {}
    extra = {"skip_prk_steps": True} if family == "sd1" else {}
    scheduler(**_SCHEDULE, **told, **extra).save_pretrained(folder / "scheduler")
    return folder


def _write_tokenizer(folder: Path, padding: str) -> None:
    from transformers import CLIPTokenizer

    CLIPTokenizer.from_pretrained(VOCABULARY, pad_token=padding).save_pretrained(folder)
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(VOCABULARY / name, folder / name)


def write_checkpoint(path: Path, folder: Path, family: str, *, metadata: dict[str, str] | None = None) -> Path:
    """The same miniature as one file in LDM's layout."""
    from safetensors.torch import save_file

    save_file(ldm_tensors(folder, family), path, metadata=metadata)
    return path


def ldm_tensors(folder: Path, family: str) -> dict[str, Any]:
    """A miniature's tensors under LDM's names."""
    import torch
    from safetensors.torch import load_file

    unet = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    found = {f"model.diffusion_model.{name}": tensor for name, tensor in ldm_unet(unet, UNETS[family]).items()}
    for name, tensor in load_file(folder / "vae" / "diffusion_pytorch_model.safetensors").items():
        new = ldm_vae_name(name)
        is_attention = re.search(r"attn_1\.(q|k|v|proj_out)\.weight$", new)
        found[f"first_stage_model.{new}"] = tensor[:, :, None, None].clone() if is_attention else tensor
    first = load_file(folder / "text_encoder" / "model.safetensors")
    first = {name.removeprefix("text_model."): tensor for name, tensor in first.items()}
    if family == "sd2":
        # the last of OpenCLIP's layers is in the file and is never used
        extra = {name.replace("layers.3.", "layers.4."): torch.full_like(tensor, 7.0)
                 for name, tensor in first.items() if "layers.3." in name}
        found |= {f"cond_stage_model.model.{name}": tensor for name, tensor in open_clip({**first, **extra}).items()}
    else:
        prefix = "cond_stage_model.transformer." if family == "sd1" else "conditioner.embedders.0.transformer."
        found |= {f"{prefix}text_model.{name}": tensor for name, tensor in first.items()}
        found[f"{prefix}text_model.embeddings.position_ids"] = torch.arange(77)[None]
        found[f"{prefix}text_projection.weight"] = torch.eye(64)
    if family == "sdxl":
        second = load_file(folder / "text_encoder_2" / "model.safetensors")
        second = {name.removeprefix("text_model."): tensor for name, tensor in second.items()}
        found |= {f"conditioner.embedders.1.model.{name}": tensor for name, tensor in open_clip(second).items()}
    # what lies in such files besides and must not disturb
    found["alphas_cumprod"] = torch.linspace(1, 0, 1000)
    found["model_ema.decay"] = torch.tensor(0.9999)
    return {name: tensor.contiguous() for name, tensor in found.items()}


def ldm_unet(tensors: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """A diffusers UNet's tensors (or shapes) under LDM's names, without the prefix."""
    num_blocks, per_block = len(config["block_out_channels"]), config.get("layers_per_block", 2)
    outer = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
             "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
             "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}
    inner = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
             "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
    found = {}
    for name, tensor in tensors.items():
        module, _, kind = name.rpartition(".")
        if module in outer:
            found[f"{outer[module]}.{kind}"] = tensor
            continue
        parts = module.split(".")
        if parts[0] == "mid_block":
            index, rest = int(parts[2]), parts[3:]
            place = f"middle_block.{2 * index if parts[1] == 'resnets' else 1}"
        else:
            block, index, rest = int(parts[1]), int(parts[3]), parts[4:]
            if parts[0] == "down_blocks":
                number = 1 + block * (per_block + 1) + (per_block if parts[2] == "downsamplers" else index)
                place = f"input_blocks.{number}.{1 if parts[2] == 'attentions' else 0}"
            else:
                last = parts[2] == "upsamplers"
                number = block * (per_block + 1) + (per_block if last else index)
                attends = config["up_block_types"][block].startswith("CrossAttn")
                place = f"output_blocks.{number}.{1 if parts[2] == 'attentions' else (1 + attends) * last}"
            if parts[2] == "downsamplers":
                rest = ["op"]
        if parts[-1] in inner and "resnets" in parts:
            rest = [inner[parts[-1]]]
        found[".".join([place, *rest, kind])] = tensor
    assert len(found) == len(tensors) and num_blocks
    return found


def ldm_vae_name(name: str) -> str:
    """A diffusers VAE's tensor under LDM's name."""
    name = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{3 - int(m[1])}.block.{m[2]}", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    for new, old in (("mid.attn_1.norm", "mid_block.attentions.0.group_norm"),
                     ("mid.attn_1.proj_out", "mid_block.attentions.0.to_out.0"),
                     ("mid.attn_1.q", "mid_block.attentions.0.to_q"), ("mid.attn_1.k", "mid_block.attentions.0.to_k"),
                     ("mid.attn_1.v", "mid_block.attentions.0.to_v"), ("nin_shortcut", "conv_shortcut"),
                     ("norm_out", "conv_norm_out")):
        name = name.replace(old, new)
    return name


def open_clip(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """A transformers CLIP text model's tensors under OpenCLIP's names."""
    import torch

    outer = {"embeddings.position_embedding.weight": "positional_embedding",
             "embeddings.token_embedding.weight": "token_embedding.weight",
             "final_layer_norm.weight": "ln_final.weight", "final_layer_norm.bias": "ln_final.bias"}
    width = tensors["final_layer_norm.weight"].shape[0]
    found = {"text_projection": tensors["text_projection.weight"].T if "text_projection.weight" in tensors
             else torch.eye(width), "logit_scale": torch.tensor(4.6)}
    stacked: dict[str, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        if name in outer:
            found[outer[name]] = tensor
        match = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
        if match is None:
            continue
        at = f"transformer.resblocks.{match[1]}."
        if match[2].endswith(("q_proj", "k_proj", "v_proj")):
            stacked.setdefault(f"{at}attn.in_proj_{match[3]}", {})[match[2][-6]] = tensor
        else:
            new = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "self_attn.out_proj": "attn.out_proj",
                   "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}[match[2]]
            found[f"{at}{new}.{match[3]}"] = tensor
    return found | {name: torch.cat([parts[letter] for letter in "qkv"]) for name, parts in stacked.items()}
