"""What was typed, looked at before Hydra reads it: Hydra takes some mistakes without a word and explains others badly.

Knows the keys and options of conf/ and the files of an experiment; loads nothing else.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.errors import ConfigError
from sweep.schema import near_match

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

CONF_DIR = Path(__file__).parent.parent / "conf"

SD_SCRIPTS_NAMES = {
    "pretrained_model_name_or_path": "base_model.path", "v_parameterization": "base_model.prediction_type",
    "vae": "base_model.vae", "resolution": "base_model.resolution", "train_data_dir": "dataset.dir",
    "reg_data_dir": "dataset.reg_dir", "dataset_repeats": "repeats", "alpha_mask": "dataset.masked_loss",
    "conditioning_data_dir": "dataset.mask_dir", "network_module": "network", "network_train_unet_only":
    "text_encoder_lr=0", "network_train_text_encoder_only": "unet_lr=0", "optimizer_type": "optimizer",
    "learning_rate": "unet_lr and text_encoder_lr", "lr_scheduler": "scheduler", "lr_scheduler_num_cycles":
    "scheduler.num_cycles", "lr_scheduler_power": "scheduler.power", "output_dir": "sweep.results_dir",
    "output_name": "sweep.name", "epoch": "max_train_epochs", "epochs": "max_train_epochs", "log_with": "tracker",
    "batch_size": "train_batch_size", "save_state": "pack.save_state_every_n_steps", "training_comment": "note",
    "config_file": "experiment"}
"""What users of sd-scripts type first and what it is called here; docs/knobs.md has all of them."""

_SWITCHES = {"-h", "--help", "--hydra-help", "--version", "-r", "--run", "-m", "--multirun", "--resolve", "-i",
             "--info"}
_SWITCHES_WITH_VALUE = {"-c", "--cfg", "-p", "--package", "-cp", "--config-path", "-cn", "--config-name", "-cd",
                        "--config-dir", "-sc", "--shell-completion", "--experimental-rerun"}
_NOT_SWEPT = ("plan", "note", "sweep", "use", "pack", "launcher", "tracker", "search", "validate")
_PATH_OF = {"dataset": "dataset.dir", "base_model": "base_model.path", "experiment": "a file of conf/experiment/"}


@dataclass(frozen=True)
class Known:
    """What conf/ knows. config_name: the primary config, "config" or "evaluate"; program: what its user types."""

    config_name: str

    @property
    def program(self) -> str:
        return "evaluate.py" if self.config_name == "evaluate" else "train.py"

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """The groups that the primary config takes part of."""
        defaults = _read_yaml(CONF_DIR / f"{self.config_name}.yaml").get("defaults", ())
        return tuple(next(iter(entry)) for entry in defaults
                     if isinstance(entry, Mapping) and not next(iter(entry)).startswith("override "))

    @cached_property
    def keys(self) -> frozenset[str]:
        """Every dotted key, over all options of all groups."""
        found = {*_flat_keys(_read_yaml(CONF_DIR / f"{self.config_name}.yaml")), *self.groups}
        for group in self.groups:
            for path in _option_files(group, (CONF_DIR,)).values() if group != "experiment" else ():
                found.update(_flat_keys(_read_yaml(path), f"{_package(path) or group}."))
        return frozenset(found)

    def options_with(self, key: str) -> list[str]:
        """The options of the key's group that have the key, e.g. ["prodigy"] for optimizer.d_coef."""
        group = key.partition(".")[0]
        return [name for name, path in sorted(_option_files(group, (CONF_DIR,)).items())
                if key in _flat_keys(_read_yaml(path), f"{_package(path) or group}.")]


def check_command_line(arguments: Sequence[str], known: Known) -> None:
    """Refuse what Hydra would misread or take without a word. Raises ConfigError that says what to type instead."""
    overrides = [_parsed(argument, known) for argument in _overrides(arguments, known)]
    is_sweep = bool({"-m", "--multirun"} & set(arguments))
    folders = (CONF_DIR, *_more_folders(arguments))
    for override in overrides:
        key = override.key_or_group
        if key.split(".")[0].split("/")[0] == "hydra":
            continue
        _check_key(override, known)
        if override.is_sweep_override():
            _check_sweep(override, is_sweep, known)
        if key in known.groups and not override.is_delete():
            _check_options(override, _option_files(key, folders), known)


def explained(error: Exception, known: Known) -> str:
    """The message of one of Hydra's or OmegaConf's errors, in words that help."""
    text = str(error)
    if match := re.search(r"Could not override '([\w.]+)'", text):
        options = known.options_with(match[1])
        group = match[1].partition(".")[0]
        if options:
            return (f"{match[1]} is a key of {' and '.join(f'{group}={option}' for option in options)} alone. Choose "
                    "that option, or leave the key out.")
    return text


def _overrides(arguments: Sequence[str], known: Known) -> Iterator[str]:
    """The arguments that are key=value; what is neither that nor a switch of Hydra's is refused."""
    is_value = False
    for argument in arguments:
        if is_value:
            is_value = False
        elif argument in _SWITCHES or argument.partition("=")[0] in _SWITCHES | _SWITCHES_WITH_VALUE:
            is_value = argument in _SWITCHES_WITH_VALUE
        elif argument.startswith("-"):
            name, _, value = argument.lstrip("-").partition("=")
            key = name.replace("-", "_")
            raise ConfigError(f"{argument!r}: keys are written without dashes, {SD_SCRIPTS_NAMES.get(key, key)}="
                              f"{value or 'VALUE'}.{_near(key, known)} {_help(known)}")
        elif "=" not in argument and argument[:1] not in ("+", "~"):
            raise ConfigError(f"{argument!r} is not of the form key=value. If it belongs to the value before it, quote "
                              "the whole: " + r"""'dataset.dir="my photos"'.""" + f" {_help(known)}")
        else:
            yield argument


def _parsed(argument: str, known: Known) -> Override:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(argument)
    except HydraException as error:
        key = argument.partition("=")[0]
        hint = (f"Hydra's functions take no null; a list does: {key}=null,1,2." if "NoneType" in str(error) else
                "A value with commas, quotes or brackets needs quotes of its own inside the shell's: "
                f"""'{key}="..."'.""")
        raise ConfigError(f"Can't read {argument!r}: {str(error).splitlines()[0]}. {hint}") from error


def _check_key(override: Override, known: Known) -> None:
    key = override.key_or_group
    if key not in known.keys:
        raise ConfigError(f'Unknown key "{key}" in {override.input_line!r}.{_near(key, known)} {_help(known)}')
    if override.is_add() and key not in known.groups and not override.is_force_add():
        raise ConfigError(f"{override.input_line!r}: {key} is there already and is set without the '+'.")


def _check_sweep(override: Override, is_sweep: bool, known: Known) -> None:
    key, line = override.key_or_group, override.input_line
    quoted = f"""'{key}="..."'"""
    if key.split(".")[0] in _NOT_SWEPT:
        raise ConfigError(f"{line!r}: several values of {key} make no trials. If its value holds a comma, quote it "
                          f"twice: {quoted}.")
    if not is_sweep and known.config_name == "config":
        raise ConfigError(f"{line!r}: several values make a sweep, which needs -m: python train.py -m {line} ... If "
                          f"it is one value with a comma, quote it twice: {quoted}.")


def _check_options(override: Override, files: Mapping[str, Path], known: Known) -> None:
    group = override.key_or_group
    for name in _chosen(override, files):
        if name not in files:
            near = difflib.get_close_matches(name.lower().replace("-", "_"), files, n=1, cutoff=0.6)
            near += [option for option in files if option.replace("_", "") == name.lower().replace("_", "")]
            hint = f' Did you mean "{near[-1]}"?' if near else ""
            if re.search(r"[/\\]", name) and group in _PATH_OF and not near:
                hint = f" For a path of your own: {_PATH_OF[group]}={name}" if group != "experiment" else ""
            raise ConfigError(f"{group}={name} is unknown.{hint} There are: {', '.join(sorted(files))}.")
        if group == "experiment":
            _check_experiment(files[name], known)


def _chosen(override: Override, options: Collection[str]) -> list[str]:
    """The options that an override picks; of a glob those that there are."""
    from hydra.core.override_parser.types import ChoiceSweep, Glob, QuotedString

    value = override.value()
    if isinstance(value, Glob):
        found = value.filter(list(options))
        if not found:
            raise ConfigError(f"{override.input_line!r} fits none of: {', '.join(sorted(options))}.")
        return list(found)
    items = value.list if isinstance(value, ChoiceSweep) else value if isinstance(value, list) else [value]
    texts = [item.text if isinstance(item, QuotedString) else str(item) for item in items if item is not None]
    return [text for text in texts if text not in ("null", "None")]


def _check_experiment(path: Path, known: Known) -> None:
    """Hydra takes a file without its package line and drops what stands in it; and names neither file nor line."""
    import yaml

    text = path.read_text(encoding="utf-8")
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        at = getattr(error, "problem_mark", None)
        where = f", line {at.line + 1}" if at is not None else ""
        raise ConfigError(f"{path}{where} is not YAML: {getattr(error, 'problem', None) or error}.") from error
    if _package(path) != "_global_":
        raise ConfigError(f"{path} must begin with the line\n# @package _global_\nwithout it, its keys are set "
                          "nowhere and the training runs without them.")
    if not isinstance(tree, Mapping | None):
        raise ConfigError(f"{path} must hold keys and values, such as network_dim: 8.")
    for key in _flat_keys(tree or {}, with_groups=False):
        if key in known.groups:
            value = (tree or {})[key]
            raise ConfigError(f"{path}, line {_line_of(text, key)}: the option of a group is chosen among the defaults:"
                              f"\ndefaults:\n  - override /{key}: {value}")
        if key not in known.keys:
            raise ConfigError(f'{path}, line {_line_of(text, key)}: unknown key "{key}".{_near(key, known)} '
                              f"{_help(known)}")


def _line_of(text: str, key: str) -> int:
    """Where the last part of a dotted key stands; lines count from 1."""
    last = re.escape(key.split(".")[-1])
    return next((number for number, line in enumerate(text.splitlines(), 1)
                 if re.search(rf"(^|[\s{{,]){last}\s*:", line)), 1)


def _near(key: str, known: Known) -> str:
    here = SD_SCRIPTS_NAMES.get(key)
    if here is not None and key not in known.keys:
        return f" sd-scripts' {key} is {here} here." if "=" not in here else f" Here: {here}."
    if key in known.keys:
        return ""
    tails = [one for one in sorted(known.keys) if "." not in key and one.split(".")[-1] == key]
    return f' Did you mean "{tails[0]}"?' if tails else near_match(key, known.keys)


def _help(known: Known) -> str:
    return f"`python {known.program} --help` lists the keys."


def _more_folders(arguments: Sequence[str]) -> Iterator[Path]:
    """Where else Hydra looks for options: --config-dir and hydra.searchpath."""
    for before, argument in zip(("", *arguments), arguments, strict=False):
        if before in ("-cd", "--config-dir"):
            yield Path(argument)
        elif argument.startswith("--config-dir="):
            yield Path(argument.partition("=")[2])
        elif argument.startswith("hydra.searchpath="):
            for place in re.findall(r"file://([^\],]+)", argument):
                yield Path(place.strip("'\" "))


def _option_files(group: str, folders: Sequence[Path]) -> dict[str, Path]:
    """Options by name; experiments of subfolders as sub/name."""
    pattern = "**/*.yaml" if group == "experiment" else "*.yaml"
    return {path.relative_to(folder / group).with_suffix("").as_posix(): path for folder in reversed(folders)
            for path in sorted((folder / group).glob(pattern))}


def _flat_keys(tree: Mapping[str, Any], path: str = "", with_groups: bool = True) -> Iterator[str]:
    for key, value in tree.items():
        if key in ("defaults", "hydra"):
            continue
        is_group = isinstance(value, Mapping)
        if with_groups or not is_group:
            yield f"{path}{key}"
        if is_group:
            yield from _flat_keys(value, f"{path}{key}.", with_groups)


def _package(option: Path) -> str:
    """Where Hydra puts a file's keys if its first line says so: `# @package tracker.wandb`."""
    first = option.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("# @package ").strip() if first.startswith("# @package ") else ""


def _read_yaml(path: Path) -> Mapping[str, Any]:
    import yaml

    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
