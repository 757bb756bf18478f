"""A kohya training in each of its four forms becomes ours with the same steps and network, and goes back again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir

from sweep.config import load
from sweep.data.batches import BatchPlan
from sweep.data.folder import read_dataset
from sweep.data.train_data import batch_plan
from sweep.errors import ConfigError
from sweep.network.metadata import training_metadata
from sweep.record.import_kohya import import_file, main
from sweep.record.kohya.names import CONF_DIR
from sweep.record.kohya.read import from_command, from_gui, from_metadata, from_toml, parse_value
from sweep.record.kohya.translate import to_kohya, to_ours
from sweep.record.kohya.write import experiment_of, experiment_yaml, kohya_command, kohya_toml
from sweep.schema import to_tree
from sweep.train_config import TrainConfig, train_from_tree
from tests.equivalence.trials import member

GOLDEN = Path(__file__).parents[2] / "assets" / "kohya"

TOML = """
pretrained_model_name_or_path = "runwayml/stable-diffusion-v1-5"
train_data_dir = "photos/img"
resolution = "512,512"
enable_bucket = true
caption_extension = ".txt"
network_module = "networks.lora"
network_dim = 128
network_alpha = 128
network_args = ["conv_dim=8", "conv_alpha=4"]
optimizer_type = "AdamW8bit"
optimizer_args = ["weight_decay=0.1", "betas=0.9,0.99"]
unet_lr = 1e-4
text_encoder_lr = 5e-5
lr_scheduler = "cosine_with_restarts"
lr_scheduler_num_cycles = 3
lr_warmup_steps = 0.05
train_batch_size = 2
max_train_epochs = 10
save_precision = "fp16"
mixed_precision = "bf16"
seed = 1234
min_snr_gamma = 5
weighted_captions = true
wandb_api_key = "abc-very-secret"
output_name = "alex"
"""

COMMAND = r"""
accelerate launch --num_cpu_threads_per_process=2 "train_network.py" \
  --pretrained_model_name_or_path="C:/models/RV2.safetensors" --train_data_dir="photos/img" --resolution=768,768 \
  --network_module=networks.lora --network_dim=8 --network_alpha=1 --text_encoder_lr=5e-05 --unet_lr=0.0001 \
  --lr_scheduler=constant --train_batch_size=6 --max_train_steps=233 --optimizer_type Prodigy \
  --optimizer_args "decouple=True" "weight_decay=0.01" "use_bias_correction=True" d_coef=2 --seed 7 --cache_latents
"""

GUI = {
    "LoRA_type": "LyCORIS/LoKr", "pretrained_model_name_or_path": "sdxl.safetensors", "sdxl": True, "v2": False,
    "train_data_dir": "photos/img", "reg_data_dir": "", "network_dim": 32, "network_alpha": 16, "conv_dim": 8,
    "conv_alpha": 4, "factor": 8, "optimizer": "Adafactor",
    "optimizer_args": "relative_step=False scale_parameter=False",
    "learning_rate": 0.0003, "unet_lr": 0.0003, "text_encoder_lr": 0, "lr_scheduler": "cosine", "lr_warmup": 10,
    "lr_scheduler_num_cycles": "", "epoch": 4, "max_train_steps": "", "train_batch_size": 3,
    "max_resolution": "1024,1024",
    "mixed_precision": "bf16", "save_precision": "bf16", "seed": "", "min_snr_gamma": 0, "noise_offset": 0.05,
    "caption_extension": ".txt", "clip_skip": 1, "additional_parameters": "--ip_noise_gamma=0.1 --fp8_base",
    "huggingface_token": "hf_secret"}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """20 photos, 10 repeats."""
    from PIL import Image

    folder = tmp_path / "photos" / "img" / "10_alexq man"
    folder.mkdir(parents=True)
    for i in range(20):
        Image.new("RGB", (80, 80), (i * 9, 60, 90)).save(folder / f"{i:03d}.png")
        (folder / f"{i:03d}.txt").write_text("photo of alexq man")
        (folder / f"{i:03d}.caption").write_text("photo of alexq man")
    return folder.parent


def composed(experiment: str, tmp_path: Path, *overrides: str) -> TrainConfig:
    """What train.py would train with an experiment file."""
    conf = tmp_path / "conf"
    if not conf.exists():
        shutil.copytree(CONF_DIR, conf)
    (conf / "experiment" / "imported.yaml").write_text(experiment)
    with initialize_config_dir(str(conf), version_base="1.3"):
        return load(compose("config", ["experiment=imported", *overrides])).train


def num_steps(config: TrainConfig) -> int:
    data = read_dataset(config.dataset, trigger=config.trigger, class_noun=config.class_noun, repeats=config.repeats)
    plan = batch_plan(config.dataset, data, resolution=64, batch_size=config.train_batch_size,
                      accumulation=config.gradient_accumulation_steps, seed=config.seed)
    return plan.num_steps(config.max_train_epochs, config.max_train_steps)


def test_a_toml(tmp_path: Path, photos: Path) -> None:
    imported = to_ours(from_toml(TOML.replace("photos/img", photos.as_posix())))
    config = composed(experiment_yaml(imported, "a test"), tmp_path, "dataset.enable_bucket=false")
    assert (config.network.name, config.network_dim, config.network_alpha, config.conv_dim, config.conv_alpha) == (
        "locon", 128, 128, 8, 4)
    assert (config.optimizer.name, config.optimizer.betas, config.optimizer.weight_decay) == (
        "adamw8bit", (0.9, 0.99), 0.1)
    assert (config.scheduler.name, config.scheduler.num_cycles, config.lr_warmup_steps) == (
        "cosine_with_restarts", 3, 0.05)
    assert (config.base_model.name, config.base_model.path) == ("sd15", "runwayml/stable-diffusion-v1-5")
    assert (config.unet_lr, config.text_encoder_lr, config.seed, config.mixed_precision) == (1e-4, 5e-5, 1234, "bf16")
    assert num_steps(config) == 20 * 10 // 2 * 10
    assert "weighted_captions" in imported.unmapped and "output_name" not in imported.unmapped


def test_a_secret_is_neither_written_nor_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "last run.toml").write_text(TOML)
    out = tmp_path / "experiment.yaml"
    assert main([str(tmp_path / "last run.toml"), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "wandb_api_key its value is not repeated here" in said
    assert "very-secret" not in said + out.read_text()
    assert "experiment=experiment scoring=none network_dim=8,32" in said
    assert f"move it to {CONF_DIR / 'experiment' / 'experiment.yaml'}" in said, "there train.py looks for it"


def test_a_command_line(tmp_path: Path, photos: Path) -> None:
    imported = to_ours(from_command(COMMAND))
    config = composed(experiment_yaml(imported, "a test"), tmp_path)
    assert (config.network.name, config.network_dim, config.network_alpha) == ("lora", 8, 1)
    assert (config.max_train_steps, config.train_batch_size, config.base_model.resolution) == (233, 6, 768)
    assert (config.optimizer.name, config.optimizer.d_coef, config.optimizer.decouple) == ("prodigy", 2.0, True)
    assert config.dataset.caption_extension == ".caption" and "caption_extension" in imported.assumed
    assert config.base_model.path == "C:/models/RV2.safetensors"
    on_photos = composed(experiment_yaml(imported, "a test"), tmp_path, f"dataset.dir={photos.as_posix()}")
    assert num_steps(on_photos) == 233


def test_a_gui_file(tmp_path: Path, photos: Path) -> None:
    imported = to_ours(from_gui({**GUI, "train_data_dir": str(photos)}))
    config = composed(experiment_yaml(imported, "a test"), tmp_path)
    assert (config.network.name, config.network.factor, config.conv_dim) == ("lokr", 8, 8)
    assert (config.base_model.name, config.base_model.resolution) == ("sdxl", 1024)
    assert (config.optimizer.name, config.optimizer.relative_step) == ("adafactor", False)
    assert (config.unet_lr, config.text_encoder_lr) == (3e-4, 0.0), "a text encoder at 0 is not trained"
    assert (config.lr_warmup_steps, config.noise_offset, config.min_snr_gamma, config.ip_noise_gamma) == (
        0.1, 0.05, None, 0.1)
    assert num_steps(config) == -(-200 // 3) * 4
    assert "fp8_base" in imported.unmapped and "hf_secret" not in str(imported)


def test_what_a_gui_keeps_for_another_type_is_not_used() -> None:
    standard = to_ours(from_gui({**GUI, "LoRA_type": "Standard", "sdxl": False}))
    assert standard.groups["network"] == "lora" and "conv_dim" not in standard.values


def test_metadata_of_sd_scripts(tmp_path: Path, photos: Path) -> None:
    metadata = json.loads((GOLDEN / "metadata_a_dim32.json").read_text())
    metadata = metadata.get("metadata", metadata)
    imported = to_ours(from_metadata(metadata), assume_its_defaults=False)
    config = composed(experiment_yaml(imported, "a test"), tmp_path, f"dataset.dir='{photos}'")
    assert config.network_dim == int(metadata["ss_network_dim"])
    assert config.network_alpha == float(metadata["ss_network_alpha"])
    assert num_steps(config) == int(metadata["ss_max_train_steps"])
    assert config.train_batch_size == int(metadata["ss_batch_size_per_device"])


def test_metadata_of_our_own_file_on_the_pocket_base(tmp_path: Path, photos: Path) -> None:
    """The file from which the first visitor sweeps on: base, network, rates and steps are those that made it."""
    made = member("a", network="lokr", unet_lr=3e-4, num_steps=20, seed=5).config
    dataset = read_dataset(replace(made.dataset, dir=str(photos)), trigger=None, class_noun=None, repeats=None)
    base: Any = SimpleNamespace(family="sd1", prediction_type="epsilon", identity="x")
    metadata = training_metadata(made, dataset, output_name="a", plan=BatchPlan((1,) * 10, 1, 0), num_steps=20, step=20,
                                 epoch=2, base=base)
    imported = to_ours(from_metadata(metadata), assume_its_defaults=False)
    assert "sd_model_name" not in imported.unmapped
    config = composed(experiment_yaml(imported, "a test"), tmp_path, f"dataset.dir='{photos}'")
    for name in ("base_model", "network", "network_dim", "network_alpha", "unet_lr", "text_encoder_lr", "seed",
                 "train_batch_size", "max_train_steps", "clip_skip"):
        assert getattr(config, name) == getattr(made, name), name


def test_an_optimizer_as_metadata_write_it() -> None:
    given = {"ss_network_dim": "8",
             "ss_optimizer": "bitsandbytes.optim.adamw.AdamW8bit(weight_decay=0.1,betas=(0.9, 0.99))"}
    found = to_ours(from_metadata(given), assume_its_defaults=False)
    assert found.groups["optimizer"] == "adamw8bit"
    assert found.values["optimizer.weight_decay"] == 0.1 and found.values["optimizer.betas"] == [0.9, 0.99]


ROUND_TRIPS: list[list[str]] = [
    [],
    ["base_model=sd15", "base_model.path=a b.safetensors", "network=locon", "conv_dim=16", "conv_alpha=8",
     "clip_skip=2"],
    ["network=lokr", "network.factor=8", "network.preset=attention", "optimizer=prodigy", "optimizer.d_coef=0.5"],
    ["network=dora", "optimizer=lion8bit", "scheduler=cosine", "scheduler.min_lr_ratio=0.1", "text_encoder_lr=0"],
    ["network=dylora", "optimizer=adafactor", "scheduler=adafactor", "max_train_steps=77", "save_precision=fp32"],
    ["optimizer=custom", "optimizer.class_path=torch.optim.Adagrad", "optimizer.args={lr_decay: 0.01}", "unet_lr=0"],
    ["scheduler=cosine_annealing_warm_restarts", "ema_decay=0.99", "dataset.mask=head", "trigger=alexq", "repeats=7"],
    ["scheduler=polynomial", "scheduler.power=2", "scheduler.lr_end=1e-6", "noise_offset=0.05", "loraplus_lr_ratio=16",
     "dataset.caption_prefix=\"a 'b' \"", "dataset.shuffle_caption=true", "dataset.keep_tokens=1", "rank_dropout=0.1"],
]
ONLY_OURS = {"base_model", "base_model.path", "base_model.resolution", "dataset.captions", "network.preset",
             "scheduler", "scheduler.warmup_frac", "scheduler.gamma", "ema_decay", "dataset.mask", "trigger",
             "scheduler.lr_end", "scheduler.min_lr_ratio"}


@pytest.mark.parametrize("overrides", ROUND_TRIPS, ids=lambda o: " ".join(o) or "defaults")
def test_exporting_and_importing_again_is_the_identity(overrides: Sequence[str], tmp_path: Path) -> None:
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        before = load(compose("config", list(overrides))).train
    toml = kohya_toml(to_tree(before), "alex")
    imported = to_ours(from_toml(toml))
    assert composed(experiment_yaml(imported, "a test"), tmp_path) == before
    assert set(to_kohya(to_tree(before)).get("lora_sweep", {})) <= ONLY_OURS, "all else has a name of sd-scripts' own"


def test_a_trial_becomes_an_experiment_of_its_own(tmp_path: Path) -> None:
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        before = load(compose("config", ROUND_TRIPS[-1])).train
    assert composed(experiment_of(to_tree(before), "trial 3"), tmp_path) == before
    assert train_from_tree(to_tree(before)) == before


def test_the_command_names_the_script_of_the_base() -> None:
    assert kohya_command({"base_model": {"name": "sdxl"}}, "a.toml") == (
        "accelerate launch sdxl_train_network.py --config_file a.toml")


def test_the_toml_is_valid_and_says_the_settings() -> None:
    import tomllib

    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = to_tree(load(compose("config", ["base_model=sd15", "network=locon", "conv_dim=8"])).train)
    tree = tomllib.loads(kohya_toml(config, "alex"))
    assert tree["network_args"] == ["conv_dim=8", "conv_alpha=8"] and tree["network_module"] == "networks.lora"
    assert "betas=0.9,0.999" in tree["optimizer_args"] and tree["optimizer_type"] == "AdamW"


@pytest.mark.parametrize(("name", "text", "message"), [
    ("a.json", '{"a": 1}', "no LoRA configuration of bmaltais"), ("a.toml", "= 3", "can't be read as .toml"),
    ("a.txt", "hello", "holds no options"), ("a.md", "see `train.py --help`", "holds no kohya command"),
    ("a.safetensors", "xxxxxxxxxxxx", "no safetensors file")])
def test_a_file_that_is_none_of_the_four_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=message):
        import_file(tmp_path / name, tmp_path / "out.yaml")


def test_an_existing_experiment_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(TOML)
    (tmp_path / "out.yaml").write_text("mine")
    with pytest.raises(ConfigError, match="exists. Choose another with --out"):
        import_file(tmp_path / "a.toml", tmp_path / "out.yaml")


@pytest.mark.parametrize(("text", "value"), [
    ("1e-4", 1e-4), ("true", True), ("0.9,0.99", [0.9, 0.99]), ("(0.9, 0.99)", [0.9, 0.99]), ("None", None),
    ("cosine", "cosine"), ("512,512", [512, 512])])
def test_values_are_read_as_they_are_meant(text: str, value: Any) -> None:
    assert parse_value(text) == value


def test_the_command_starts_without_torch(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(TOML)
    code = ("import sys; from sweep.record.import_kohya import main; main(sys.argv[1:]); "
            "assert 'torch' not in sys.modules")
    out = ["--out", str(tmp_path / "o.yaml")]
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.toml"), *out], check=True)
    assert yaml.safe_load((tmp_path / "o.yaml").read_text())["network_dim"] == 128
