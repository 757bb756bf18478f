"""SDXL's LoRA files name the UNet's layers as the original latent-diffusion code does; diffusers names them otherwise.

The table follows from how both build the same UNet: `input_blocks` counts conv_in, then each down block's ResNets and
its downsampler; `output_blocks` counts the up blocks' ResNets.
"""

from __future__ import annotations

_RESNET = {"conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "conv2": "out_layers.3",
           "conv_shortcut": "skip_connection"}


def ldm_path(path: str, layers_per_block: int) -> str:
    """"down_blocks.1.attentions.0.proj_in" -> "input_blocks.4.1.proj_in"."""
    block, *rest = path.split(".")
    if block == "mid_block":
        container, index, *layer = rest
        place = 1 if container == "attentions" else 2 * int(index)
        return ".".join(["middle_block", str(place), *_layer(container, layer)])
    number, container, index, *layer = rest
    if block == "down_blocks":
        first = int(number) * (layers_per_block + 1) + 1
        if container == "downsamplers":
            return f"input_blocks.{first + layers_per_block}.0.op"
        return ".".join(["input_blocks", str(first + int(index)), *_in_block(container, layer)])
    first = int(number) * (layers_per_block + 1)
    if container == "upsamplers":
        # after ResNet and attention; SDXL's up blocks with an upsampler have both
        return f"output_blocks.{first + layers_per_block}.2.conv"
    return ".".join(["output_blocks", str(first + int(index)), *_in_block(container, layer)])


def _in_block(container: str, layer: list[str]) -> list[str]:
    return ["1" if container == "attentions" else "0", *_layer(container, layer)]


def _layer(container: str, layer: list[str]) -> list[str]:
    return [_RESNET[layer[0]]] if container == "resnets" else layer
