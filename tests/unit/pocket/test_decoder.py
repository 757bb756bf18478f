"""The decoder that is trained on by itself: what the base learned to draw stays what it is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sweep.errors import ModelError
from sweep.pocket import world
from sweep.pocket.dataset import Pictures, to_bytes
from sweep.pocket.export import FIXED_VAE, fixed_vae, tuned_vae
from sweep.pocket.models import load_pipeline
from sweep.pocket.recipe import Stage
from sweep.pocket.render import render
from sweep.pocket.stages import Build
from sweep.pocket.train_base import cache_latents
from sweep.pocket.train_vae import cache_decoded, train_decoder

STAGE = Stage(batch_size=4, num_steps=3, lr=1e-3, weight_decay=0.0, ema_decay=0.5)


@pytest.fixture
def pictures() -> Pictures:
    """Of eight people."""
    people = world.draw_people(8, seed=1)
    shots = world.draw_shots(people, seed=2)
    drawn = render(people, shots)
    return Pictures(to_bytes(drawn.images_BCHW).numpy(), drawn.face_box_B4, torch.arange(8), people, shots, [])


def test_only_the_decoder_learns_and_a_later_call_finds_it(pictures: Pictures, tmp_path: Path) -> None:
    torch.manual_seed(0)
    shipped = load_pipeline().vae.float()
    save_file({name: tensor.contiguous() for name, tensor in shipped.state_dict().items()}, tmp_path / FIXED_VAE,
              metadata={"step": "7"})
    latents, decoded = tmp_path / "latents.npy", tmp_path / "decoded.npy"
    cache_latents(shipped, pictures, latents)
    assert tuned_vae(tmp_path)[1].step == 0
    train_decoder(fixed_vae(tmp_path), latents, pictures, STAGE, tmp_path)
    vae, progress = tuned_vae(tmp_path)
    assert progress.step == 3
    moved = {name.split(".")[0] for name, tensor in vae.state_dict().items()
             if not torch.equal(tensor, shipped.state_dict()[name])}
    assert moved == {"decoder", "post_quant_conv"}
    cache_decoded(vae, latents, decoded)
    found, true = np.load(decoded), pictures.images_NCHW
    assert found.shape == true.shape and found.dtype == np.uint8
    assert np.abs(found.astype(int) - true).mean() < 20, "the shipped decoder, three steps on"


def test_without_an_autoencoder_it_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"--stages vae,latents"):
        tuned_vae(tmp_path)


def test_what_the_recogniser_needs_is_asked_for_by_name(pictures: Pictures, tmp_path: Path) -> None:
    build = Build(out=tmp_path, work=tmp_path, budget="full", device="cpu", num_steps=1, processes=1, threads=1)
    build.__dict__["pictures"] = pictures
    with pytest.raises(ModelError, match=r"--stages decoder,decoded first"):
        build.run("face")
    vae = load_pipeline().vae.float()
    save_file({name: tensor.contiguous() for name, tensor in vae.state_dict().items()}, tmp_path / FIXED_VAE)
    with pytest.raises(ModelError, match=r"--stages decoder first"):
        build.run("decoded")


def test_the_shipped_set_says_how_long_its_decoder_was_trained() -> None:
    from sweep.pocket import WEIGHTS_DIR

    assert json.loads((WEIGHTS_DIR / "weights.json").read_text(encoding="utf-8"))["steps"]["decoder"] > 0
