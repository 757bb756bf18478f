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
    read, apart = _read(entry, results), set(brought(entry, results))
    told = {key: value for key, value in entry.question.items() if not _is_stale(key, read)}
    told = {key: value for key, value in {**told, **_shared(read, entry.question)}.items() if key not in apart}
    question = {**told, "trigger": entry.trigger, "class_noun": entry.class_noun}
    swept = {*entry.swept_keys, *apart}
    shown = {key: value if value not in _OFF else _STANDS_FOR.get(key)
             for key, value in question.items() if _takes_part(key, question, swept)}
    return {key: value for key, value in shown.items() if value is not None}


def brought(entry: SweepEntry, results: Sequence[TrialResult]) -> tuple[str, ...]:
    """The settings in which trials differ though none of them is swept, in the order of the config."""
    read = _read(entry, results)
    keys = dict.fromkeys(key for one in read for key in one)
    return tuple(key for key in keys if len({repr(one.get(key)) for one in read}) > 1
                 and any(one.get(key) not in _OFF for one in read))


def settings_of(entry: SweepEntry, results: Sequence[TrialResult]) -> list[dict[str, Any]]:
    """What each trial is told by: the swept settings and those brought along."""
    along, told = brought(entry, results), [_told(entry, result) for result in results]
    return [{key: result.trial.settings.get(key) for key in entry.swept_keys} | {key: one.get(key) for key in along}
            for result, one in zip(results, told, strict=True)]


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


def _shared(read: Sequence[Mapping[str, Any]], question: Mapping[str, Any]) -> dict[str, Any]:
    """What the trials agree on and the question, composed without what is swept, says otherwise."""
    return {key: value for key, value in (read[0] if read else {}).items()
            if all(key in one and one[key] == value for one in read) and value != _STANDS_FOR.get(key)
            and (key not in question or question[key] != value)}


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
