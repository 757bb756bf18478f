"""The stages of the build: what each reads, trains and leaves in the work folder."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sweep.errors import ModelError
from sweep.pocket.dataset import Pictures, train_pictures
from sweep.pocket.models import import_hubs
from sweep.pocket.recipe import MORE_OF_NAMED, PICTURES_PER_PERSON, SEED, Stage, settings

if TYPE_CHECKING:
    from transformers import CLIPTokenizer


@dataclass
class Build:
    """One build: where things are and how much is trained."""

    out: Path
    work: Path
    budget: str
    device: str
    num_steps: int | None
    processes: int
    threads: int | None

    @classmethod
    def from_options(cls, options: argparse.Namespace) -> Build:
        """From `build.parse_arguments`; sets the number of threads."""
        if options.threads:
            torch.set_num_threads(options.threads)
        device = options.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(
            out=options.out,
            work=options.work,
            budget=options.budget,
            device=device,
            num_steps=options.num_steps,
            processes=options.processes,
            threads=options.threads,
        )

    def settings(self, stage: str) -> Stage:
        """The recipe of a training stage under this build's budget."""
        return settings(stage, self.budget, self.num_steps)

    @cached_property
    def pictures(self) -> Pictures:
        """The train pictures, rendered at the first use."""
        return train_pictures(self.work / "pictures", SEED, PICTURES_PER_PERSON, MORE_OF_NAMED)

    @cached_property
    def tokenizer(self) -> CLIPTokenizer:
        """The tokenizer, trained at the first use and kept with the checkpoints."""
        from transformers import CLIPTokenizer

        from sweep.pocket.tokenizer import train_tokenizer

        folder = self.work / "tokenizer"
        if not (folder / "tokenizer.json").is_file():
            train_tokenizer().save_pretrained(folder)
        return CLIPTokenizer.from_pretrained(folder)

    @property
    def latents_path(self) -> Path:
        """Cached latents of the train pictures."""
        return self.work / "latents.npy"

    @property
    def decoded_path(self) -> Path:
        """The train pictures as the autoencoder gives them back."""
        return self.work / "decoded.npy"

    def run(self, stage: str) -> None:
        """Run one stage by name."""
        STAGE_FUNCTIONS[stage](self)


def _tokenizer(build: Build) -> None:
    print(f"{len(build.tokenizer)} tokens", flush=True)


def _pictures(build: Build) -> None:
    print(f"{len(build.pictures)} pictures", flush=True)


def _judge(build: Build) -> None:
    from sweep.pocket.train_networks import train_judge

    train_judge(build.pictures, build.settings("judge"), build.work)


def _face(build: Build) -> None:
    from sweep.pocket.train_networks import train_face

    if not build.decoded_path.is_file():
        raise ModelError(f"no {build.decoded_path}: the recogniser is trained on what the autoencoder gives back. Run "
                         "--stages decoder,decoded first")
    train_face(build.pictures, build.decoded_path, build.settings("face"), build.work)


def _perceptual(build: Build) -> None:
    from sweep.pocket.train_networks import train_perceptual

    train_perceptual(build.pictures, build.settings("perceptual"), build.work)


def _clip(build: Build) -> None:
    from sweep.pocket.train_clip import train_clip

    train_clip(build.pictures, build.tokenizer, build.settings("clip"), build.work)


def _vae(build: Build) -> None:
    from sweep.pocket.train_vae import psnr_held_out, train_vae

    vae = train_vae(build.pictures, build.settings("vae"), build.work)
    print(f"vae: {psnr_held_out(vae).mean():.2f} dB held out", flush=True)


def _latents(build: Build) -> None:
    """Fix the VAE: from here on it is the unit-scale copy in `vae.safetensors`."""
    from safetensors.torch import save_file

    from sweep.pocket.checkpoint import load_average
    from sweep.pocket.models import new_vae
    from sweep.pocket.train_base import cache_latents
    from sweep.pocket.train_vae import TrainVae, unit_scale

    module = TrainVae(new_vae())
    trained = load_average(build.work, "vae", module)
    vae = unit_scale(module.vae.eval(), build.pictures)
    tensors = {name: tensor.contiguous() for name, tensor in vae.state_dict().items()}
    save_file(tensors, build.work / "vae.safetensors", metadata={"step": str(trained.step)})
    cache_latents(vae, build.pictures, build.latents_path)


def _decoder(build: Build) -> None:
    from sweep.pocket.export import fixed_vae
    from sweep.pocket.train_vae import psnr_held_out, train_decoder

    vae = fixed_vae(build.work)
    print(f"decoder: {psnr_held_out(vae).mean():.2f} dB held out before", flush=True)
    train_decoder(vae, build.latents_path, build.pictures, build.settings("decoder"), build.work)
    print(f"decoder: {psnr_held_out(vae).mean():.2f} dB held out", flush=True)


def _decoded(build: Build) -> None:
    from sweep.pocket.export import tuned_vae
    from sweep.pocket.train_vae import cache_decoded

    vae, progress = tuned_vae(build.work)
    if progress.step == 0:
        raise ModelError(f"no decoder has been trained in {build.work}: run --stages decoder first")
    cache_decoded(vae, build.latents_path, build.decoded_path)


def _unet(build: Build) -> None:
    if build.processes == 1:
        _unet_process(0, build, None)
        return
    with tempfile.TemporaryDirectory() as folder:
        rendezvous = (Path(folder) / "rendezvous").as_uri()
        torch.multiprocessing.spawn(_unet_process, args=(build, rendezvous), nprocs=build.processes)


def _unet_process(process: int, build: Build, rendezvous: str | None) -> None:
    """Train the UNet alone, or as one of several processes that average their gradients."""
    import_hubs()  # a spawned process starts with nothing imported
    from sweep.pocket.train_base import train_base

    if build.threads:
        torch.set_num_threads(build.threads)
    if rendezvous is not None:
        torch.distributed.init_process_group("gloo", rendezvous, rank=process, world_size=build.processes)
    train_base(build.pictures, build.latents_path, build.tokenizer, build.settings("unet"), build.work, build.device)
    if rendezvous is not None:
        torch.distributed.destroy_process_group()


def _export(build: Build) -> None:
    from sweep.pocket.export import export_checkpoints

    export_checkpoints(build.out, build.work, build.tokenizer)


def _rv(build: Build) -> None:
    """The difference that makes the base of the exported set pocket_rv."""
    from sweep.pocket.train_rv import export_difference, train_rv

    module = train_rv(build.out, build.settings("rv"), build.work, build.device)
    export_difference(module, build.out)


STAGE_FUNCTIONS: dict[str, Callable[[Build], None]] = {
    "tokenizer": _tokenizer,
    "pictures": _pictures,
    "judge": _judge,
    "vae": _vae,
    "perceptual": _perceptual,
    "clip": _clip,
    "latents": _latents,
    "decoder": _decoder,
    "decoded": _decoded,
    "face": _face,
    "unet": _unet,
    "export": _export,
    "rv": _rv,
}
"""In the order of recipe.STAGE_ORDER."""
