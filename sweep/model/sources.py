"""Where a base lies and what it is: a folder in diffusers layout, a hub id, or one checkpoint file.

Everything here works without torch, so that a base that can't be used is named before anything is loaded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sweep.errors import ConfigError, ModelError
from sweep.model.base import EMBEDDED, BaseModelConfig, PretrainedConfig
from sweep.model.checkpoint import check_whole, vae_prefix
from sweep.model.families import TITLE, Family, check_wanted, family_of_checkpoint, family_of_configs
from sweep.model.header import Header, read_header

COMPONENTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
PREDICTIONS = ("epsilon", "v_prediction")
DIFFERENCE = "pocket_rv.safetensors"
"""Beside a weight set's sd/ folder: what makes the pocket base pocket_rv, as a LoRA of its UNet in kohya's form."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_HUB_FILES = ("model_index.json", "*/config.json", "scheduler/*", "tokenizer*/*", "unet/diffusion_pytorch_model[.-]*",
              "vae/diffusion_pytorch_model[.-]*", "text_encoder*/model[.-]*")  # "-": model-00001-of-00002.safetensors
_NEVER = ("*.bin", "*.ckpt", "*.pt", "*.msgpack", "*.onnx*", "*fp16*", "*non_ema*")

# A checkpoint file holds no vocabulary. All families share CLIP's; these repositories hold it, and one of them is often
# in a user's hub cache already.
_HAVE_VOCABULARY = (("openai/clip-vit-large-patch14", "."),
                    ("stable-diffusion-v1-5/stable-diffusion-v1-5", "tokenizer"),
                    ("runwayml/stable-diffusion-v1-5", "tokenizer"), ("CompVis/stable-diffusion-v1-4", "tokenizer"),
                    ("stabilityai/stable-diffusion-2-1", "tokenizer"),
                    ("stabilityai/stable-diffusion-xl-base-1.0", "tokenizer"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A base that has been found good as far as that can be told without loading it."""

    path: Path  # the folder, or the checkpoint file
    family: Family | None  # None: a .ckpt, which shows its family when it is loaded
    prediction_type: str | None
    num_text_layers: int | None  # of the (first) text encoder
    vocabulary: Path | None = None  # folder with vocab.json and merges.txt, for a checkpoint file
    vae: Path | None = None  # a file or folder that takes the place of its own VAE
    difference: Path | None = None  # a LoRA of the UNet that is merged into the folder's

    @property
    def is_file(self) -> bool:
        return self.vocabulary is not None

    def files(self) -> list[tuple[str, Path]]:
        """What decides what the base computes: each file with its name inside the base."""
        if self.is_file:
            assert self.vocabulary is not None
            found = [("checkpoint", self.path), *((name, self.vocabulary / name) for name in _VOCABULARY)]
        else:
            found = [(path.relative_to(self.path).as_posix(), path) for path in _files_of_folder(self.path)
                     if self.vae is None or path.relative_to(self.path).parts[0] != "vae"]
        if self.vae is not None:
            inside = [self.vae] if self.vae.is_file() else [*weights_files(self.vae), self.vae / "config.json"]
            found += [(f"other vae/{path.name if self.vae.is_dir() else 'file'}", path) for path in inside]
        if self.difference is not None:
            found.append(("difference", self.difference))
        return found


_VOCABULARY = ("vocab.json", "merges.txt")


def find_base(config: BaseModelConfig) -> Source:
    """Find the base, check that it is present, whole and of the family asked for.

    Raises ModelError that names what is wrong; ConfigError for a prediction type that is not told.
    """
    path = _located(config)
    vae = config.vae if isinstance(config, PretrainedConfig) else None
    vae_path = None if vae is None else _checked_vae(Path(vae).expanduser())
    if path.is_dir():
        source = _folder(config, path, vae_path)
        return replace(source, difference=_difference(path)) if config.name == "pocket_rv" else source
    return _file(config, path, vae_path)


def weights_files(folder: Path) -> list[Path]:
    """The safetensors that hold a component's weights; ModelError if there are none (pickles are not read)."""
    candidates = sorted(folder.glob("*.safetensors"))
    if not candidates:
        pickled = [path.name for pattern in ("*.bin", "*.ckpt", "*.pt") for path in sorted(folder.glob(pattern))]
        found = f" Its {pickled[0]} is pickled and is not read:" if pickled else ""
        raise ModelError(f"{folder} has no .safetensors file.{found} Pickled weights (.bin, .ckpt) can run code. Get "
                         "the model's safetensors version.")
    # A hub folder may hold the same weights at several precisions; the plain name is the one diffusers takes.
    return [path for path in candidates if variant(path) == min(map(variant, candidates))]


def variant(path: Path) -> str:
    """"" for model.safetensors, "fp16" for model.fp16.safetensors and model.fp16-00001-of-00002.safetensors."""
    words = path.name.split(".")[1:-1]
    return words[0].split("-")[0] if words else ""


_HUB_IDS = {"sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5", "sd2": "stabilityai/stable-diffusion-2-1",
            "sdxl": "stabilityai/stable-diffusion-xl-base-1.0"}


def _located(config: BaseModelConfig) -> Path:
    given = config.path
    if given is None and config.name in EMBEDDED:
        from sweep.pocket import WEIGHTS_DIR

        return WEIGHTS_DIR / "sd"
    if given is None:
        raise ModelError(f"base_model={config.name} needs base_model.path=FOLDER (a model in diffusers layout), a hub "
                         "id that lies in the hub's cache, or a .safetensors checkpoint. Nothing is downloaded without "
                         "being asked for; get one with, e.g.: hf download "
                         f"{_HUB_IDS.get(config.name, 'REPOSITORY FILE.safetensors')} --local-dir FOLDER")
    path = Path(given).expanduser()
    if path.exists():
        return path
    if isinstance(config, PretrainedConfig) and _HUB_ID.fullmatch(given) and path.suffix != ".safetensors":
        return _from_hub(given, config)
    hub_id = f"a hub id such as {_HUB_IDS[config.name]}, " if config.name in _HUB_IDS else ""
    raise ModelError(f"The base model {path} does not exist. Give base_model.path=FOLDER, a folder in diffusers "
                     f"layout, {hub_id}or a .safetensors file.")


def _difference(folder: Path) -> Path:
    path = folder.parent / DIFFERENCE
    if not path.is_file():
        raise ModelError(f"base_model=pocket_rv is the pocket base and a difference, and there is no {path}. Make one "
                         f"for this weight set with: python -m sweep.pocket.build --stages rv --out {folder.parent}")
    return path


def _from_hub(name: str, config: PretrainedConfig) -> Path:
    """The folder of a hub id in the user's cache; filled only when asked to, and then once: what lies there stays the
    base, whatever changes in the hub."""
    from huggingface_hub import snapshot_download

    folder = _cached(name)
    if config.download and (folder is None or not _is_filled(folder)):
        try:
            return Path(snapshot_download(name, allow_patterns=list(_HUB_FILES), ignore_patterns=list(_NEVER)))
        except Exception as error:  # the hub's client raises its transport's own errors too
            raise ModelError(f"{name} could not be downloaded: {error}") from error
    if folder is None:
        raise ModelError(f"{name} is neither a path nor in the hub's cache, and nothing is downloaded unasked. Get it "
                         f"with `hf download {name}`, or say base_model.download=true. Mind its licence.")
    return folder


def _is_filled(folder: Path) -> bool:
    """Whether a download has come to its end, as far as folders and weights tell."""
    try:
        return all((folder / c).is_dir() for c in COMPONENTS) and bool(_files_of_folder(folder))
    except ModelError:
        return False


def _cached(name: str) -> Path | None:
    """Where a hub id lies in the user's cache. Never asks the network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def _folder(config: BaseModelConfig, folder: Path, vae: Path | None) -> Source:
    """A model in diffusers layout."""
    if not (folder / "text_encoder").is_dir() and (folder / "text_encoder_2").is_dir():
        family_of_configs({"addition_embed_type": "text_time"}, True, None, str(folder), scheduler={})  # the refiner
    missing = [c for c in COMPONENTS if not (folder / c).is_dir() and not (c == "vae" and vae is not None)]
    if missing:
        raise ModelError(f"{folder} is not a base model in diffusers layout: it lacks {', '.join(missing)}."
                         f"{_checkpoints_in(folder)}")
    for component in _weighted(folder, vae):
        if not (folder / component / "config.json").is_file():
            raise ModelError(f"{folder / component} has no config.json.")
        files = weights_files(folder / component)  # several where a large component is sharded
        shapes = {name: shape for path in files for name, shape in read_header(path).shapes.items()}
        if component == "unet" and not any(name.startswith("down_blocks.") for name in shapes):
            family_of_checkpoint(shapes, str(files[0]))  # names a LoRA or a whole checkpoint that was put here
            raise ModelError(f"{files[0]} is a whole checkpoint, not the UNet of a folder in diffusers layout. Give "
                             "the file itself as base_model.path.")
    text = _json(folder / "text_encoder" / "config.json")
    scheduler = _json(folder / "scheduler" / "scheduler_config.json")
    family = family_of_configs(_json(folder / "unet" / "config.json"), (folder / "text_encoder_2").exists(),
                               text.get("hidden_size"), str(folder), scheduler=scheduler,
                               unet_channels=config.unet_channels)
    if family == "sdxl" and not (folder / "tokenizer_2").is_dir():
        raise ModelError(f"{folder} is not a whole {TITLE[family]} model: it lacks tokenizer_2.")
    check_wanted(config.name, family, str(folder))
    return Source(path=folder, family=family, vae=vae, num_text_layers=int(text.get("num_hidden_layers", 12)),
                  prediction_type=_prediction(config, scheduler.get("prediction_type", "epsilon"), str(folder)))


def _file(config: BaseModelConfig, path: Path, vae: Path | None) -> Source:
    """One checkpoint file."""
    if not isinstance(config, PretrainedConfig):
        raise ModelError(f"base_model={config.name} wants a folder, {path} is a file. Use base_model=file.")
    if path.suffix == ".ckpt":
        with path.open("rb") as file:
            start = file.read(4)
        if start != b"PK\x03\x04" and start[:1] != b"\x80":
            raise ModelError(f"{path} is named .ckpt and is no such file (those of torch begin as a zip or a pickle). "
                             "If it is safetensors, rename it to .safetensors.")
        return Source(path=path, family=None, prediction_type=config.prediction_type, num_text_layers=None, vae=vae,
                      vocabulary=_vocabulary(config, path))
    if path.suffix != ".safetensors":
        raise ModelError(f"{path} is neither a folder nor a .safetensors or .ckpt file; other kinds of files are not "
                         "read. Get the model as safetensors.")
    header = read_header(path)
    family = family_of_checkpoint(header.shapes, str(path), config.unet_channels)
    check_wanted(config.name, family, str(path))
    return Source(path=path, family=family, prediction_type=prediction_of(config, header, family, path), vae=vae,
                  num_text_layers=check_whole(header.shapes, family, str(path)), vocabulary=_vocabulary(config, path))


def _told_prediction(header: Header, family: Family) -> str | None:
    """What a checkpoint file says its UNet predicts: its metadata, the mark "v_pred", or its family; None if it does
    not say (Stable Diffusion 2.x came as both)."""
    words = " ".join((header.metadata.get("modelspec.prediction_type", ""),
                      header.metadata.get("modelspec.architecture", ""))).lower()
    if "v_pred" in header.shapes or re.search(r"\bv\b|768-v|v_prediction|\bv-pred", words):
        return "v_prediction"
    return "epsilon" if family != "sd2" or "epsilon" in words else None


def prediction_of(config: BaseModelConfig, header: Header, family: Family, path: Path) -> str:
    """What a checkpoint file's UNet predicts: as asked for, or else as the file says."""
    return _prediction(config, _told_prediction(header, family), str(path))


def _prediction(config: BaseModelConfig, told: str | None, where: str) -> str:
    asked = config.prediction_type if isinstance(config, PretrainedConfig) else None
    found = asked or told
    if found is None:
        raise ConfigError(f"{where}: a {TITLE['sd2']} checkpoint file does not say what its UNet predicts. Set "
                          "base_model.prediction_type=v_prediction (the 768-pixel models) or epsilon (the 512-pixel "
                          "\"base\" models).")
    if found not in PREDICTIONS:
        raise ModelError(f"{where} predicts {found!r}; only {' and '.join(PREDICTIONS)} are trained on here.")
    return found


def find_vocabulary(config: BaseModelConfig) -> Path | None:
    """The folder with the vocabulary that captions are read by, whether or not the rest of the base is there; None if
    none is at hand."""
    try:
        path = _located(config)
        if path.is_dir():
            return path / "tokenizer" if (path / "tokenizer" / _VOCABULARY[0]).is_file() else None
    except ModelError:
        if config.path is not None:
            raise
    try:
        return _vocabulary(config, Path("the base")) if isinstance(config, PretrainedConfig) else None
    except ModelError:
        return None


def _vocabulary(config: PretrainedConfig, path: Path) -> Path:
    """The folder with CLIP's vocabulary for a checkpoint file, which holds none."""
    if config.tokenizer is not None:
        folder = Path(config.tokenizer).expanduser()
        if missing := [name for name in _VOCABULARY if not (folder / name).is_file()]:
            raise ModelError(f"base_model.tokenizer={folder} lacks {', '.join(missing)}.")
        return folder
    for name, inside in _HAVE_VOCABULARY:
        found = _cached(name)
        if found is not None and all((found / inside / each).is_file() for each in _VOCABULARY):
            return found / inside
    raise ModelError(f"{path} holds no vocabulary (no checkpoint file does), and none of CLIP's lies in the hub's "
                     "cache. Give base_model.tokenizer=FOLDER with vocab.json and merges.txt, e.g. tokenizer/ of any "
                     "Stable Diffusion folder, or get 1.5 MB with: "
                     f"hf download {_HAVE_VOCABULARY[0][0]} vocab.json merges.txt")


def _checked_vae(path: Path) -> Path:
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"base_model.vae={path} has no config.json; give the vae/ folder of a model in diffusers "
                             "layout, or a file.")
        for file in weights_files(path):
            read_header(file)
    elif path.suffix != ".safetensors":
        raise ModelError(f"base_model.vae={path} is neither a folder nor a .safetensors file.")
    elif vae_prefix(read_header(path).shapes) is None:
        raise ModelError(f"base_model.vae={path} holds no VAE in LDM's layout (encoder.down.0...).")
    return path


def _weighted(folder: Path, vae: Path | None) -> list[str]:
    second = ["text_encoder_2"] if (folder / "text_encoder_2").is_dir() else []
    return ["unet", *(["vae"] if vae is None else []), "text_encoder", *second]


def _files_of_folder(folder: Path) -> Sequence[Path]:
    components = [c for c in ("unet", "vae", "text_encoder", "text_encoder_2") if (folder / c).is_dir()]
    files = [path for c in components for path in (*weights_files(folder / c), folder / c / "config.json")]
    for name in ("tokenizer", "tokenizer_2"):
        files += sorted((folder / name).glob("*.*"))
    return [path for path in (*files, folder / "scheduler" / "scheduler_config.json") if path.is_file()]


def _checkpoints_in(folder: Path) -> str:
    """A hint for who gave the folder that checkpoint files lie in."""
    found = sorted(path.name for path in folder.glob("*.safetensors"))
    return f" It holds {', '.join(found[:3])}; to train on one of them, give the file itself." if found else ""


def _json(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} can't be read: {error}") from error
    if not isinstance(tree, dict):
        raise ModelError(f"{path} holds no config.")
    return tree
