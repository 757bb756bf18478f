"""Which layer and which of its tensors a key of a LoRA file means, whoever wrote the file. No torch.

sd-scripts, LyCORIS, OneTrainer:  lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight
diffusers:                        unet.down_blocks.0.attentions.0.proj_in.lora.down.weight (also lora_linear_layer, and
                                  the older ...attn1.processor.to_q_lora.down.weight)
PEFT, ai-toolkit:                 [base_model.model.][unet.]down_blocks.0.attentions.0.proj_in.lora_A[.default].weight
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweep.network.targets import Target

# what each spelling is called here: the names of kohya's and LyCORIS' files
_SUFFIXES = {
    "lora_A.weight": "lora_down.weight", "lora_B.weight": "lora_up.weight",
    "lora_A.default.weight": "lora_down.weight", "lora_B.default.weight": "lora_up.weight",
    "lora.down.weight": "lora_down.weight", "lora.up.weight": "lora_up.weight",
    "lora_linear_layer.down.weight": "lora_down.weight", "lora_linear_layer.up.weight": "lora_up.weight",
    "lora_magnitude_vector": "dora_scale", "lora_magnitude_vector.weight": "dora_scale",
    "lora_magnitude_vector.default.weight": "dora_scale",
    **{name: name for name in (
        "lora_down.weight", "lora_up.weight", "lora_mid.weight", "dora_scale", "alpha", "hada_w1_a", "hada_w1_b",
        "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2", "lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a",
        "lokr_w2_b", "lokr_t2", "on_input", "diff")},
}
_LONGEST_FIRST = sorted(_SUFFIXES, key=len, reverse=True)
_PROCESSOR = re.compile(r"^(.*)_lora\.(down|up)\.weight$")
_IA3 = re.compile(r"^(lora_\w+)\.weight$")  # (IA)^3 calls its scales plainly "weight"
_SAYS_LORA = ("lora_down.weight", "hada_w1_a", "lokr_w1", "lokr_w1_a", "on_input", "diff")


def split_key(key: str) -> tuple[str, str] | None:
    """(layer as the file names it, tensor's name in kohya's files); None for what is no part of an adapter."""
    if match := _PROCESSOR.match(key):
        return match[1].replace(".processor", ""), f"lora_{match[2]}.weight"
    for suffix in _LONGEST_FIRST:
        if key.endswith(f".{suffix}"):
            return key[:-len(suffix) - 1], _SUFFIXES[suffix]
    match = _IA3.match(key)
    return (match[1], "weight") if match else None


def is_adapter(keys: Iterable[str]) -> bool:
    """Whether a file with these keys is a LoRA of any form."""
    split = (split_key(key) for key in keys)
    return any(found is not None and found[1] in _SAYS_LORA for found in split)


class LayerNames:
    """A base's layers by every name that trainers have for them."""

    def __init__(self, targets: Sequence[Target]):
        self._targets: dict[str, Target] = {}
        for target in targets:
            for name in _names(target):
                self._targets.setdefault(name, target)

    def find(self, layer: str) -> Target | None:
        name = layer.removeprefix("base_model.model.").replace(".", "_")
        name = re.sub(r"self_attn_to_([qkv])$", r"self_attn_\1_proj", name)  # diffusers' first text-encoder files
        name = re.sub(r"self_attn_to_out$", "self_attn_out_proj", name)
        return self._targets.get(name) or self._targets.get(re.sub(r"_to_out$", "_to_out_0", name))


def _names(target: Target) -> list[str]:
    """kohya's key first; then the prefixes in use before the diffusers path, SDXL's too, and no prefix at all."""
    path = target.path.replace(".", "_")
    prefixes = {"unet": ("lora_unet_", "unet_", ""), "text_encoder": ("lora_te_", "lora_te1_", "text_encoder_", ""),
                "text_encoder_2": ("lora_te2_", "text_encoder_2_")}[target.component]
    paths = (path, path.removeprefix("text_model_"))
    return [target.key, *(prefix + each for prefix in prefixes for each in paths)]
