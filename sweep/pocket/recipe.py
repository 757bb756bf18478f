"""How long and how fast each stage of the build trains: every number of the recipe in one place."""

from __future__ import annotations

from dataclasses import dataclass, replace

SEED = 20_261
RECIPE_VERSION = 2
"""Raise it when a change to the world or the recipe alters the weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One training run."""

    batch_size: int
    """Pictures per step and process."""
    num_steps: int
    lr: float
    """AdamW's peak learning rate: warmed up, held, then brought to zero over the last `decay_frac`."""
    weight_decay: float = 0.01
    warmup_steps: int = 100
    decay_frac: float = 0.3
    ema_decay: float = 0.995
    """Of the exported average of the weights, per step."""
    bf16: bool = False
    """Autocast to bfloat16; at large batches about three times as fast on a CPU that has it."""
    checkpoint_steps: int = 500


PICTURES_PER_PERSON = 10
MORE_OF_NAMED = 40
"""Further pictures of each named person, so that a name can own an identity."""

DECODED_FRAC = 0.5
"""Of the recogniser's pictures, those that it sees as the autoencoder gives them back."""

RV_PICTURES_PER_PERSON = 1
RV_MORE_OF_NAMED = 10
"""Of the other look, for `rv`: named people stay who they are."""
RV_RANK = 12
"""Of the difference; at 12 its file has 1.5 MB."""

STAGES: dict[str, Stage] = {
    "judge": Stage(batch_size=64, num_steps=1800, lr=2e-3, bf16=True),
    "perceptual": Stage(batch_size=64, num_steps=350, lr=2e-3, bf16=True),
    "clip": Stage(batch_size=128, num_steps=5000, lr=1.2e-3, bf16=True, warmup_steps=150),
    "vae": Stage(
        batch_size=8, num_steps=3800, lr=1.2e-3, weight_decay=0.0, bf16=True, ema_decay=0.998, checkpoint_steps=250
    ),
    "decoder": Stage(
        batch_size=16, num_steps=4500, lr=8e-4, weight_decay=0.0, bf16=True, ema_decay=0.998, checkpoint_steps=250,
        decay_frac=0.5,
    ),
    "face": Stage(batch_size=128, num_steps=3000, lr=2e-3, bf16=True),
    "unet": Stage(
        batch_size=32,
        num_steps=6800,
        lr=8e-4,
        bf16=True,
        ema_decay=0.998,
        warmup_steps=200,
        checkpoint_steps=200,
        decay_frac=0.15,
    ),
    "rv": Stage(batch_size=32, num_steps=900, lr=1e-3, weight_decay=0.0, bf16=True, checkpoint_steps=100),
}
"""The full budget, in the order of STAGE_ORDER's training stages."""

STAGE_ORDER = (
    "tokenizer", "pictures", "judge", "vae", "perceptual", "clip", "latents", "decoder", "decoded", "face", "unet",
    "export", "rv",
)  # fmt: skip

FIRST_BUDGET_FRAC = 0.15
"""`--budget first` trains every stage for this share of its steps: a quick set for trying things out."""


def settings(stage: str, budget: str, num_steps: int | None = None) -> Stage:
    """The settings of a training stage under `full` or `first`; `num_steps` overrides its length."""
    full = STAGES[stage]
    if num_steps is None:
        num_steps = full.num_steps if budget == "full" else max(2, int(full.num_steps * FIRST_BUDGET_FRAC))
    warmup = min(full.warmup_steps, max(1, num_steps // 5))
    return replace(full, num_steps=num_steps, warmup_steps=warmup)
