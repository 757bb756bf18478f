"""Between the forms of a LoRA file:  python -m sweep.network.convert IN OUT --to kohya|peft|diffusers

kohya:      lora_unet_..._proj_in.lora_down.weight, for A1111, ComfyUI and diffusers
peft:       unet....proj_in.lora_A.weight, as diffusers saves today
diffusers:  unet....proj_in.lora.down.weight (text encoders: .lora_linear_layer.down.weight), as its older scripts save

Layers are renamed by the base they belong to (pocket, or a folder in diffusers layout), whose weights are not loaded.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from sweep.errors import AdapterFileError, ModelError, SweepError
from sweep.model.base import EMBEDDED
from sweep.network.lora_file import LoraFile, read_tensors, read_whole, write_lora, write_tensors
from sweep.network.targets import Target, find_targets

if TYPE_CHECKING:
    from torch import Tensor

FORMS = ("kohya", "peft", "diffusers")
_NAMES = {
    "peft": {"lora_down.weight": "lora_A.weight", "lora_up.weight": "lora_B.weight",
             "dora_scale": "lora_magnitude_vector"},
    "diffusers": {"lora_down.weight": "lora.down.weight", "lora_up.weight": "lora.up.weight"},
}


def convert(source: Path, destination: Path, form: str, targets: Sequence[Target]) -> LoraFile:
    """Write a LoRA in another form, in the precision it has; its metadata stays. Returns what was read.

    PEFT's and diffusers' tensors have no alpha: alpha / dim goes into the up matrix.
    Raises AdapterFileError if it can't be read, or the form has no place for it.
    """
    lora = read_whole(source, targets)
    dtype = dtype_of(source)
    metadata = {key: value for key, value in lora.metadata.items()
                if not key.startswith("sshs_") and key != "lora_adapter_metadata"}
    if form == "kohya":
        write_lora(destination, {key: {**tensors, **lora.layers[key].constants()}
                                 for key, tensors in lora.weights.items()}, dtype=dtype, metadata=metadata)
    else:
        tensors = _renamed(source, lora, form, targets)
        write_tensors(destination, {key: tensor.to(dtype).contiguous() for key, tensor in tensors.items()}, metadata)
    return lora


def _renamed(source: Path, lora: LoraFile, form: str, targets: Sequence[Target]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for target in targets:
        layer = lora.layers.get(target.key)
        if layer is None:
            continue
        names = _NAMES[form]
        if not set(lora.weights[target.key]) <= set(names):
            raise AdapterFileError(f"{source}: {target.key} is of the kind {layer.form.algorithm!r} "
                                   f"({', '.join(lora.weights[target.key])}), for which the {form} form has no names. "
                                   "Only LoRA and LoCon, and to peft DoRA, can be converted.")
        for name, tensor in lora.weights[target.key].items():
            saved = names[name]
            if form == "diffusers" and target.part == "text_encoder":
                saved = saved.replace("lora.", "lora_linear_layer.")
            if name == "lora_up.weight":
                tensor = tensor * layer.scale
            elif name == "dora_scale":
                tensor = tensor.reshape(1, -1, 1, 1) if target.is_conv else tensor.flatten()
            tensors[f"{target.component}.{target.path}.{saved}"] = tensor
    return tensors


def dtype_of(path: Path) -> Any:
    """The widest floating type among a file's tensors."""
    import torch

    tensors, _ = read_tensors(path)
    dtypes = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point() and tensor.ndim}
    return torch.float32 if len(dtypes) != 1 else dtypes.pop()


def targets_of_folder(folder: Path) -> list[Target]:
    """A base's layers from its folder's config files alone, without weights. Raises ModelError."""
    from sweep.model.torchvision_ops import declare_missing_operators

    declare_missing_operators()
    import torch
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    try:
        encoders = [name for name in ("text_encoder", "text_encoder_2") if (folder / name).is_dir()]
        with torch.device("meta"):
            unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder / "unet"))
            text_encoders = [CLIPTextModel(CLIPTextConfig(**_json(folder / name / "config.json"))) for name in encoders]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"--base {folder} is no model in diffusers layout: {error}") from error
    base = SimpleNamespace(unet=unet, text_encoders=text_encoders, family="sdxl" if len(encoders) == 2 else "sd1")
    return find_targets(cast(Any, base))


def _json(path: Path) -> Mapping[str, Any]:
    tree: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return tree


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sweep.network.convert", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="IN", type=Path, help="a LoRA file of any form")
    parser.add_argument("destination", metavar="OUT", type=Path, help="the file to write (.safetensors)")
    parser.add_argument("--to", required=True, choices=FORMS, help="the form to write")
    parser.add_argument("--base", default="pocket",
                        help="pocket, pocket_rv, or the base model's folder in diffusers layout")
    given = parser.parse_args(arguments)
    try:
        if given.destination.suffix != ".safetensors":
            raise AdapterFileError(f"OUT = {given.destination} must end in .safetensors.")
        if given.base in EMBEDDED:
            from sweep.pocket import WEIGHTS_DIR

            folder = WEIGHTS_DIR / "sd"
        else:
            folder = Path(given.base).expanduser()
        lora = convert(given.source, given.destination, given.to, targets_of_folder(folder))
    except SweepError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{given.destination}: {len(lora.layers)} layers in the {given.to} form")
    return 0


if __name__ == "__main__":
    sys.exit(main())
