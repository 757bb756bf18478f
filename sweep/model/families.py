"""Which family of Stable Diffusion a model belongs to, told from its configs or its tensors' names and shapes alone.

Imports no torch: a base of the wrong kind is named before anything is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from sweep.errors import ModelError

Family = Literal["sd1", "sd2", "sdxl"]
Shapes = Mapping[str, tuple[int, ...]]

TITLE: Mapping[Family, str] = {"sd1": "Stable Diffusion 1.x", "sd2": "Stable Diffusion 2.x",
                               "sdxl": "Stable Diffusion XL"}
# base_model=NAME -> the family it wants; base_model=file takes any
WANTED: Mapping[str, Family] = {"pocket": "sd1", "pocket_rv": "sd1", "sd15": "sd1", "sd2": "sd2", "sdxl": "sdxl"}
OPTION: Mapping[Family, str] = {"sd1": "sd15", "sd2": "sd2", "sdxl": "sdxl"}

# Where the parts of a single-file checkpoint stand (CompVis' and Stability's layout, "LDM" for short).
UNET = "model.diffusion_model."
VAE = ("first_stage_model.", "vae.")
CLIP_L: Mapping[Family, str] = {"sd1": "cond_stage_model.transformer.", "sdxl": "conditioner.embedders.0.transformer."}
OPEN_CLIP: Mapping[Family, str] = {"sd2": "cond_stage_model.model.", "sdxl": "conditioner.embedders.1.model."}

_EDITED = {9: "an inpainting model", 8: "an image-editing (InstructPix2Pix) model", 5: "a depth-guided model"}

_EDM = ("was trained in Karras et al.'s EDM form (Playground 2.5), whose noise and loss differ from Stable "
        "Diffusion's; it can't be trained on here.")

# The usual mistakes: how their tensors are called, what they are, what to do.
_NO_BASE = (
    (r"\.lora_(down|up|A|B)\b|\.lora\.(down|up)\b|\.hada_w|\.lokr_w|\.on_input$|\.dora_scale$",
     "a LoRA, not a base model. Give the checkpoint that it was trained on; `python evaluate.py lora=FILE` scores it"),
    (r"^emb_params$|^string_to_param|^clip_[lg]$", "a textual-inversion embedding, not a base model"),
    (r"^control_model\.|^controlnet_|^input_hint_block\.", "a ControlNet, not a base model"),
    (r"double_blocks\.|joint_blocks\.|^transformer_blocks\.|double_layers\.",
     "a transformer model (Flux, Stable Diffusion 3 or their kind); only Stable Diffusion 1.x, 2.x and XL are trained "
     "on here"),
    (r"^(down_blocks|mid_block|up_blocks)\.", "a UNet alone, out of a folder in diffusers layout. Give the folder "
     "above it"),
    (r"^(text_model\.|embeddings\.token_embedding)", "a text encoder alone, not a base model"),
)


def family_of_checkpoint(shapes: Shapes, where: str, unet_channels: int = 4) -> Family:
    """The family of a single-file checkpoint with these tensors.

    Raises ModelError, which names what the file is instead or what it lacks. where: the file, for the message.
    """
    has_unet = f"{UNET}input_blocks.0.0.weight" in shapes
    if not has_unet:
        for pattern, what in _NO_BASE:
            if any(re.search(pattern, name) for name in shapes):
                raise ModelError(f"{where} is {what}.")
        if any(name.startswith((*VAE, "encoder.conv_in.")) for name in shapes):
            raise ModelError(f"{where} is a VAE alone, not a base model. Give it as base_model.vae=FILE beside "
                             "base_model.path.")
        raise ModelError(f"{where} is no Stable Diffusion checkpoint: it has no UNet ({UNET}...). Its first tensors "
                         f"are: {', '.join(sorted(shapes)[:3]) or 'none'}.")
    _check_channels(shapes[f"{UNET}input_blocks.0.0.weight"][1], unet_channels, where)
    if "edm_mean" in shapes:
        raise ModelError(f"{where} {_EDM}")
    family = _by_text_encoder(shapes, where)
    if not any(name.startswith(VAE) for name in shapes):
        raise ModelError(f"{where} holds no VAE ({VAE[0]}...); a UNet with its text encoder alone can't be trained on. "
                         "Get the full checkpoint.")
    return family


def family_of_configs(unet: Mapping[str, Any], has_second_encoder: bool, text_width: int | None, where: str, *,
                      scheduler: Mapping[str, Any], unet_channels: int = 4) -> Family:
    """The family of a folder in diffusers layout, by its UNet's config.json and its text encoder's width.

    Raises ModelError for what only looks like one of the families.
    """
    _check_channels(int(unet.get("in_channels", 4)), unet_channels, where)
    if str(scheduler.get("_class_name", "")).startswith("EDM"):
        raise ModelError(f"{where} {_EDM}")
    width = unet.get("cross_attention_dim")
    if unet.get("addition_embed_type") == "text_time" or has_second_encoder:
        if text_width is None:
            raise ModelError(f"{where} is the refiner of Stable Diffusion XL, which has no first text encoder. Use the "
                             "base model of XL.")
        return "sdxl"
    if width != text_width:
        raise ModelError(f"{where}: the UNet takes text states of width {width}, the text encoder gives {text_width}. "
                         "Is it a mix of two models?")
    return "sd2" if unet.get("use_linear_projection") else "sd1"


def check_wanted(name: str, family: Family, where: str) -> None:
    """Raise ModelError if base_model=NAME asks for another family than the one that was found."""
    wanted = WANTED.get(name)
    if wanted is not None and wanted != family:
        raise ModelError(f"{where} is a {TITLE[family]} model; base_model={name} wants {TITLE[wanted]}. Use "
                         f"base_model={OPTION[family]}, or base_model=file, which takes each of them.")


def _check_channels(in_channels: int, wanted: int, where: str) -> None:
    if in_channels == wanted:
        return
    if wanted != 4:
        raise ModelError(f"{where}: its UNet takes {in_channels} channels, an inpainting model's takes {wanted}. On a "
                         "plain model inpainting needs no model of its own: leave uses.inpaint.base_model out.")
    kind = _EDITED.get(in_channels, "an inpainting or editing model")
    raise ModelError(f"{where}: its UNet takes {in_channels} channels, so it is {kind}, which can't be trained on "
                     "here. Use the plain model that it was made from.")


def _by_text_encoder(shapes: Shapes, where: str) -> Family:
    def has(prefix: str) -> bool:
        return any(name.startswith(prefix) for name in shapes)

    if has(OPEN_CLIP["sdxl"]) and has(CLIP_L["sdxl"]):
        family: Family = "sdxl"
    elif has("conditioner.embedders.0.model."):
        raise ModelError(f"{where} is the refiner of Stable Diffusion XL, which has no first text encoder. Use the "
                         "base model of XL.")
    elif has(OPEN_CLIP["sd2"]):
        family = "sd2"
    elif has(CLIP_L["sd1"]):
        family = "sd1"
    else:
        raise ModelError(f"{where} holds a UNet but no text encoder (cond_stage_model... or conditioner...). Get the "
                         "full checkpoint, not the pruned UNet.")
    widths = {shape[1] for name, shape in shapes.items()
              if name.startswith(UNET) and name.endswith("attn2.to_k.weight")}
    given = sum(shape[1] for name, shape in shapes.items() if name.endswith("token_embedding.weight")
                and name.startswith(("cond_stage_model.", "conditioner.")))
    if widths != {given}:
        raise ModelError(f"{where}: the UNet takes text states of width {', '.join(map(str, sorted(widths)))}, the "
                         f"text encoder gives {given}. Is it a mix of two models?")
    return family
