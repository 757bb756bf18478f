"""What a sweep's question says to a reader: the settings that take part, with what null stands for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sweep.record.entry import SweepEntry

_STANDS_FOR = {"network_alpha": "network_dim", "conv_alpha": "conv_dim", "repeats": "the number in the folder's name"}
"""What null, or 0, is. Of other settings it is "off", or a default that conf/ names beside the key."""
_ONLY_WITH = {"conv_alpha": "conv_dim", "multires_noise_discount": "multires_noise_iterations",
              **dict.fromkeys(("dataset.reg_prompt", "dataset.reg_num_steps", "dataset.reg_guidance_scale"),
                              "dataset.generate_reg"),
              "dataset.caption_extension": "dataset.captions", "dataset.keep_tokens_separator": "dataset.keep_tokens"}
_INSTEAD = {"optimizer.unet_lr": "unet_lr", "optimizer.text_encoder_lr": "text_encoder_lr",
            "max_train_epochs": "max_train_steps", "repeats": "steps_per_epoch"}
_OFF: tuple[Any, ...] = (None, "", 0, False, "none", [])


def asked(entry: SweepEntry) -> dict[str, Any]:
    """The fixed settings without those that are off, that another one replaces, or that nothing here uses."""
    question = {**entry.question, "trigger": entry.trigger, "class_noun": entry.class_noun}
    swept = set(entry.swept_keys)
    shown = {key: value if value not in _OFF else _STANDS_FOR.get(key)
             for key, value in question.items() if _takes_part(key, question, swept)}
    return {key: value for key, value in shown.items() if value is not None}


def _takes_part(key: str, question: Mapping[str, Any], swept: set[str]) -> bool:
    instead, needed = _INSTEAD.get(key), _ONLY_WITH.get(key)
    if instead is not None and (instead in swept or question.get(instead) is not None):
        return False
    if key.startswith("huber_"):
        return "loss_type" in swept or question.get("loss_type") != "l2"
    return needed is None or needed in swept or question.get(needed) not in _OFF
