"""What a trial trains: the settings that its identity is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweep.data.settings import DatasetConfig
from sweep.methods import METHODS
from sweep.model.base import BASE_MODELS, BaseModelConfig
from sweep.network.settings import NETWORKS
from sweep.schema import bounds, build, family, one_of
from sweep.training.optimizer import OPTIMIZERS
from sweep.training.scheduler import SCHEDULERS, num_warmup_steps


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """All that decides what a trial trains; its hash (with the photos' and the weights') is the trial's identity.

    Names are the ones that LoRA trainers know from sd-scripts. Units and ranges stand in conf/config.yaml too.
    """

    base_model: BaseModelConfig = family(BASE_MODELS)
    dataset: DatasetConfig
    trigger: str | None
    class_noun: str | None
    clip_skip: int = bounds(1, 12)
    max_token_length: int = bounds(75, 225)
    method: Any = family(METHODS)
    network: Any = family(NETWORKS)
    network_dim: int = bounds(1, 4096)
    network_alpha: float = bounds(above=0)
    conv_dim: int | None = bounds(1, 4096)
    conv_alpha: float | None = bounds(above=0)
    network_dropout: float = bounds(0, 0.99)
    rank_dropout: float = bounds(0, 0.99)
    module_dropout: float = bounds(0, 0.99)
    scale_weight_norms: float | None = bounds(above=0)
    optimizer: Any = family(OPTIMIZERS)
    unet_lr: float = bounds(0, 10)
    text_encoder_lr: float = bounds(0, 10)
    scheduler: Any = family(SCHEDULERS)
    lr_warmup_steps: float = bounds(0)
    loraplus_lr_ratio: float | None = bounds(above=0)
    ema_decay: float | None = bounds(0, 0.99999)
    train_batch_size: int = bounds(1, 1024)
    repeats: int | None = bounds(1, 100_000)
    steps_per_epoch: int | None = bounds(1, 1_000_000)
    prior_loss_weight: float = bounds(0, 1000)
    max_train_epochs: int = bounds(1, 100_000)
    max_train_steps: int | None = bounds(1)
    gradient_accumulation_steps: int = bounds(1, 1024)
    max_grad_norm: float = bounds(0)
    mixed_precision: str = one_of("no", "bf16", "fp16")
    gradient_checkpointing: bool
    noise_offset: float = bounds(0, 1)
    multires_noise_iterations: int = bounds(0, 16)
    multires_noise_discount: float = bounds(0, 1)
    ip_noise_gamma: float = bounds(0, 1)
    min_snr_gamma: float | None = bounds(above=0)
    debiased_estimation_loss: bool
    loss_type: str = one_of("l2", "huber", "smooth_l1")
    huber_c: float = bounds(above=0)
    huber_schedule: str = one_of("constant", "exponential", "snr")
    save_every_n_epochs: int = bounds(1)
    save_every_n_steps: int | None = bounds(1)
    save_precision: str = one_of("fp32", "fp16", "bf16")
    seed: int = bounds(0, 2**63 - 1)

    @property
    def images_per_epoch(self) -> int | None:
        """What each folder shows in an epoch of `steps_per_epoch`; None = its repeats say it."""
        if self.steps_per_epoch is None:
            return None
        return self.steps_per_epoch * self.train_batch_size * self.gradient_accumulation_steps

    def num_warmup_steps(self, num_steps: int) -> int:
        """Of a training of so many steps."""
        return num_warmup_steps(self.lr_warmup_steps, num_steps)


def train_from_tree(tree: Mapping[str, Any]) -> TrainConfig:
    """The typed training config of `to_tree(TrainConfig)`, of an earlier version too. Raises ConfigError."""
    from sweep.identity import with_neutral  # it imports this module

    return build(TrainConfig, with_neutral(tree))
