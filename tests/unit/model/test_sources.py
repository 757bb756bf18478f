"""A base that can't be used is named for what it is, from names, shapes and configs alone."""

import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from sweep.errors import ConfigError, ModelError
from sweep.identity import base_identity
from sweep.model.header import read_header
from sweep.model.sources import find_base
from tests.conftest import ROOT
from tests.miniatures import VOCABULARY
from tests.unit.model.conftest import config

Shapes = Mapping[str, tuple[int, ...]]
UNET = "model.diffusion_model."
SD1: Shapes = {f"{UNET}input_blocks.0.0.weight": (320, 4, 3, 3),
               f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 768),
               "first_stage_model.encoder.down.0.block.0.conv2.weight": (128, 128, 3, 3),
               "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight": (494, 768),
               "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight": (3072, 768)}
WIDE = {f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 1024)}


def write(path: Path, shapes: Shapes, metadata: dict[str, str] | None = None) -> Path:
    """A safetensors file of zeros, written without torch."""
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)  # sparse
    return path


def without(shapes: Shapes, prefix: str) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in shapes.items() if not name.startswith(prefix)}


def test_a_checkpoints_family_is_found(files) -> None:
    found = find_base(config(files["sd1"]))
    assert (found.family, found.prediction_type, found.num_text_layers) == ("sd1", "epsilon", 4)
    found = find_base(config(files["sdxl"]))
    assert (found.family, found.prediction_type, found.num_text_layers) == ("sdxl", "epsilon", 4)
    sd2 = files["sd2"]
    assert find_base(config(sd2, prediction_type="epsilon")).family == "sd2"
    assert find_base(config(sd2, prediction_type="v_prediction")).prediction_type == "v_prediction"
    with pytest.raises(ConfigError, match=r"does not say what its UNet predicts\. Set base_model\.prediction_type="):
        find_base(config(sd2))


@pytest.mark.parametrize(("shapes", "message"), [
    ({"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": (8, 320)}, "is a LoRA, not a base model"),
    ({"unet.mid_block.attentions.0.to_q.lora_A.weight": (8, 320)}, "is a LoRA, not a base model"),
    ({"unet.up.processor.to_q_lora.down.weight": (8, 320), "lora_te_x.hada_w1_a": (8, 8)}, "is a LoRA"),
    ({"lora_unet_x.lokr_w1": (8, 8)}, "is a LoRA"),
    ({"emb_params": (4, 768)}, "is a textual-inversion embedding"),
    ({"control_model.input_blocks.0.0.weight": (320, 4, 3, 3)}, "is a ControlNet"),
    ({"model.diffusion_model.double_blocks.0.img_attn.norm.key_norm.scale": (128,)}, "is a transformer model (Flux"),
    ({"model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight": (8, 8)}, "is a transformer model (Flux"),
    ({"down_blocks.0.resnets.0.conv1.weight": (8, 8, 3, 3)}, "is a UNet alone, out of a folder"),
    ({"text_model.embeddings.token_embedding.weight": (494, 768)}, "is a text encoder alone"),
    ({"encoder.conv_in.weight": (8, 3, 3, 3)}, "is a VAE alone, not a base model. Give it as base_model.vae=FILE"),
    ({"something.weight": (8, 8)}, "is no Stable Diffusion checkpoint: it has no UNet"),
    ({}, "Its first tensors are: none"),
    ({**SD1, f"{UNET}input_blocks.0.0.weight": (320, 9, 3, 3)}, "takes 9 channels, so it is an inpainting model"),
    ({**SD1, f"{UNET}input_blocks.0.0.weight": (320, 8, 3, 3)}, "an image-editing (InstructPix2Pix) model"),
    ({**SD1, f"{UNET}input_blocks.0.0.weight": (320, 5, 3, 3)}, "a depth-guided model"),
    (without(SD1, "first_stage"), "holds no VAE"),
    (without(SD1, "cond_stage"), "holds a UNet but no text encoder"),
    ({**SD1, **WIDE}, "takes text states of width 1024, the "
     "text encoder gives 768. Is it a mix of two models?"),
    ({**without(SD1, "cond_stage"), "conditioner.embedders.0.model.ln_final.weight": (1280,)},
     "is the refiner of Stable Diffusion XL"),
    ({**SD1, "edm_mean": (1, 4, 1, 1)}, "was trained in Karras et al.'s EDM form"),
    (SD1, "is no whole checkpoint: it lacks model.diffusion_model."),
])
def test_what_is_no_base_is_named(tmp_path: Path, shapes: Shapes, message: str) -> None:
    path = write(tmp_path / "a.safetensors", shapes)
    with pytest.raises(ModelError, match=re.escape(message)) as caught:
        find_base(config(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(("content", "message"), [
    (b"", "it is empty"),
    (b"PK\x03\x04" + bytes(200), "it is pickled"),
    (b"\x80\x02}q\x00" + bytes(200), "it is pickled"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64, "is a Git LFS pointer"),
    (b"<!DOCTYPE html><html><head><title>Sign in</title></head></html>", "it is a web page"),
    (bytes(range(7, 70)), "is truncated or no safetensors file: it has 63 bytes"),
    ((60).to_bytes(8, "little") + b"{" + b"x" * 70, "is damaged: its safetensors header can't be read"),
    ((2).to_bytes(8, "little") + b"[]", "is damaged"),
])
def test_what_is_no_safetensors_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=re.escape(message)):
        find_base(config(path))


def test_a_truncated_file_is_named_with_its_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", SD1)
    whole = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(whole - 1000)
    with pytest.raises(ModelError, match=f"is truncated: it has {whole - 1000:,} of {whole:,} bytes. Get it again"):
        find_base(config(path))


def test_a_header_whose_length_looks_like_a_pickle_is_none(tmp_path: Path, files) -> None:
    """The first byte of a file with a header of 128 + 256 n bytes is a pickle's."""
    shapes = read_header(files["sd1"]).shapes
    for padding in range(256):
        path = write(tmp_path / "a.safetensors", shapes, {"note": "x" * padding})
        if path.read_bytes()[:1] == b"\x80":
            break
    assert path.read_bytes()[:1] == b"\x80"
    assert find_base(config(path)).family == "sd1"


def test_the_wrong_option_is_named_with_the_right_one(tmp_path: Path, folders) -> None:
    with pytest.raises(ModelError, match="is a Stable Diffusion 2.x model; base_model=sd15 wants Stable Diffusion 1.x. "
                                         "Use base_model=sd2, or base_model=file"):
        find_base(config(folders["sd2"], name="sd15"))
    with pytest.raises(ModelError, match="is a Stable Diffusion XL model; base_model=sd2 wants"):
        find_base(config(folders["sdxl"], name="sd2"))
    with pytest.raises(ModelError, match="is a Stable Diffusion 1.x model; base_model=sdxl wants"):
        find_base(config(write(tmp_path / "a.safetensors", SD1), name="sdxl"))


@pytest.mark.parametrize(("family", "damage", "message"), [
    ("sd1", lambda f: shutil.rmtree(f / "vae"), "it lacks vae"),
    ("sd1", lambda f: (f / "unet" / "config.json").unlink(), "has no config.json"),
    ("sd1", lambda f: (f / "unet" / "config.json").write_text("{"), "config.json can't be read"),
    ("sd1", lambda f: (f / "unet" / "diffusion_pytorch_model.safetensors").unlink(), "has no .safetensors file"),
    ("sd1", lambda f: (f / "unet" / "diffusion_pytorch_model.safetensors").rename(f / "unet" / "model.bin"),
     "Its model.bin is pickled and is not read"),
    ("sd1", lambda f: _cut(f / "vae" / "diffusion_pytorch_model.safetensors"), "is truncated"),
    ("sd1", lambda f: _set(f / "unet" / "config.json", in_channels=9), "channels, so it is an inpainting model"),
    ("sd1", lambda f: _set(f / "unet" / "config.json", cross_attention_dim=1024), "Is it a mix of two models?"),
    ("sd1", lambda f: _set(f / "scheduler" / "scheduler_config.json", prediction_type="sample"),
     "predicts 'sample'; only epsilon and v_prediction"),
    ("sd1", lambda f: write(f / "unet" / "diffusion_pytorch_model.safetensors", {"x.lora_down.weight": (8, 8)}),
     "is a LoRA, not a base model"),
    ("sd1", lambda f: write(f / "unet" / "diffusion_pytorch_model.safetensors", SD1), "is a whole checkpoint, not the "
     "UNet of a folder"),
    ("sdxl", lambda f: _set(f / "scheduler" / "scheduler_config.json", _class_name="EDMEulerScheduler"),
     "was trained in Karras et al.'s EDM form"),
    ("sdxl", lambda f: shutil.rmtree(f / "tokenizer_2"), "it lacks tokenizer_2"),
    ("sdxl", lambda f: shutil.rmtree(f / "text_encoder"), "is the refiner of Stable Diffusion XL"),
])
def test_a_damaged_folder_is_named(tmp_path: Path, folders, family: str, damage: Callable[[Path], object],
                                   message: str) -> None:
    folder = tmp_path / family
    shutil.copytree(folders[family], folder)
    damage(folder)
    with pytest.raises(ModelError, match=re.escape(message)):
        find_base(config(folder))


@pytest.mark.parametrize(("name", "hub_id"), [
    ("sd15", "stable-diffusion-v1-5/stable-diffusion-v1-5"), ("sdxl", "stabilityai/stable-diffusion-xl-base-1.0")])
def test_a_path_that_is_not_there_is_answered_with_a_hub_id_of_the_family_asked_for(tmp_path: Path, name: str,
                                                                                    hub_id: str) -> None:
    with pytest.raises(ModelError, match=f"a hub id such as {hub_id}, or"):
        find_base(config(tmp_path / "nothing", name=name))


def test_places_that_hold_no_base(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist. Give base_model.path=FOLDER"):
        find_base(config(tmp_path / "nothing"))
    with pytest.raises(ModelError, match="needs base_model.path=FOLDER"):
        find_base(config(None))
    write(tmp_path / "rv2.safetensors", SD1)
    with pytest.raises(ModelError, match="It holds rv2.safetensors; to train on one of them, give the file itself"):
        find_base(config(tmp_path))
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="neither a folder nor a .safetensors or .ckpt file"):
        find_base(config(tmp_path / "model.gguf"))
    write(tmp_path / "model.ckpt", SD1)
    with pytest.raises(ModelError, match="is named .ckpt and is no such file"):
        find_base(config(tmp_path / "model.ckpt"))


def test_other_vaes_and_vocabularies_are_checked(tmp_path: Path, files, monkeypatch) -> None:
    path = files["sd1"]
    with pytest.raises(ModelError, match="holds no VAE in LDM's layout"):
        find_base(config(path, vae=str(write(tmp_path / "b.safetensors", {"x": (1,)}))))
    with pytest.raises(ModelError, match="neither a folder nor a .safetensors file"):
        find_base(config(path, vae=str(tmp_path / "b.pt")))
    with pytest.raises(ModelError, match="lacks vocab.json, merges.txt"):
        find_base(config(path, tokenizer=str(tmp_path)))
    _empty_cache(monkeypatch, tmp_path)
    with pytest.raises(ModelError, match="holds no vocabulary .* Give base_model.tokenizer=FOLDER"):
        find_base(config(path, tokenizer=None))
    _put_into_cache(tmp_path / "hub", "openai/clip-vit-large-patch14", VOCABULARY)
    found = find_base(config(path, tokenizer=None)).vocabulary
    assert found is not None and (found / "merges.txt").is_file()


def test_a_hub_id_is_the_users_cache_and_nothing_else(tmp_path: Path, folders, monkeypatch) -> None:
    _empty_cache(monkeypatch, tmp_path)
    _refuse_network(monkeypatch)
    with pytest.raises(ModelError, match="stabilityai/sd-mini is neither a path nor in the hub's cache, and nothing is "
                                         "downloaded unasked"):
        find_base(config(Path("stabilityai/sd-mini")))
    with pytest.raises(ModelError, match="could not be downloaded: asked the network"):
        find_base(config(Path("stabilityai/sd-mini"), download=True))
    _put_into_cache(tmp_path / "hub", "stabilityai/sd-mini", folders["sd2"])
    find_base(config(Path("stabilityai/sd-mini"), download=True))  # what is there is not asked for again
    found = find_base(config(Path("stabilityai/sd-mini"), name="sd2"))
    assert (found.family, found.prediction_type) == ("sd2", "v_prediction")
    assert (base_identity(config(Path("stabilityai/sd-mini")), tmp_path)
            == base_identity(config(folders["sd2"]), tmp_path)), "where it lies does not count"


def test_a_download_takes_what_is_read_and_no_pickle(monkeypatch, tmp_path: Path) -> None:
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    asked = {}
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **options: asked.update(options) or tmp_path)
    with pytest.raises(ModelError, match="it lacks unet"):
        find_base(config(Path("stabilityai/stable-diffusion-xl-base-1.0"), download=True))
    in_the_hub = ["model_index.json", "README.md", "sd_xl_base_1.0.safetensors", "scheduler/scheduler_config.json",
                  "unet/config.json", "unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.bin",
                  "unet/diffusion_pytorch_model.fp16.safetensors", "unet/model.onnx", "text_encoder/model.safetensors",
                  "unet/diffusion_pytorch_model.non_ema.safetensors", "text_encoder_2/model.safetensors",
                  "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
                  "text_encoder/model.safetensors.index.json",
                  "text_encoder_2/pytorch_model.bin", "tokenizer_2/vocab.json", "vae_1_0/diffusion_pytorch_model.bin"]
    taken = set(filter_repo_objects(in_the_hub, allow_patterns=asked["allow_patterns"],
                                    ignore_patterns=asked["ignore_patterns"]))
    assert taken == {"model_index.json", "scheduler/scheduler_config.json", "unet/config.json",
                     "unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors",
                     "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
                     "text_encoder/model.safetensors.index.json", "text_encoder_2/model.safetensors",
                     "tokenizer_2/vocab.json"}


def test_a_changed_base_is_another(tmp_path: Path, folders, files) -> None:
    results = tmp_path / "results"
    one = base_identity(config(files["sd1"]), results)
    copy = tmp_path / "elsewhere.safetensors"
    shutil.copyfile(files["sd1"], copy)
    assert base_identity(config(copy), results) == one, "its name does not count"
    content = bytearray(copy.read_bytes())
    content[-1] ^= 1
    copy.write_bytes(content)
    ids = {one, base_identity(config(copy), results), base_identity(config(folders["sd1"]), results),
           base_identity(config(files["sd1"], prediction_type="v_prediction"), results),
           base_identity(config(files["sd1"], vae=str(folders["sd2"] / "vae")), results),
           base_identity(config(folders["sd1"], vae=str(folders["sd2"] / "vae")), results)}
    assert len(ids) == 6
    folder = tmp_path / "folder"
    shutil.copytree(folders["sdxl"], folder)
    before = base_identity(config(folder), results)
    _set(folder / "text_encoder_2" / "config.json", hidden_act="quick_gelu")
    assert base_identity(config(folder), results) != before


def test_all_of_it_without_torch(tmp_path: Path, folders, files) -> None:
    lora = write(tmp_path / "lora.safetensors", {"x.lora_down.weight": (8, 8)})
    code = f"""
import sys
from pathlib import Path
from sweep.errors import ModelError
from sweep.identity import base_identity
from tests.unit.model.conftest import config
for path in {[str(folders['sdxl']), str(files['sd1'])]!r}:
    base_identity(config(Path(path)), Path({str(tmp_path)!r}))
for path in ({str(lora)!r}, "stabilityai/not-in-the-cache"):
    try:
        base_identity(config(Path(path)), Path({str(tmp_path)!r}))
    except ModelError:
        continue
    sys.exit("nothing raised")
heavy = {{"torch", "transformers", "diffusers", "numpy"}} & set(sys.modules)
sys.exit(f"loads {{sorted(heavy)}}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _set(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def _empty_cache(monkeypatch, root: Path) -> None:
    import huggingface_hub.constants

    (root / "hub").mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(root / "hub"))


def _refuse_network(monkeypatch) -> None:
    import huggingface_hub

    real = huggingface_hub.snapshot_download

    def guarded(*arguments, local_files_only: bool = False, **options):
        if not local_files_only:
            raise OSError("asked the network")
        return real(*arguments, local_files_only=True, **options)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", guarded)


def _put_into_cache(hub: Path, name: str, folder: Path) -> None:
    """What huggingface_hub leaves behind."""
    place = hub / f"models--{name.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0123abcd")
    shutil.copytree(folder, place / "snapshots" / "0123abcd")
