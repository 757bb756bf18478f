"""From sd-scripts' options to our keys, and from a trial's config to sd-scripts' options."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sweep.methods import LORA
from sweep.record.kohya.names import (
    ALGORITHMS,
    EMBEDDED,
    GROUPS,
    ITS_DEFAULTS,
    NETWORK_ARGS,
    NOT_ABOUT_TRAINING,
    OPTIMIZERS,
    OURS,
    UNSAID,
    defaults_of,
    flat_defaults,
)
from sweep.record.kohya.read import Options, parse_value

_SECRET = re.compile(r"key|token|password|secret", re.IGNORECASE)
_SCHEDULERS = ("constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial",
               "adafactor")
_PRECISIONS = {"float": "fp32", "fp32": "fp32", "fp16": "fp16", "bf16": "bf16"}


@dataclass
class Imported:
    """groups: config group -> member. values: dotted key -> value. unmapped: option -> why it could not be carried
    over. assumed: option -> sd-scripts' default that was taken because the file does not name it."""

    groups: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    unmapped: dict[str, str] = field(default_factory=dict)
    assumed: dict[str, Any] = field(default_factory=dict)


def to_ours(options: Options, *, assume_its_defaults: bool = True) -> Imported:
    """What an experiment file says for the same training.

    assume_its_defaults: what is not named has sd-scripts' default; false for metadata, which leave things out.
    """
    left = {key: value for key, value in options.items() if key not in NOT_ABOUT_TRAINING and value is not None}
    own = left.pop("lora_sweep", {})
    found = Imported()
    for key, value in ITS_DEFAULTS.items() if assume_its_defaults else ():
        if key not in left and not (key == "max_train_steps" and "max_train_epochs" in left):
            left[key] = value
            found.assumed[key] = value
    _base(left, found)
    _network(left, found)
    _optimizer(left, found)
    _scheduler(left, found)
    _rates_and_steps(left, found)
    for key in list(left):
        if key in OURS:
            found.values[OURS[key]] = left.pop(key)
    if "save_precision" in left:
        found.values["save_precision"] = _PRECISIONS.get(str(left.pop("save_precision")), "fp32")
    words = str(left.pop("class_tokens", "")).split()
    if words:
        found.values |= {"trigger": words[0], "class_noun": " ".join(words[1:]) or None}
    found.unmapped |= {key: _why(key, value) for key, value in left.items() if value not in (False, "", [], {})}
    if "seed" not in options:
        found.unmapped["seed"] = "not named: sd-scripts draws one, here it is the default"
    for key, text in own.items():
        value = json.loads(text)
        if key in GROUPS:
            found.groups[key] = value
        else:
            found.values[key] = value
    return found


def _why(key: str, value: Any) -> str:
    shown = "its value is not repeated here" if _SECRET.search(key) and key != "keep_tokens" else f"= {value}"
    return shown[:120]


def _base(left: Options, found: Imported) -> None:
    is_sdxl, is_v2 = bool(left.pop("sdxl", False)), bool(left.pop("v2", False))
    found.groups["base_model"] = "sdxl" if is_sdxl else "sd2" if is_v2 else "sd15"
    if left.get("sd_model_name") in EMBEDDED:
        found.groups["base_model"] = str(left.pop("sd_model_name"))
    path = left.pop("pretrained_model_name_or_path", None)
    if path is not None:
        found.values["base_model.path"] = str(path)
    if left.pop("v_parameterization", False):
        found.values["base_model.prediction_type"] = "v_prediction"
    resolution = parse_value(left.pop("resolution", None))
    sides = resolution if isinstance(resolution, list) else [resolution] if resolution is not None else []
    if sides:
        found.values["base_model.resolution"] = int(max(sides))
        if len(set(sides)) > 1:
            found.unmapped["resolution"] = f"= {sides}: the longer side is taken, as a square"


def _network(left: Options, found: Imported) -> None:
    module = str(left.pop("network_module", "networks.lora"))
    args: dict[str, Any] = dict(left.pop("network_args", None) or {})
    algorithm = str(args.pop("algo", "lora"))
    if module == "networks.dylora":
        name = "dylora"
    elif args.pop("dora_wd", False):
        name = "dora"
    elif module == "lycoris.kohya" and algorithm in ALGORITHMS:
        name = ALGORITHMS[algorithm]
    else:
        name = "locon" if args.get("conv_dim") else "lora"
        if algorithm not in ("lora", "locon"):
            found.unmapped["network_args algo"] = f"= {algorithm}: not known here, {name} is taken"
    if module.rpartition(".")[0] not in ("networks", "lycoris"):
        found.unmapped["network_module"] = f"= {module}: not known here, {name} is taken"
    found.groups["network"] = name
    preset = {"full": "full", "attn-only": "attention"}.get(str(args.get("preset", "")))
    if preset is not None:
        args.pop("preset")
        found.values["network.preset"] = preset
    for key, value in args.items():
        if key in NETWORK_ARGS:
            found.values[NETWORK_ARGS[key]] = value
        elif key in defaults_of("network", name) and key != "preset":
            found.values[f"network.{key}"] = value
        else:
            found.unmapped[f"network_args {key}"] = _why(key, value)


def _optimizer(left: Options, found: Imported) -> None:
    given = str(left.pop("optimizer_type", None) or "AdamW")
    for flag, meant in (("use_8bit_adam", "AdamW8bit"), ("use_lion_optimizer", "Lion")):
        given = meant if left.pop(flag, False) else given
    known = {theirs.lower(): ours for ours, theirs in OPTIMIZERS.items()} | {ours: ours for ours in OPTIMIZERS}
    known |= {"dadaptation": "dadapt_adam"}
    args = dict(left.pop("optimizer_args", None) or {})
    name = known.get(given.lower(), "custom")
    found.groups["optimizer"] = name
    if name == "custom":
        found.values["optimizer.class_path"] = given if "." in given else f"torch.optim.{given}"
        found.values["optimizer.args"] = args or None
        return
    for key, value in args.items():
        if key in defaults_of("optimizer", name):
            found.values[f"optimizer.{key}"] = list(value) if isinstance(value, tuple) else value
        else:
            found.unmapped[f"optimizer_args {key}"] = _why(key, value)


def _scheduler(left: Options, found: Imported) -> None:
    given = str(left.pop("lr_scheduler", "constant")).partition(":")[0]
    options = {"num_cycles": left.pop("lr_scheduler_num_cycles", None), "power": left.pop("lr_scheduler_power", None),
               "min_lr_ratio": left.pop("lr_scheduler_min_lr_ratio", None)}
    name = "cosine" if given == "cosine_with_min_lr" else given
    if name not in _SCHEDULERS:
        found.unmapped["lr_scheduler"] = f"= {given}: not known here, constant is taken"
        name = "constant"
    if name == "constant" and float(left.get("lr_warmup_steps") or 0) > 0:
        warmup = left.pop("lr_warmup_steps")
        found.unmapped["lr_warmup_steps"] = f"= {warmup}: a constant rate has no warm-up, there as here"
    found.groups["scheduler"] = name
    found.values |= {f"scheduler.{key}": value for key, value in options.items()
                     if value is not None and key in defaults_of("scheduler", name)}


def _rates_and_steps(left: Options, found: Imported) -> None:
    rate = left.pop("learning_rate", None)
    text = left.pop("text_encoder_lr", None)
    rates = {"unet_lr": left.pop("unet_lr", None), "text_encoder_lr": text[0] if isinstance(text, list) else text}
    found.values |= {key: rate if value is None else value for key, value in rates.items()}
    if any(value is not None for value in rates.values()):
        found.assumed.pop("learning_rate", None)
    if left.pop("network_train_unet_only", False):
        found.values["text_encoder_lr"] = 0.0
    if left.pop("network_train_text_encoder_only", False):
        found.values["unet_lr"] = 0.0
    if left.get("max_train_epochs") is not None:
        left.pop("max_train_steps", None)  # sd-scripts: the epochs win
        found.values["max_train_steps"] = None
    if left.get("save_every_n_epochs") is None:
        left.pop("save_every_n_epochs", None)


def to_kohya(config: Mapping[str, Any]) -> Options:
    """sd-scripts' options for a trial's config (its plain tree). What it has no option for stands under `lora_sweep`,
    our key -> JSON, so that importing the options again gives the same config."""
    flat = flattened(config)
    options: Options = {}
    for theirs, ours in OURS.items():
        value = flat.get(ours)
        if value is not None and value != "" and value != UNSAID.get(theirs):
            options[theirs] = value
    if options.get("max_train_steps") is not None:
        options.pop("max_train_epochs", None)
    options["save_precision"] = {"fp32": "float"}.get(flat["save_precision"], flat["save_precision"])
    options |= {"learning_rate": flat["unet_lr"], **{key: flat[key] for key in ("unet_lr", "text_encoder_lr")}}
    if flat["text_encoder_lr"] == 0:
        options["network_train_unet_only"] = True
    if flat["unet_lr"] == 0:
        options["network_train_text_encoder_only"] = True
    options |= _base_options(flat) | _network_options(flat) | _optimizer_options(flat) | _scheduler_options(flat)
    options["lora_sweep"] = _missed(flat, options)
    return {key: value for key, value in options.items() if value not in (None, {}, [])}


def flattened(config: Mapping[str, Any]) -> dict[str, Any]:
    """One level of groups as dotted keys; deeper values, such as the arguments of a custom optimizer, stay whole. The
    usual method, a LoRA, goes without saying."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if key == "method" and value["name"] == LORA:
            continue
        flat |= {f"{key}.{name}": v for name, v in value.items()} if key in GROUPS else {key: value}
    return flat


def _base_options(flat: Mapping[str, Any]) -> Options:
    side = flat["base_model.resolution"]
    return {"pretrained_model_name_or_path": flat.get("base_model.path"), "resolution": f"{side},{side}",
            "v2": flat["base_model.name"] == "sd2" or None, "sdxl": flat["base_model.name"] == "sdxl" or None,
            "v_parameterization": flat.get("base_model.prediction_type") == "v_prediction" or None}


def _network_options(flat: Mapping[str, Any]) -> Options:
    name = flat["network.name"]
    args = {theirs: flat.get(ours) for theirs, ours in NETWORK_ARGS.items() if flat.get(ours)}
    args |= {key: flat[f"network.{key}"] for key in ("factor", "unit") if f"network.{key}" in flat}
    if name not in ("lora", "locon", "dylora"):
        args |= {"algo": "lora" if name == "dora" else name,
                 "preset": {"attention": "attn-only"}.get(flat["network.preset"], flat["network.preset"])}
    if name == "dora":
        args["dora_wd"] = True
    module = {"lora": "networks.lora", "locon": "networks.lora", "dylora": "networks.dylora"}.get(name, "lycoris.kohya")
    return {"network_module": module, "network_args": args}


def _optimizer_options(flat: Mapping[str, Any]) -> Options:
    name = flat["optimizer.name"]
    if name == "custom":
        return {"optimizer_type": flat["optimizer.class_path"], "optimizer_args": flat.get("optimizer.args") or {}}
    args = {key.partition(".")[2]: value for key, value in flat.items() if key.startswith("optimizer.")}
    for not_its in ("name", "per_part"):
        args.pop(not_its, None)
    return {"optimizer_type": OPTIMIZERS[name], "optimizer_args": {k: v for k, v in args.items() if v is not None}}


def _scheduler_options(flat: Mapping[str, Any]) -> Options:
    name, low = flat["scheduler.name"], flat.get("scheduler.min_lr_ratio")
    theirs = {"cosine_annealing_warm_restarts": "cosine_with_restarts"}.get(name, name)
    if name == "cosine" and low:
        theirs = "cosine_with_min_lr"
    return {"lr_scheduler": theirs, "lr_scheduler_num_cycles": flat.get("scheduler.num_cycles"),
            "lr_scheduler_power": flat.get("scheduler.power"), "lr_scheduler_min_lr_ratio": low or None}


def _missed(flat: Mapping[str, Any], options: Options) -> dict[str, str]:
    """What an import of the options would not bring back."""
    back = to_ours({key: value for key, value in options.items() if value is not None})
    groups = {group: flat[f"{group}.name"] for group in GROUPS}
    missed = {group: name for group, name in groups.items() if name != back.groups.get(group, "folder")}
    for key, value in flat.items():
        group, _, name = key.rpartition(".")
        default = defaults_of(group, groups[group]).get(name) if group else flat_defaults().get(key)
        if name != "name" and back.values.get(key, default) != value:
            missed[key] = value
    return {key: json.dumps(value) for key, value in missed.items()}
