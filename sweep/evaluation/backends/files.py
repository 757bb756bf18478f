"""Where a backend's weights lie; checked before anything is loaded, and never downloaded unasked. Imports no torch."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

from sweep.data.dlib_models import DLIB_FILES, INSTALL, models_folder
from sweep.errors import ModelError
from sweep.evaluation.settings import BackendConfig
from sweep.files import sha256_of

LPIPS_BACKBONE = "alexnet-owt-7be5be79.pth"  # torchvision's; the digits begin its SHA-256
MODEL_TYPES = {"clip": ("clip",), "siglip": ("siglip", "siglip2"),
               "dino": ("dinov2", "dinov2_with_registers", "dinov3_vit")}
_TOKENIZER_FILES = ("tokenizer*.json", "vocab.json", "merges.txt", "*.model")
_HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.model")


def dlib_files(config: BackendConfig) -> list[Path]:
    """The 5-point predictor and the ResNet: of a folder, or of the package face_recognition_models."""
    _needs_package("dlib", "face=dlib", INSTALL)
    folder = models_folder() if config.path is None else Path(config.path).expanduser()
    if folder is None:
        raise ModelError(f"scoring.backends.face=dlib needs its two model files; they come with `{INSTALL}`, or give "
                         "their folder as scoring.backends.face.path.")
    return _existing([folder / name for name in DLIB_FILES], config, "face")


def insightface_files(config: BackendConfig) -> list[Path]:
    """Every .onnx file of a folder."""
    _needs_package("insightface", "face=insightface", "pip install 'lora-sweep[insightface]'")
    folder = Path(config.path or "").expanduser()
    if config.path is None or not folder.is_dir():
        raise ModelError(f"scoring.backends.face=insightface needs scoring.backends.face.path=FOLDER with a detector "
                         f"and a recogniser as .onnx files (buffalo_l, auraface), got {config.path!r}. InsightFace's "
                         "own weights are for non-commercial research only, AuraFace's are free; none is downloaded.")
    files = sorted(folder.glob("*.onnx"))
    if len(files) < 2:
        raise ModelError(f"{folder} holds {len(files)} .onnx files; insightface needs a detector (det_10g.onnx, "
                         "scrfd_10g_bnkps.onnx) and a recogniser (w600k_r50.onnx, glintr100.onnx).")
    return _existing(files, config, "face")


def transformers_folder(config: BackendConfig, role: str) -> Path:
    """A folder of transformers' layout, or a hub id in the hub's cache."""
    wanted = MODEL_TYPES[config.name]
    if config.path is None:
        raise ModelError(f"scoring.backends.{role}={config.name} needs scoring.backends.{role}.path: a folder, or a "
                         "hub id that lies in the hub's cache.")
    given = Path(config.path).expanduser()
    folder = given if given.is_dir() else _from_hub(config.path, config, role)
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} is no model of transformers: it has no config.json.")
    found = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    if found not in wanted:
        raise ModelError(f"{folder} holds a model of the kind {found!r}; scoring.backends.{role}={config.name} reads "
                         f"{' or '.join(wanted)}.")
    return folder


def transformers_files(config: BackendConfig, role: str) -> list[Path]:
    folder = transformers_folder(config, role)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise ModelError(f"{folder} holds no .safetensors weights; pickled ones (.bin) are not read.")
    words = sorted(path for name in _TOKENIZER_FILES for path in folder.glob(name))
    return _existing([*weights, folder / "config.json", folder / "preprocessor_config.json", *words], config, role)


def sscd_files(config: BackendConfig) -> list[Path]:
    """One TorchScript file."""
    if config.path is None:
        raise ModelError("scoring.backends.copies=sscd needs scoring.backends.copies.path=FILE, the TorchScript of "
                         "github.com/facebookresearch/sscd-copy-detection (sscd_disc_mixup.torchscript.pt), or use "
                         "scoring.backends.copies.name=perceptual, which needs nothing.")
    return _existing([Path(config.path).expanduser()], config, "copies")


def lpips_files(config: BackendConfig) -> list[Path]:
    """torchvision's AlexNet: the given file, or where torchvision keeps its downloads."""
    _needs_package("lpips", "perceptual=lpips", "pip install lpips")
    cache = Path(os.environ.get("TORCH_HOME", "~/.cache/torch")).expanduser() / "hub" / "checkpoints" / LPIPS_BACKBONE
    path = Path(config.path).expanduser() if config.path is not None else cache
    if not path.is_file():
        raise ModelError(f"scoring.backends.perceptual=lpips lacks its backbone {path}. Get it from "
                         f"https://download.pytorch.org/models/{LPIPS_BACKBONE} and put it there, or give its place as "
                         "scoring.backends.perceptual.path.")
    files = _existing([path], config, "perceptual")
    if path.name == LPIPS_BACKBONE and not sha256_of(path).startswith("7be5be79"):
        raise ModelError(f"{path} is damaged: its SHA-256 begins with {sha256_of(path)[:8]}, the name says 7be5be79. "
                         "Download it again.")
    return files


def _from_hub(name: str, config: BackendConfig, role: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=not config.download, allow_patterns=list(_HUB_FILES)))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        raise ModelError(f"{name} is neither a folder nor in the hub's cache, and nothing is downloaded unasked. Get "
                         f"it with `hf download {name}`, or say scoring.backends.{role}.download=true.") from error
    except Exception as error:  # the hub's client raises its transport's own errors too
        raise ModelError(f"{name} could not be downloaded: {error}") from error


def _existing(paths: list[Path], config: BackendConfig, role: str) -> list[Path]:
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise ModelError(f"scoring.backends.{role}={config.name} lacks {', '.join(missing)}.")
    check_hash(paths, config, role)
    return paths


def check_hash(paths: list[Path], config: BackendConfig, role: str) -> None:
    """Raise ModelError if the first file is not the one that the config asks for."""
    if config.sha256 is not None and (found := sha256_of(paths[0])) != config.sha256.lower():
        raise ModelError(f"{paths[0]} is not the file that scoring.backends.{role}.sha256 asks for: its SHA-256 is "
                         f"{found}, asked for was {config.sha256.lower()}.")


def _needs_package(package: str, choice: str, how: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ModelError(f"scoring.backends.{choice} needs the package {package}, which is not installed: {how}.")
