"""The arithmetic of a training: steps, repeats, epochs, and what alpha / dim leaves of the rate. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from sweep.data.check.findings import EVERYTHING, SCALE, STEPS, TUTORIAL, Finding
from sweep.data.dataset import Photo
from sweep.methods import LORA
from sweep.train_config import TrainConfig

FEWEST_STEPS, USUAL_STEPS, MOST_STEPS = 1500, 2000, 3500
FEWEST_EPOCHS, MOST_EPOCHS = 5, 20
LARGE_BATCH = 2
WEAK, STRONG = 0.2, 5.0  # of the usual rate, after alpha / dim
# The UNet's usual rate of optimizers whose rate is a step size; those that find their own have none.
_USUAL_RATE = {"adamw": 1e-4, "adamw8bit": 1e-4, "adamw_schedulefree": 1e-4, "lion": 2e-5, "lion8bit": 2e-5}


def training_findings(photos: Sequence[Photo], config: TrainConfig, num_steps: int) -> list[Finding]:
    """num_steps: of the whole training, as batches, buckets and accumulation make them."""
    return [*_steps(photos, config, num_steps), *_epochs(photos, config), *_scale(config)]


def _steps(photos: Sequence[Photo], config: TrainConfig, num_steps: int) -> list[Finding]:
    shown = sum(photo.repeats for photo in photos)
    repeats = {photo.repeats for photo in photos}
    images = f"{len(photos)} photos x {repeats.pop()} repeats" if len(repeats) == 1 else f"{shown} images an epoch"
    sums = f"{images} x {config.max_train_epochs} epochs"
    if config.train_batch_size > 1:
        sums += f" / batch of {config.train_batch_size}"
    if config.gradient_accumulation_steps > 1:
        sums += f" / {config.gradient_accumulation_steps} accumulated"
    if config.max_train_steps is not None:
        sums = f"max_train_steps={config.max_train_steps}"
    if FEWEST_STEPS <= num_steps <= USUAL_STEPS:
        return []
    if num_steps <= MOST_STEPS and num_steps > USUAL_STEPS:
        return [Finding(kind="steps", topic="training", level="note", advice=STEPS,
                        text=f"{num_steps:,} steps ({sums}): between what the one ({USUAL_STEPS:,}) and the other "
                             f"({MOST_STEPS:,}) calls the most. The checkpoints of each epoch tell.")]
    what = ("few: likeness may stay weak" if num_steps < FEWEST_STEPS
            else "many: expect clothes and backgrounds of the photos to come back")
    return [Finding(kind="steps", topic="training", level="advice", advice=STEPS,
                    text=f"{num_steps:,} steps ({sums}); advised are {FEWEST_STEPS:,} to {USUAL_STEPS:,}, up to "
                         f"{MOST_STEPS:,}. That is {what}.{_other_repeats(photos, config, num_steps)}")]


def _other_repeats(photos: Sequence[Photo], config: TrainConfig, num_steps: int) -> str:
    """Which repeats would bring the steps between the advised ends."""
    repeats = {photo.repeats for photo in photos}
    if config.max_train_steps is not None or len(repeats) != 1:
        return ""
    middle = (FEWEST_STEPS + USUAL_STEPS) / 2
    wanted = max(1, round(repeats.pop() * middle / max(num_steps, 1)))
    return (f" repeats={wanted} makes about {middle:,.0f}, in which each photo is seen "
            f"{wanted * config.max_train_epochs} times.")


def _epochs(photos: Sequence[Photo], config: TrainConfig) -> list[Finding]:
    found = []
    epochs, most_repeats = config.max_train_epochs, max((photo.repeats for photo in photos), default=1)
    if config.max_train_steps is None and not FEWEST_EPOCHS <= epochs <= MOST_EPOCHS:
        found.append(Finding(
            kind="epochs", topic="training", level="advice", advice=TUTORIAL if epochs > MOST_EPOCHS else EVERYTHING,
            text=f"{epochs} epochs; {FEWEST_EPOCHS} to {MOST_EPOCHS} are usual. Each is one checkpoint to choose from: "
                 "fewer leave no choice, more cost time in scoring."))
    if config.max_train_steps is None and most_repeats < epochs:
        found.append(Finding(
            kind="repeats", topic="training", level="advice", advice=TUTORIAL,
            text=f"fewer repeats ({most_repeats}) than epochs ({epochs}): advised are more repeats than epochs, since "
                 "every epoch is a checkpoint."))
    if config.train_batch_size > LARGE_BATCH:
        found.append(Finding(
            kind="batch_size", topic="training", level="advice", advice=TUTORIAL,
            text=f"train_batch_size={config.train_batch_size}: 1 is usual, not more than {LARGE_BATCH}; larger batches "
                 "make fewer steps of the same photos."))
    return found


def _scale(config: TrainConfig) -> list[Finding]:
    usual = _USUAL_RATE.get(config.optimizer.name)
    if usual is None or config.network.name == "ia3" or config.method.name != LORA:
        return []
    scale = config.network_alpha / config.network_dim
    strength = config.unet_lr * scale / usual
    how = (f"alpha / dim = {config.network_alpha:g} / {config.network_dim} with unet_lr={config.unet_lr:g} is about "
           f"{strength:.2g} of the usual strength ({usual:g} at alpha = dim)")
    if config.unet_lr > 0 and strength < WEAK:
        return [Finding(kind="weak_rate", topic="training", level="advice", advice=SCALE,
                        text=f"{how}: images will hardly resemble the photos. Set network_alpha={config.network_dim}, "
                             "or raise the rate.")]
    if strength > STRONG:
        return [Finding(kind="strong_rate", topic="training", level="advice", advice=SCALE,
                        text=f"{how}: it may burn. Lower unet_lr or network_alpha.")]
    return []
