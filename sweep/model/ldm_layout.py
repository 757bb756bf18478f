"""A base as one checkpoint file in CompVis' and Stability's layout ("LDM"), which A1111 and ComfyUI load as a model.

The inverse of what `checkpoint` reads. Names: `model.diffusion_model.` for the UNet, `first_stage_model.` for the VAE,
and the text encoders as each family has them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from sweep.model.families import CLIP_L, OPEN_CLIP, UNET, VAE, Family

if TYPE_CHECKING:
    from torch import Tensor

_OUTER = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
          "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
          "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}
_RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
           "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_CLIP_BLOCK = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "self_attn.out_proj": "attn.out_proj",
               "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}


def ldm_tensors(unet: Mapping[str, Tensor], vae: Mapping[str, Tensor], texts: Sequence[Mapping[str, Tensor]],
                family: Family, layers_per_block: int) -> dict[str, Tensor]:
    """All tensors of a base, given under diffusers' and transformers' names. layers_per_block: of the UNet."""
    found = {f"{UNET}{name}": tensor for name, tensor in _unet(unet, layers_per_block)}
    found |= {f"{VAE[0]}{name}": tensor for name, tensor in _vae(vae)}
    rest = [{name.removeprefix("text_model."): tensor for name, tensor in text.items()} for text in texts]
    if family in CLIP_L:
        found |= {f"{CLIP_L[family]}text_model.{name}": tensor for name, tensor in rest.pop(0).items()}
    if family in OPEN_CLIP:
        found |= {f"{OPEN_CLIP[family]}{name}": tensor for name, tensor in _open_clip(rest.pop(0), family)}
    return found


def _unet(tensors: Mapping[str, Tensor], layers_per_block: int) -> Iterator[tuple[str, Tensor]]:
    """`input_blocks` counts conv_in, then each down block's ResNets and its downsampler; `output_blocks` counts the up
    blocks' ResNets, an upsampler being the last layer of its block's last."""
    attends = {name.split(".")[1] for name in tensors if name.startswith("up_blocks.") and ".attentions." in name}
    for name, tensor in tensors.items():
        module, _, kind = name.rpartition(".")
        yield f"{_OUTER.get(module) or _in_block(module.split('.'), attends, layers_per_block)}.{kind}", tensor


def _in_block(parts: Sequence[str], attends: set[str], layers_per_block: int) -> str:
    """The name of a layer of a block. attends: the up blocks that have attention."""
    if parts[0] == "mid_block":
        _, container, index, *layer = parts
        place = f"middle_block.{1 if container == 'attentions' else 2 * int(index)}"
        return f"{place}.{_layer(container, layer)}"
    side, block, container, index, *layer = parts
    first = int(block) * (layers_per_block + 1)
    if side == "down_blocks":
        if container == "downsamplers":
            return f"input_blocks.{1 + first + layers_per_block}.0.op"
        return f"input_blocks.{1 + first + int(index)}.{int(container == 'attentions')}.{_layer(container, layer)}"
    if container == "upsamplers":
        return f"output_blocks.{first + layers_per_block}.{1 + (block in attends)}.conv"
    return f"output_blocks.{first + int(index)}.{int(container == 'attentions')}.{_layer(container, layer)}"


def _layer(container: str, layer: Sequence[str]) -> str:
    name = ".".join(layer)
    return _RESNET[name] if container == "resnets" else name


def _vae(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Its decoder counts blocks from the inside; its attention's matrices are 1x1 convolutions."""
    last = max(int(name.split(".")[2]) for name in tensors if name.startswith("decoder.up_blocks."))
    for name, tensor in tensors.items():
        new = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", name)
        new = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", new)
        new = re.sub(r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda m: f"up.{last - int(m[1])}.block.{m[2]}", new)
        new = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{last - int(m[1])}.upsample", new)
        new = re.sub(r"mid_block\.resnets\.(\d+)", lambda m: f"mid.block_{int(m[1]) + 1}", new)
        new = re.sub(r"mid_block\.attentions\.0\.(.+)\.(weight|bias)",
                     lambda m: f"mid.attn_1.{_VAE_ATTENTION[m[1]]}.{m[2]}", new)
        new = new.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        yield new, tensor[:, :, None, None] if ".attn_1." in new and tensor.ndim == 2 else tensor


def _open_clip(tensors: Mapping[str, Tensor], family: Family) -> Iterator[tuple[str, Tensor]]:
    """Query, key and value are one matrix there, and what is projected is multiplied from the left."""
    import torch

    for name, new in (("embeddings.position_embedding.weight", "positional_embedding"),
                      ("embeddings.token_embedding.weight", "token_embedding.weight"),
                      ("final_layer_norm.weight", "ln_final.weight"), ("final_layer_norm.bias", "ln_final.bias")):
        yield new, tensors[name]
    if "text_projection.weight" in tensors:
        yield "text_projection", tensors["text_projection.weight"].T
    num_layers = 1 + max(int(name.split(".")[2]) for name in tensors if name.startswith("encoder.layers."))
    # 2.x reads the last but one of OpenCLIP's layers. The last must be there and is never used: a copy stands for it
    for i in range(num_layers + (family == "sd2")):
        mine, its = f"encoder.layers.{min(i, num_layers - 1)}.", f"transformer.resblocks.{i}."
        for kind in ("weight", "bias"):
            yield f"{its}attn.in_proj_{kind}", torch.cat(
                [tensors[f"{mine}self_attn.{each}_proj.{kind}"] for each in "qkv"])
            for name, new in _CLIP_BLOCK.items():
                yield f"{its}{new}.{kind}", tensors[f"{mine}{name}.{kind}"]
