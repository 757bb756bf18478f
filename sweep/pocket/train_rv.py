"""Stage `rv`: the pocket base fine-tuned on pictures of another look, as a low-rank difference of its UNet.

The same recipe as the base's own; the text encoder stays, since the language is the same.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from sweep.model.sources import DIFFERENCE
from sweep.pocket.dataset import train_pictures
from sweep.pocket.export import write_manifest
from sweep.pocket.look import render_photo
from sweep.pocket.models import load_pipeline
from sweep.pocket.recipe import RV_MORE_OF_NAMED, RV_PICTURES_PER_PERSON, RV_RANK, SEED, Stage
from sweep.pocket.train_base import TrainBase, cache_latents, fit_base

BLOCKS = ("down_blocks", "mid_block", "up_blocks")
_SUFFIXES = {".lora_A.default.weight": "lora_down.weight", ".lora_B.default.weight": "lora_up.weight"}


def train_rv(weights_dir: Path, stage: Stage, work: Path, device: str) -> TrainBase:
    """Train adapters (PEFT's) on the UNet of the weight set in `weights_dir`; returns it with them, averaged."""
    pipeline = load_pipeline(weights_dir / "sd")
    pictures = train_pictures(
        work / "rv_pictures", SEED + 2, RV_PICTURES_PER_PERSON, RV_MORE_OF_NAMED, draw=render_photo
    )
    latents_path = work / "rv_latents.npy"
    if not latents_path.is_file():
        cache_latents(pipeline.vae, pictures, latents_path)
    torch.manual_seed(8)
    module = TrainBase(pipeline.tokenizer)
    module.unet.load_state_dict(pipeline.unet.state_dict())
    module.text_encoder.load_state_dict(pipeline.text_encoder.state_dict())
    module.requires_grad_(False)
    add_adapters(module.unet)
    fit_base("rv", module, pictures, latents_path, pipeline.tokenizer, stage, work, device)
    return module


def add_adapters(unet: nn.Module) -> None:
    """LoRA on every Linear and convolution of the UNet's blocks; only they require gradients."""
    from peft import LoraConfig

    layers = [
        name
        for name, layer in unet.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and name.split(".")[0] in BLOCKS
    ]
    unet.add_adapter(LoraConfig(r=RV_RANK, lora_alpha=RV_RANK, target_modules=layers))  # type: ignore[operator]


def export_difference(module: TrainBase, weights_dir: Path) -> Path:
    """Write the adapters in kohya's form in fp16 beside the set's sd/ folder, and the set's manifest anew."""
    tensors = {}
    for name, tensor in module.unet.state_dict().items():
        for pefts, kohyas in _SUFFIXES.items():
            if name.endswith(pefts):
                key = "lora_unet_" + name.removesuffix(pefts).replace(".", "_")
                tensors[f"{key}.{kohyas}"] = tensor.detach().half().contiguous()
                tensors[f"{key}.alpha"] = torch.tensor(float(RV_RANK)).half()
    path = weights_dir / DIFFERENCE
    save_file(tensors, path)
    path.chmod(0o644)
    manifest = json.loads((weights_dir / "weights.json").read_text(encoding="utf-8"))
    facts = {key: value for key, value in manifest.items() if key not in ("recipe_version", "seed", "files")}
    write_manifest(weights_dir, manifest["seed"], facts)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, {len(tensors) // 3} layers", flush=True)
    return path
