"""Our experiment files and sd-scripts' TOML, as text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sweep.record.kohya.names import GROUPS
from sweep.record.kohya.read import Options
from sweep.record.kohya.translate import Imported, flattened, to_kohya


def experiment_yaml(imported: Imported, source: str) -> str:
    """A file for conf/experiment/: python train.py experiment=NAME."""
    import yaml

    lines = ["# @package _global_", f"# {source}"]
    lines += [f"# sd-scripts' default, not named there: {key} = {value}" for key, value in imported.assumed.items()]
    lines += [f"# not carried over: {' '.join(f'{key} {why}'.split())}" for key, why in imported.unmapped.items()]
    groups = [{f"override /{group}": name} for group, name in imported.groups.items()]
    tree: dict[str, Any] = {"defaults": groups, **_nested(imported.values)}
    return "\n".join(lines) + "\n" + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def experiment_of(config: Mapping[str, Any], source: str) -> str:
    """The experiment file of a trial's own config, whole."""
    flat = flattened(config)
    groups = {group: str(flat[f"{group}.name"]) for group in GROUPS}
    values = {key: value for key, value in flat.items() if not key.endswith(".name")}
    return experiment_yaml(Imported(groups=groups, values=values), source)


def kohya_toml(config: Mapping[str, Any], output_name: str) -> str:
    """For `--config_file` of sd-scripts' train_network.py (sdxl_train_network.py for SDXL)."""
    options = to_kohya(config)
    own = options.pop("lora_sweep", {})
    options.pop("sdxl", None)
    options |= {"output_name": output_name, "output_dir": "output", "save_model_as": "safetensors"}
    lines = ["# Made by LoRA Sweep for sd-scripts v0.10.1."]
    lines += [f"# sd-scripts has no {key} = {value}" for key, value in own.items()]
    lines += [f"{key} = {_toml(value)}" for key, value in options.items()]
    if own:
        lines += ["", "[lora_sweep]  # for python -m sweep.record.import_kohya; sd-scripts does nothing with it"]
        lines += [f"{json.dumps(key)} = {json.dumps(value)}" for key, value in own.items()]
    return "\n".join(lines) + "\n"


def kohya_command(config: Mapping[str, Any], toml_name: str) -> str:
    """The command that trains the same with sd-scripts."""
    script = "sdxl_train_network.py" if config["base_model"]["name"] == "sdxl" else "train_network.py"
    return f"accelerate launch {script} --config_file {toml_name}"


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):  # network_args and optimizer_args: "key=value" texts
        return json.dumps([f"{key}={_argument(each)}" for key, each in value.items()])
    return json.dumps(value, ensure_ascii=False)


def _argument(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(map(_argument, value))
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _nested(values: Mapping[str, Any]) -> Options:
    tree: Options = {}
    for key, value in values.items():
        group, _, name = key.rpartition(".")
        if group:
            tree.setdefault(group, {})[name] = value
        else:
            tree[key] = value
    return tree
