"""A weight set on disk: fp16 safetensors in one folder, with the hash of every file."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from sweep.errors import ModelError
from sweep.pocket import models
from sweep.pocket.checkpoint import START, UNKNOWN, Progress, checkpoint_path, load_average, shown
from sweep.pocket.networks import FaceRecogniser, Judge, PerceptualBackbone
from sweep.pocket.recipe import RECIPE_VERSION, SEED
from sweep.pocket.tokenizer import train_tokenizer
from sweep.pocket.train_base import TrainBase
from sweep.pocket.train_clip import TrainClip
from sweep.pocket.train_networks import TrainFace, TrainPerceptual, calibrate
from sweep.pocket.train_vae import TrainDecoder

if TYPE_CHECKING:
    from diffusers import AutoencoderKL
    from transformers import CLIPModel, CLIPTokenizer


FIXED_VAE = "vae.safetensors"


def export_sd(folder: Path, vae: nn.Module, unet: nn.Module, text_encoder: nn.Module, tokenizer: CLIPTokenizer) -> None:
    """Write the base as a diffusers folder in fp16 that `StableDiffusionPipeline.from_pretrained` loads."""
    pipeline = models.assemble_pipeline(vae, unet, text_encoder, tokenizer)  # type: ignore[arg-type]
    pipeline.to(dtype=torch.float16)
    pipeline.save_pretrained(folder, safe_serialization=True)
    _write_tokenizer(folder / "tokenizer", tokenizer)


def export_clip(folder: Path, clip: CLIPModel, tokenizer: CLIPTokenizer) -> None:
    """Write CLIP in fp16 with its tokenizer and image processor: `CLIPModel.from_pretrained(folder)` loads it."""
    clip.half().save_pretrained(folder, safe_serialization=True)
    _write_tokenizer(folder, tokenizer)
    size = models.IMAGE_SIZE
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": size},
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [models.CLIP_MEAN_STD] * 3,
        "image_std": [models.CLIP_MEAN_STD] * 3,
        "do_convert_rgb": True,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n", encoding="utf-8")


def _write_tokenizer(folder: Path, tokenizer: CLIPTokenizer) -> None:
    """vocab.json and merges.txt beside what transformers writes: older readers know only those two."""
    tokenizer.save_pretrained(folder)
    bpe = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(bpe["vocab"], ensure_ascii=False), encoding="utf-8")
    merges = ["#version: 0.2"] + [pair if isinstance(pair, str) else " ".join(pair) for pair in bpe["merges"]]
    (folder / "merges.txt").write_text("\n".join(merges) + "\n", encoding="utf-8")


def export_network(path: Path, model: nn.Module) -> None:
    """Write one of our own networks in fp16."""
    tensors = {
        name: tensor.half().contiguous() if tensor.is_floating_point() else tensor.contiguous()
        for name, tensor in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)


def export_checkpoints(out: Path, work: Path, tokenizer: CLIPTokenizer) -> None:
    """Export the averaged weights of every stage's checkpoint as it stands; a part without one stays untrained.

    Files are moved into place one by one when all are written, so that a reader finds a whole file.
    Raises ModelError without the VAE of stage `latents`, which no other part fits but the one it was trained on, and
    for a checkpoint of another recipe or seed.
    """
    progress: dict[str, Progress] = {}
    partial = work / "export"
    shutil.rmtree(partial, ignore_errors=True)

    def trained(name: str, module: nn.Module) -> nn.Module:
        has_checkpoint = checkpoint_path(work, name).is_file()
        progress[name] = load_average(work, name, module) if has_checkpoint else START
        return module.eval()

    vae, progress["decoder"] = tuned_vae(work)
    base = TrainBase(tokenizer)
    trained("unet", base)
    export_sd(partial / "sd", vae, base.unet, base.text_encoder, tokenizer)
    contrast = TrainClip(tokenizer)
    trained("clip", contrast)
    export_clip(partial / "clip", contrast.clip, tokenizer)
    face, perceptual, judge = TrainFace(), TrainPerceptual(), Judge()
    trained("face", face)
    trained("perceptual", perceptual)
    trained("judge", judge)
    calibrate(perceptual.backbone)
    export_network(partial / "face.safetensors", face.face)
    export_network(partial / "perceptual.safetensors", perceptual.backbone)
    export_network(partial / "judge.safetensors", judge)
    steps = {name: done.step for name, done in progress.items()} | {"vae": vae_steps(work / FIXED_VAE)}
    samples = {name: shown(done.samples) for name, done in progress.items()}
    is_trained = all(done.step > 0 for done in progress.values())
    write_manifest(partial, SEED, {"trained": is_trained, "steps": steps, "samples": samples})
    for path in sorted(path for path in partial.rglob("*") if path.is_file()):
        target = out / path.relative_to(partial)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.chmod(0o644)
        shutil.move(path, target)
    total = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{out}: {total / 1e6:.1f} MB, steps {steps}", flush=True)


def fixed_vae(work: Path) -> AutoencoderKL:
    """The VAE that stage `latents` fixed. Raises ModelError if there is none."""
    path = work / FIXED_VAE
    if not path.is_file():
        raise ModelError(
            f"no {path}: the base is nothing without its autoencoder. Run `python -m sweep.pocket.build --stages "
            "vae,latents` first; `--untrained` writes a set of random weights"
        )
    vae = models.new_vae()
    vae.load_state_dict(load_file(path))
    return models.freeze(vae)


def tuned_vae(work: Path) -> tuple[AutoencoderKL, Progress]:
    """The fixed VAE with the decoder of stage `decoder` as far as it has trained. Raises ModelError without a VAE."""
    vae = fixed_vae(work)
    has_checkpoint = checkpoint_path(work, "decoder").is_file()
    progress = load_average(work, "decoder", TrainDecoder(vae)) if has_checkpoint else START
    return vae, progress


def vae_steps(path: Path) -> int | str:
    """How many steps the VAE that stage `latents` fixed was trained for; "unknown" if the file does not say."""
    with safe_open(path, framework="pt") as file:
        said = (file.metadata() or {}).get("step")
    return UNKNOWN if said is None else int(said)


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_manifest(folder: Path, seed: int, facts: Mapping[str, object] | None = None) -> None:
    """`weights.json`: recipe version, seed, and size and sha256 of every other file of the set."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "weights.json")
    manifest = {
        "recipe_version": RECIPE_VERSION,
        "seed": seed,
        **(facts or {}),
        "files": {
            path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
            for path in files
        },
    }
    (folder / "weights.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def export_untrained(folder: Path, seed: int) -> None:
    """A set of random weights in the layout of the real one, for developing against."""
    torch.manual_seed(seed)
    tokenizer = train_tokenizer()
    export_sd(folder / "sd", models.new_vae(), models.new_unet(), models.new_text_encoder(tokenizer), tokenizer)
    export_clip(folder / "clip", models.new_clip(tokenizer), tokenizer)
    export_network(folder / "face.safetensors", FaceRecogniser())
    export_network(folder / "perceptual.safetensors", PerceptualBackbone())
    export_network(folder / "judge.safetensors", Judge())
    write_manifest(folder, seed, {"trained": False})
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o644)
