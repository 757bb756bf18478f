"""`base_model=sd15` on a local folder in the hub's layout: SD 1.5's real structure, few channels, random weights."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from sweep.pocket import WEIGHTS_DIR
from tests.conftest import make_photos


@pytest.fixture(scope="module")
def sd15(tmp_path_factory) -> Path:
    from sweep.model.torchvision_ops import declare_missing_operators

    declare_missing_operators()
    from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    folder = tmp_path_factory.mktemp("hub") / "stable-diffusion-v1-5"
    torch.manual_seed(0)
    UNet2DConditionModel(block_out_channels=(32, 32, 32, 32), cross_attention_dim=768, attention_head_dim=8,
                         sample_size=64, norm_num_groups=16).save_pretrained(folder / "unet")
    AutoencoderKL(block_out_channels=(32, 32, 32, 32), latent_channels=4, norm_num_groups=16,
                  down_block_types=("DownEncoderBlock2D",) * 4,
                  up_block_types=("UpDecoderBlock2D",) * 4).save_pretrained(folder / "vae")
    CLIPTextModel(CLIPTextConfig(hidden_size=768, intermediate_size=64, num_hidden_layers=12, num_attention_heads=12,
                                 bos_token_id=0, eos_token_id=2)).save_pretrained(folder / "text_encoder")
    shutil.copytree(WEIGHTS_DIR / "sd" / "tokenizer", folder / "tokenizer")
    PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True,
                  steps_offset=1).save_pretrained(folder / "scheduler")
    # what else lies in the hub's folder and must not disturb
    (folder / "safety_checker").mkdir()
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    return folder


def test_a_lora_of_sd15s_192_and_72_layers(command, sd15: Path, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", num_photos=2)
    run = command("train.py", "base_model=sd15", f"base_model.path={sd15}", "base_model.resolution=64",
                  f"dataset.dir={photos}", "scoring=none", "tracker=none", "network_dim=4", "max_train_steps=2",
                  "launcher.threads=1", f"sweep.results_dir={tmp_path / 'results'}")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Trained, not scored" in next((tmp_path / "results").glob("*/diary.md")).read_text()
    [file] = (tmp_path / "results").glob("trials/*/checkpoints/*.safetensors")
    with safe_open(file, framework="pt") as lora:
        names = {key.split(".")[0] for key in lora.keys()}  # noqa: SIM118
        metadata = lora.metadata()
    assert sum(name.startswith("lora_unet_") for name in names) == 192
    assert sum(name.startswith("lora_te_") for name in names) == 72
    assert metadata["ss_base_model_version"] == "sd_v1" and metadata["ss_network_dim"] == "4"
    assert str(tmp_path) not in json.dumps(metadata), "no path in the metadata"


@pytest.mark.parametrize(("damage", "message"), [
    (lambda folder: shutil.rmtree(folder / "vae"), "it lacks vae"),
    (lambda folder: (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink(), "has no .safetensors file"),
    (lambda folder: _cut(folder / "unet" / "diffusion_pytorch_model.safetensors"), "is truncated: it has"),
    (lambda folder: _set(folder / "unet" / "config.json", "in_channels", 9), "so it is an inpainting model"),
    (lambda folder: _set(folder / "unet" / "config.json", "cross_attention_dim", 1024), "Is it a mix of two models?"),
])
def test_a_base_that_is_not_one_is_named(command, sd15: Path, tmp_path: Path, damage, message: str) -> None:
    folder = tmp_path / "sd"
    shutil.copytree(sd15, folder)
    damage(folder)
    photos = make_photos(tmp_path / "photos", num_photos=2)
    run = command("train.py", "base_model=sd15", f"base_model.path={folder}", f"dataset.dir={photos}", "scoring=none",
                  f"sweep.results_dir={tmp_path / 'results'}")
    assert run.returncode == 2 and message in run.stderr


def test_one_checkpoint_file_of_xl(command, tmp_path: Path) -> None:
    """base_model=file finds out what it was given; two trials that read captions differently."""
    from tests.miniatures import VOCABULARY, write_checkpoint, write_folder

    checkpoint = write_checkpoint(tmp_path / "anyXL.safetensors", write_folder(tmp_path / "xl", "sdxl"), "sdxl")
    photos = make_photos(tmp_path / "photos", num_photos=2)
    run = command("train.py", "-m", "base_model=file", f"base_model.path={checkpoint}",
                  f"base_model.tokenizer={VOCABULARY}", "base_model.resolution=64", f"dataset.dir={photos}",
                  "scoring=none", "tracker=none", "network_dim=4", "max_train_steps=2", "max_token_length=75,150",
                  "launcher.threads=1", f"sweep.results_dir={tmp_path / 'results'}")
    assert run.returncode == 0, run.stdout + run.stderr
    told = []
    for file in (tmp_path / "results").glob("trials/*/checkpoints/*.safetensors"):
        with safe_open(file, framework="pt") as lora:
            told.append(lora.metadata())
    assert sorted(each["ss_max_token_length"] for each in told) == ["150", "75"]
    for each in told:
        assert each["ss_base_model_version"] == "sdxl_base_v1-0"
        assert each["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"


def test_a_clip_skip_that_xl_ignores_is_refused(command, tmp_path: Path) -> None:
    from tests.miniatures import write_folder

    photos = make_photos(tmp_path / "photos", num_photos=2)
    run = command("train.py", "base_model=sdxl", f"base_model.path={write_folder(tmp_path / 'xl', 'sdxl')}",
                  f"dataset.dir={photos}", "scoring=none", "clip_skip=2", f"sweep.results_dir={tmp_path / 'results'}")
    assert run.returncode == 2 and "clip_skip=2: Stable Diffusion XL always reads" in run.stderr


def test_scoring_of_the_pocket_world_is_refused(command, sd15: Path, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", num_photos=2)
    run = command("train.py", "base_model=sd15", f"base_model.path={sd15}", f"dataset.dir={photos}",
                  f"sweep.results_dir={tmp_path / 'results'}")
    assert run.returncode == 2 and "or scoring=none" in run.stderr


def _set(path: Path, key: str, value: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])
