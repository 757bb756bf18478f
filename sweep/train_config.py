"""What a trial trains: the settings that its identity is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweep.data.settings import DatasetConfig
from sweep.model.base import BaseModelConfig
from sweep.network.settings import NETWORKS
from sweep.schema import bounds, build, family, one_of
from sweep.training.optimizer import OPTIMIZERS
from sweep.training.scheduler import SCHEDULERS


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """All that decides what a trial trains; its hash (with the photos' and the weights') is the trial's identity.

    Names are the ones that LoRA trainers know from sd-scripts. Units and ranges stand in conf/config.yaml too.
    """

    base_model: BaseModelConfig
    dataset: DatasetConfig
    trigger: str | None
    class_noun: str | None
    network: Any = family(NETWORKS)
    network_dim: int = bounds(1, 4096)
    network_alpha: float = bounds(above=0)
    optimizer: Any = family(OPTIMIZERS)
    unet_lr: float = bounds(0, 10)
    text_encoder_lr: float = bounds(0, 10)
    scheduler: Any = family(SCHEDULERS)
    lr_warmup_steps: int = bounds(0)
    train_batch_size: int = bounds(1, 1024)
    gradient_accumulation_steps: int = bounds(1, 10_000)
    repeats: int | None = bounds(1, 100_000)
    prior_loss_weight: float = bounds(0, 1000)
    max_train_epochs: int = bounds(1, 100_000)
    max_train_steps: int | None = bounds(1)
    max_grad_norm: float = bounds(0)
    mixed_precision: str = one_of("no", "bf16")
    save_every_n_epochs: int = bounds(1)
    save_every_n_steps: int | None = bounds(1)
    save_precision: str = one_of("fp32", "fp16", "bf16")
    seed: int = bounds(0, 2**63 - 1)


def train_from_tree(tree: Mapping[str, Any]) -> TrainConfig:
    """The typed training config of `to_tree(TrainConfig)`. Raises ConfigError."""
    return build(TrainConfig, tree)
