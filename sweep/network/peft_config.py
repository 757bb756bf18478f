"""What a PEFT file keeps beside its tensors: how strongly each of its layers counts. Imports no torch.

diffusers writes it into the file's metadata, by component ("unet.lora_alpha"); PEFT itself into adapter_config.json.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep.errors import AdapterFileError
from sweep.files import read_json

# What decides nothing here: where an adapter came from, what the tensors show themselves, and how it was trained.
_SAY_NOTHING = frozenset((
    "auto_mapping", "base_model_name_or_path", "inference_mode", "peft_version", "revision", "runtime_config",
    "task_type", "r", "rank_pattern", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern",
    "use_dora", "lora_dropout", "corda_config", "eva_config", "loftq_config", "lora_ga_config", "megatron_core",
    "qalora_group_size", "ensure_weight_tying"))
# starts that change the base's own weights, without which the adapter means something else
_CHANGE_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True, slots=True, kw_only=True)
class PeftConfig:
    """The strengths of one component's layers."""

    lora_alpha: float
    alpha_pattern: tuple[tuple[str, float], ...]  # end of a layer's path, as a regular expression, and its alpha
    use_rslora: bool

    def alpha(self, layer_path: str, dim: int) -> float:
        """The alpha that gives a layer PEFT's strength as alpha / dim. rsLoRA's is alpha / sqrt(dim) (Kalajdzievski
        2023, Eq. 4)."""
        found = (alpha for end, alpha in self.alpha_pattern if re.match(rf"(.*\.)?({end})$", layer_path))
        return next(found, self.lora_alpha) * (math.sqrt(dim) if self.use_rslora else 1.0)


def peft_configs(path: Path, metadata: Mapping[str, str], components: set[str]) -> dict[str, PeftConfig]:
    """By component of the diffusers pipeline; empty if nothing is told of it.

    Raises AdapterFileError for what can't be read, or would change the adapter in a way that is not known here.
    """
    beside = path.with_name("adapter_config.json")
    try:
        told: dict[str, Any] = json.loads(metadata.get("lora_adapter_metadata", "{}"))
        trees = {component: {key.removeprefix(f"{component}."): value for key, value in told.items()
                             if key.startswith(f"{component}.")} for component in components}
        if path.name == "adapter_model.safetensors" and beside.exists():
            whole = read_json(beside)
            trees = dict.fromkeys(components, whole)
        return {component: _config(path, tree) for component, tree in trees.items() if tree}
    except (ValueError, TypeError, KeyError, AttributeError, re.error) as error:
        raise AdapterFileError(f"{path}: what it says of its alphas can't be read ({error!r}).") from error


def _config(path: Path, tree: Mapping[str, Any]) -> PeftConfig:
    unknown = {key: value for key, value in tree.items() if value and key not in _SAY_NOTHING
               and key not in ("lora_alpha", "alpha_pattern", "use_rslora", "fan_in_fan_out")}
    if str(unknown.get("peft_type", "LORA")).upper() == "LORA":
        unknown.pop("peft_type", None)
    if unknown.get("bias") == "none":
        del unknown["bias"]
    if not str(unknown.get("init_lora_weights", "")).lower().startswith(_CHANGE_THE_BASE):
        unknown.pop("init_lora_weights", None)
    if unknown:
        said = ", ".join(f"{key}={value!r}" for key, value in sorted(unknown.items()))
        raise AdapterFileError(f"{path}: its PEFT config says {said}, which changes what the adapter does and is not "
                               "known here. Merge it with PEFT, or save it from there as a plain LoRA.")
    patterns = tuple((str(end), float(alpha)) for end, alpha in (tree.get("alpha_pattern") or {}).items())
    for end, _ in patterns:
        re.compile(end)
    return PeftConfig(lora_alpha=float(tree["lora_alpha"]), alpha_pattern=patterns,
                      use_rslora=bool(tree.get("use_rslora")))
