"""The four forms in which a kohya training is written down, read into one: sd-scripts' options by name.

`network_args` and `optimizer_args` become mappings. Nothing is interpreted here; names.py and translate.py do that.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sweep.errors import ConfigError

Options = dict[str, Any]
_LISTS = ("network_args", "optimizer_args", "lr_scheduler_args")
_GUI_NETWORKS = {
    "Standard": ("networks.lora", {}), "Kohya LoCon": ("networks.lora", {}), "Kohya DyLoRA": ("networks.dylora", {}),
    "LyCORIS/LoCon": ("lycoris.kohya", {"algo": "locon"}), "LyCORIS/LoHa": ("lycoris.kohya", {"algo": "loha"}),
    "LyCORIS/LoKr": ("lycoris.kohya", {"algo": "lokr"}), "LyCORIS/iA3": ("lycoris.kohya", {"algo": "ia3"}),
    "LyCORIS/DyLoRA": ("lycoris.kohya", {"algo": "dylora"})}
_GUI_ARGS = {"conv_dim": "conv_dim", "conv_alpha": "conv_alpha", "rank_dropout": "rank_dropout",
             "module_dropout": "module_dropout", "factor": "factor", "unit": "unit", "LyCORIS_preset": "preset"}
_GUI_NAMES = {"optimizer": "optimizer_type", "max_resolution": "resolution", "epoch": "max_train_epochs",
              "vae": "vae", "caption_extension": "caption_extension"}
_ZERO_IS_UNSET = {"noise_offset", "min_snr_gamma", "scale_weight_norms", "multires_noise_iterations", "conv_dim",
                  "ip_noise_gamma", "max_train_steps", "max_train_epochs", "lr_scheduler_num_cycles", "seed",
                  "lr_scheduler_power", "network_dropout", "rank_dropout", "module_dropout", "save_every_n_steps"}


_TELLING = {"pretrained_model_name_or_path", "train_data_dir", "dataset_config", "network_module", "network_dim"}
"""One of these stands in every command that trains a LoRA."""


def read_options(path: Path) -> tuple[str, Options]:
    """(what the file is, its options). Raises ConfigError for a file that is none of the four."""
    if not path.exists():
        raise ConfigError(f"{path} does not exist. Give a .toml, a GUI's .json, a .safetensors LoRA, or a text file "
                          "with the command line.")
    suffix = path.suffix.lower()
    try:
        if suffix == ".safetensors":
            return "a LoRA's metadata", from_metadata(_metadata(path))
        text = path.read_text(encoding="utf-8-sig")
        if suffix == ".toml":
            return "a kohya TOML", from_toml(text, path.parent)
        if suffix == ".json":
            return "a bmaltais GUI JSON", from_gui(json.loads(text))
    except (ValueError, OSError) as error:
        raise ConfigError(f"{path} can't be read as {suffix or 'text'}: {error}") from error
    if "--" not in text:
        raise ConfigError(f"{path} holds no options (nothing begins with --). Give a .toml, a GUI's .json, a "
                          ".safetensors LoRA, or a text file with the command line.")
    options = from_command(text, path.parent)
    if not _TELLING & options.keys():
        raise ConfigError(f"{path} holds no kohya command: it has none of --{', --'.join(sorted(_TELLING))}.")
    return "a command line", options


def from_command(text: str, folder: Path = Path()) -> Options:
    """`accelerate launch ... train_network.py --a=1 --b 2 --flag`, of several lines too (ending in \\, ^ or `)."""
    words = shlex.split(re.sub(r"[\\^`]\s*\n", " ", text), posix=True)
    start = next((i for i, word in enumerate(words) if word.endswith("train_network.py")), -1)
    options: Options = {"sdxl": True} if start >= 0 and "sdxl" in words[start] else {}
    name = ""
    for word in words[start + 1:]:
        if word.startswith("--"):
            name, has_value, value = word[2:].partition("=")
            name = name.replace("-", "_")
            options[name] = [value] if has_value else []
        elif name:
            options[name].append(word)
    found = {key: _given(key, value) for key, value in options.items()}
    file = found.pop("config_file", None)
    if file is not None:
        path = folder / str(file)
        path = path if path.suffix else path.with_suffix(".toml")
        found = {**from_toml(path.read_text(encoding="utf-8"), path.parent), **found}
    return found


def _given(name: str, words: Any) -> Any:
    if name in _LISTS:
        return parse_args(words)
    if words is True or not words:
        return True
    return parse_value(words[0]) if len(words) == 1 else [parse_value(word) for word in words]


def from_toml(text: str, folder: Path = Path()) -> Options:
    """sd-scripts lays sections flat. `datasets` (of a dataset_config) is read where it has one subset."""
    options: Options = {}
    for key, value in tomllib.loads(text).items():
        if (isinstance(value, Mapping) and key not in ("lora_sweep", "general")) or key == "general":
            options |= value
        else:
            options[key] = value
    for name in _LISTS:
        if isinstance(options.get(name), list):
            options[name] = parse_args(options[name])
    named = options.get("dataset_config")
    if isinstance(named, str) and (folder / named).exists():
        del options["dataset_config"]
        options = {**from_toml((folder / named).read_text(encoding="utf-8"), (folder / named).parent), **options}
    return _with_datasets(options)


def _with_datasets(options: Options) -> Options:
    datasets = options.pop("datasets", None)
    if not isinstance(datasets, list):
        return options
    subsets = [subset for dataset in datasets for subset in dataset.get("subsets", ())]
    if len(datasets) != 1 or len(subsets) != 1:
        return {**options, "datasets": f"{len(datasets)} datasets with {len(subsets)} subsets; one of each can be read"}
    names = {"batch_size": "train_batch_size", "image_dir": "train_data_dir", "num_repeats": "dataset_repeats"}
    own = {key: value for key, value in datasets[0].items() if key != "subsets"} | subsets[0]
    return {**{names.get(key, key): value for key, value in own.items()}, **options}


def from_gui(tree: Any) -> Options:
    """The JSON that bmaltais' kohya_ss saves. Empty texts, and zeros of what 0 switches off, are unset."""
    if not isinstance(tree, Mapping) or not {"network_dim", "LoRA_type"} & set(tree):
        raise ConfigError("This JSON is no LoRA configuration of bmaltais' GUI: it has neither LoRA_type nor "
                          "network_dim.")
    given = {key: parse_value(value) if isinstance(value, str) else value for key, value in tree.items()}
    given = {key: value for key, value in given.items()
             if value not in ("", None, False) and not (value == 0 and key in _ZERO_IS_UNSET)}
    module, args = _GUI_NETWORKS.get(str(given.pop("LoRA_type", "Standard")), ("lycoris.kohya", {"algo": "?"}))
    if module == "networks.lora" and tree.get("LoRA_type", "Standard") == "Standard":
        given.pop("conv_dim", None)  # the GUI keeps them and does not pass them on
        given.pop("conv_alpha", None)
    args = {**args, **{theirs: given.pop(ours) for ours, theirs in _GUI_ARGS.items() if ours in given}}
    options: Options = {_GUI_NAMES.get(key, key): value for key, value in given.items()}
    options |= {"network_module": module, "network_args": args}
    if "optimizer_args" in options:
        options["optimizer_args"] = parse_args(shlex.split(str(options["optimizer_args"])))
    if isinstance(options.get("lr_warmup"), (int, float)):
        options["lr_warmup_steps"] = options.pop("lr_warmup") / 100  # the GUI's is a percentage
    _rates_of_gui(options)
    more = options.pop("additional_parameters", None)
    return {**options, **from_command(str(more))} if more else options


def _rates_of_gui(options: Options) -> None:
    """A rate of 0 beside one that is set switches its part off."""
    unet, text = options.get("unet_lr") or 0, options.get("text_encoder_lr") or 0
    if unet and not text:
        options["network_train_unet_only"] = True
    if text and not unet:
        options["network_train_text_encoder_only"] = True
    for name in ("unet_lr", "text_encoder_lr"):
        if not options.get(name):
            options.pop(name, None)


def from_metadata(metadata: Mapping[str, str]) -> Options:
    """The `ss_*` metadata that sd-scripts writes into its files. Raises ConfigError without any."""
    given = {key[3:]: parse_value(value) for key, value in metadata.items() if key.startswith("ss_")}
    if "network_dim" not in given:
        raise ConfigError("The file's metadata holds no ss_network_dim: it was not written by sd-scripts or this "
                          "program, or its metadata was taken out.")
    options: Options = {}
    names = {"optimizer": "optimizer_type", "batch_size_per_device": "train_batch_size",
             "debiased_estimation": "debiased_estimation_loss"}
    for key, value in given.items():
        if value is not None and key not in _ABOUT_THE_FILE:
            options[names.get(key, key)] = value
    options.pop("num_epochs", None)  # the steps say it exactly
    if isinstance(options.get("optimizer_type"), str):
        options |= _optimizer_text(options["optimizer_type"])
    args = options.get("network_args")
    args = args if isinstance(args, dict) else {}
    options["network_args"] = {key: parse_value(value) for key, value in args.items() if value is not None}
    folders = given.get("dataset_dirs")
    if isinstance(folders, dict) and len(folders) == 1:
        [(folder, counts)] = folders.items()
        options["dataset_repeats"] = counts["n_repeats"]
        options["class_tokens"] = re.sub(r"^\d+_", "", folder)
    version = str(given.get("base_model_version", ""))
    options |= {"sdxl": True} if "sdxl" in version else {}
    options.pop("base_model_version", None)
    return options


_ABOUT_THE_FILE = frozenset({
    "sd_model_hash", "new_sd_model_hash", "vae_hash", "new_vae_hash", "session_id", "training_started_at",
    "training_finished_at", "output_name", "sd_scripts_commit_hash", "num_train_images", "num_reg_images",
    "num_batches_per_epoch", "steps", "epoch", "total_batch_size", "bucket_info", "tag_frequency", "dataset_dirs",
    "reg_dataset_dirs", "training_comment", "cache_latents", "num_validation_images", "datasets", "vae_name",
    "lowram", "resize_interpolation", "full_fp16", "fp8_base", "fp8_base_unet", "huber_scale", "validation_seed",
    "validate_every_n_epochs", "validate_every_n_steps", "max_validation_steps", "text_model_name"})


def _optimizer_text(text: str) -> Options:
    """"bitsandbytes.optim.adamw.AdamW8bit(weight_decay=0.01,betas=(0.9, 0.99))", as sd-scripts writes it."""
    name, _, inside = text.partition("(")
    if "." not in name or name.startswith(("torch.optim.adamw", "bitsandbytes", "prodigyopt", "dadaptation",
                                           "lion_pytorch", "transformers", "schedulefree")):
        name = name.rpartition(".")[2]
    found: Options = {"optimizer_type": name}
    if inside:
        call = ast.parse(f"f({inside}", mode="eval").body
        assert isinstance(call, ast.Call)
        found["optimizer_args"] = {word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg}
    return found


def parse_args(words: Iterable[Any]) -> dict[str, Any]:
    """["conv_dim=8", "betas=0.9,0.99"] -> {"conv_dim": 8, "betas": [0.9, 0.99]}."""
    pairs = (str(word).partition("=") for word in words)
    return {key.strip(): parse_value(value) for key, _, value in pairs if key.strip()}


def parse_value(text: Any) -> Any:
    """A number, a truth, a list of numbers, JSON, or the text itself."""
    if not isinstance(text, str):
        return text
    stripped = text.strip()
    if stripped.lower() in ("true", "false"):
        return stripped.lower() == "true"
    if stripped.lower() in ("none", "null"):
        return None
    if stripped.startswith("{"):
        try:
            return json.loads(stripped)
        except ValueError:
            return text
    parts = [_number(part) for part in stripped.strip("()[]").split(",")]
    if all(part is not None for part in parts):
        return parts[0] if len(parts) == 1 and stripped[:1] not in "([" else parts
    return text


def _number(text: str) -> int | float | None:
    try:
        return int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            return None


def _metadata(path: Path) -> Mapping[str, str]:
    """A safetensors file's own header; no tensor is read."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if not 2 <= size <= 100_000_000:
            raise ValueError("no safetensors file")
        metadata = json.loads(file.read(size)).get("__metadata__", {})
    return {str(key): str(value) for key, value in metadata.items()}


__all__: Sequence[str] = ("Options", "from_command", "from_gui", "from_metadata", "from_toml", "parse_args",
                          "parse_value", "read_options")
