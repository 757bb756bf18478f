"""Settings of one trial that are each allowed and can't work together: that trial is refused, the rest of a grid runs.

Imports no torch; only optimizer=custom needs it, to look at the class.
"""

from __future__ import annotations

from sweep.errors import ConfigError
from sweep.methods import ignored as method_ignored
from sweep.methods import refusal as method_refusal
from sweep.model.text import check_token_length
from sweep.network.settings import refusal as network_refusal
from sweep.train_config import TrainConfig
from sweep.training.scheduler import Polynomial


def refusal(config: TrainConfig) -> str:
    """Why the trial can't work, and what to do; empty if it can."""
    scheduler, optimizer = config.scheduler, config.optimizer
    if config.unet_lr == 0 and config.text_encoder_lr == 0:
        return "unet_lr=0 and text_encoder_lr=0 train nothing; set at least one of them above 0."
    if config.repeats is not None and config.steps_per_epoch is not None:
        return (f"repeats={config.repeats} and steps_per_epoch={config.steps_per_epoch} both say how often an epoch "
                "shows a photo; leave one of them out.")
    if config.base_model.resolution % 8:
        return f"base_model.resolution={config.base_model.resolution} must be a multiple of 8."
    try:
        check_token_length(config.max_token_length)
    except ConfigError as error:
        return str(error)
    if scheduler.name == "constant" and config.lr_warmup_steps > 0:
        return (f"lr_warmup_steps={config.lr_warmup_steps:g} with scheduler=constant: it has no warm-up. Set "
                "scheduler=constant_with_warmup or lr_warmup_steps=0.")
    if scheduler.name == "adafactor" and not getattr(optimizer, "relative_step", False):
        return (f"scheduler=adafactor with optimizer={optimizer.name}: it stands for Adafactor's own steps. Set "
                "optimizer=adafactor optimizer.relative_step=true, or another scheduler.")
    if isinstance(scheduler, Polynomial):
        low = {key: rate for key, rate in (("unet_lr", config.unet_lr), ("text_encoder_lr", config.text_encoder_lr))
               if 0 < rate < scheduler.lr_end}
        if low:
            key, rate = next(iter(low.items()))
            return (f"{key}={rate:g} with scheduler.lr_end={scheduler.lr_end:g}: the rate would rise. Set "
                    "scheduler.lr_end lower.")
    return method_refusal(config) or network_refusal(config) or str(optimizer.refusal(config))


def ignored(config: TrainConfig) -> tuple[str, ...]:
    """What is set and has no effect in this trial, in words."""
    return tuple(words for words in (method_ignored(config), config.optimizer.ignored(config)) if words)
