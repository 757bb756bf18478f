"""What a sweep's question says to a reader: the settings that take part, with what null stands for.

A swept experiment, method or optimizer brings settings along. They are read off the trials: what all share is part of
the question whatever the defaults say, what differs is told of each trial.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sweep.record.entry import SweepEntry
from sweep.schema import flat
from sweep.trial import TrialResult

PLACES = ("dataset.dir", "dataset.holdout_dir", "base_model.path")
"""Where things lie; what is in them is compared."""
_STANDS_FOR = {"network_alpha": "network_dim", "conv_alpha": "conv_dim", "repeats": "the number in the folder's name"}
"""What null, or 0, is. Of other settings it is "off", or a default that conf/ names beside the key."""
_ONLY_WITH = {"conv_alpha": "conv_dim", "multires_noise_discount": "multires_noise_iterations",
              **dict.fromkeys(("dataset.reg_prompt", "dataset.reg_num_steps", "dataset.reg_guidance_scale"),
                              "dataset.generate_reg"),
              "dataset.caption_extension": "dataset.captions", "dataset.keep_tokens_separator": "dataset.keep_tokens"}
_INSTEAD = {"optimizer.unet_lr": "unet_lr", "optimizer.text_encoder_lr": "text_encoder_lr",
            "max_train_epochs": "max_train_steps", "repeats": "steps_per_epoch"}
_OFF: tuple[Any, ...] = (None, "", 0, False, "none", [])


def asked(entry: SweepEntry, results: Sequence[TrialResult]) -> dict[str, Any]:
    """The settings that all trials share, without those that are off, that another one replaces, or that nothing here
    uses."""
    question = {**shared(entry, results), "trigger": entry.trigger, "class_noun": entry.class_noun}
    swept = {*entry.swept_keys, *brought(entry, results)}
    shown = {key: value if value not in _OFF else _STANDS_FOR.get(key)
             for key, value in question.items() if _takes_part(key, question, swept)}
    return {key: value for key, value in shown.items() if value is not None}


def shared(entry: SweepEntry, results: Sequence[TrialResult]) -> dict[str, Any]:
    """All that no trial has otherwise: the question, which was composed without what is swept, set right by them."""
    read, apart = _read(entry, results), set(brought(entry, results))
    known = {key: value for key, value in (read[0] if read else {}).items()
             if all(key in one and one[key] == value for one in read) and value != _STANDS_FOR.get(key)}
    question = {key: value for key, value in entry.question.items() if not _is_stale(key, read)}
    return {key: value for key, value in {**question, **known}.items() if key not in apart}


def brought(entry: SweepEntry, results: Sequence[TrialResult]) -> tuple[str, ...]:
    """The settings in which trials differ though none of them is swept, in the order of the config."""
    read = _read(entry, results)
    keys = dict.fromkeys(key for one in read for key in one)
    return tuple(key for key in keys if len({repr(one.get(key)) for one in read}) > 1
                 and any(one.get(key) not in _OFF for one in read))


def settings_of(entry: SweepEntry, results: Sequence[TrialResult]) -> list[dict[str, Any]]:
    """What each trial is told by: the swept settings, and those brought along that it has."""
    along, told = brought(entry, results), [_told(entry, result) for result in results]
    return [{key: result.trial.settings.get(key) for key in entry.swept_keys}
            | {key: one[key] for key in along if key in one} for result, one in zip(results, told, strict=True)]


def untold(entry: SweepEntry, results: Sequence[TrialResult]) -> list[str]:
    """What else each trial was trained by, beside `settings_of`, as one text: alike where it is the same."""
    keys = {*entry.swept_keys, *brought(entry, results)}
    whole = ({**flat(result.trial.config), **_told(entry, result)} for result in results)
    return [repr(sorted((key, repr(value)) for key, value in one.items() if key not in keys)) for one in whole]


def bases_of(entry: SweepEntry, results: Sequence[TrialResult]) -> str:
    """The options of the base model that the trials have: "sd15, sdxl"."""
    names = (flat(result.trial.config).get("base_model.name") for result in results)
    return ", ".join(dict.fromkeys(filter(None, names))) or entry.base_model


def are_photos_varied(entry: SweepEntry, results: Sequence[TrialResult]) -> bool:
    """Whether trials may differ in how many photos they have."""
    return any(len({flat(result.trial.config).get(key) for result in results}) > 1
               for key in ("dataset.dir", "dataset.num_images"))


def _read(entry: SweepEntry, results: Sequence[TrialResult]) -> list[dict[str, Any]]:
    return [_told(entry, result) for result in results if result.trial.config]


def _told(entry: SweepEntry, result: TrialResult) -> dict[str, Any]:
    """A trial's settings that no swept key names, of the groups that were asked about; null by what it stood for."""
    groups = {key.split(".")[0] for key in (*entry.question, *entry.swept_keys)}
    swept = set(entry.swept_keys)
    config = flat(result.trial.config)

    def told(key: str, value: Any) -> Any:
        instead = _STANDS_FOR.get(key)
        was_null = instead is not None and entry.question.get(key) is None and value is not None
        return instead if was_null and value == config.get(str(instead)) else value

    return {key: told(key, value) for key, value in config.items()
            if key.split(".")[0] in groups and not {key, key.split(".")[0]} & swept and key not in PLACES}


def _is_stale(key: str, read: Sequence[Mapping[str, Any]]) -> bool:
    """Whether it belongs to an option that no trial has: a swept experiment chose another."""
    group = key.split(".")[0]
    return "." in key and bool(read) and not any(key in one for one in read) and any(
        other.startswith(f"{group}.") for one in read for other in one)


def _takes_part(key: str, question: Mapping[str, Any], swept: set[str]) -> bool:
    instead, needed = _INSTEAD.get(key), _ONLY_WITH.get(key)
    if instead is not None and (instead in swept or question.get(instead) is not None):
        return False
    if key.startswith("huber_"):
        return "loss_type" in swept or question.get("loss_type") != "l2"
    return needed is None or needed in swept or question.get(needed) not in _OFF
