"""Trials for the equivalence tests: members of a pack with few steps over four synthetic photos."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from sweep.data.batches import BatchPlan, TrainData
from sweep.methods import Dreambooth, LoraMethod, TextualInversion
from sweep.model.base import BaseModelConfig
from sweep.network.settings import Dora, Dylora, Ia3, Locon, Loha, Lokr, Lora
from sweep.train_config import TrainConfig
from sweep.training.adaptive import Adafactor, DAdaptAdam, Prodigy
from sweep.training.custom import Custom
from sweep.training.optimizer import AdamW, AdamW8bit, AdamWScheduleFree, Lion, Lion8bit
from sweep.training.pack import Member, Pack
from sweep.training.scheduler import Constant, CosineWithRestarts, Polynomial
from tests.conftest import dataset_config

CAPTIONS = ("photo of alexq man wearing a green hoodie", "photo of alexq man on a beach", "alexq man, close-up",
            "photo of alexq man with glasses")

ADAM: dict[str, Any] = {"betas": (0.9, 0.999), "eps": 1e-8}
OPTIMIZERS = {
    "adamw": AdamW(name="adamw", weight_decay=0.01, **ADAM),
    "adamw8bit": AdamW8bit(name="adamw8bit", weight_decay=0.01, **ADAM),
    "lion": Lion(name="lion", betas=(0.9, 0.99), weight_decay=0.05),
    "lion8bit": Lion8bit(name="lion8bit", betas=(0.9, 0.99), weight_decay=0.05),
    # d_coef is usually 1; a large one lets the rate move within a few steps
    "prodigy": Prodigy(name="prodigy", beta3=None, weight_decay=0.01, decouple=True, use_bias_correction=True,
                       safeguard_warmup=True, d0=1e-6, d_coef=50, growth_rate=None, per_part=False, **ADAM),
    # Unbounded, its rate reaches 0.1 within 20 steps; a trial alone, started 1e-7 beside itself, then differs by 3e-3
    "dadapt_adam": DAdaptAdam(name="dadapt_adam", weight_decay=0, decouple=True, use_bias_correction=False, d0=1e-6,
                              growth_rate=1.5, **ADAM),
    "adafactor": Adafactor(name="adafactor", relative_step=True, scale_parameter=True, warmup_init=False,
                           clip_threshold=1, decay_rate=-0.8, beta1=None, weight_decay=0),
    "adamw_schedulefree": AdamWScheduleFree(name="adamw_schedulefree", weight_decay=0.01, r=0, weight_lr_power=2,
                                            **ADAM),
    "custom": Custom(name="custom", class_path="torch.optim.Adagrad", args={"lr_decay": 0.01}),
}
OPTIMIZERS["prodigy per part"] = replace(OPTIMIZERS["prodigy"], per_part=True)
OPTIMIZERS["adafactor with a rate"] = replace(OPTIMIZERS["adafactor"], relative_step=False)
RATES = {"lion": (2e-5, 1e-5), "lion8bit": (2e-5, 1e-5), "prodigy": (1.0, 1.0), "prodigy per part": (1.0, 0.5),
         "dadapt_adam": (1.0, 0.5)}
NETWORKS = {
    **{cls.__name__.lower(): cls(name=cls.__name__.lower(), preset="full") for cls in (Lora, Locon, Loha, Ia3, Dora)},
    "lokr": Lokr(name="lokr", preset="full", factor=8),
    "dylora": Dylora(name="dylora", preset="full", unit=2),
}
METHODS = {
    "lora": LoraMethod(name="lora"), "dreambooth": Dreambooth(name="dreambooth"),
    "textual_inversion": TextualInversion(name="textual_inversion", num_vectors=2, init_word=None),
}
NO_EXTRAS = {"conv_dim": None, "conv_alpha": None, "network_dropout": 0.0, "rank_dropout": 0.0, "module_dropout": 0.0,
             "scale_weight_norms": None}
SCHEDULERS = {
    "constant": Constant(name="constant"),
    "cosine_with_restarts": CosineWithRestarts(name="cosine_with_restarts", num_cycles=2),
    "polynomial": Polynomial(name="polynomial", power=1, lr_end=1e-7),
}


def moments() -> torch.Tensor:
    """Mean and standard deviation of four photos' latents, [4, 8, 16, 16]."""
    g = torch.Generator().manual_seed(0)
    return torch.cat([5 * torch.randn(4, 4, 16, 16, generator=g), 0.1 * torch.rand(4, 4, 16, 16, generator=g)], dim=1)


def member(name: str, *, dim: int = 8, alpha: float | None = None, seed: int = 1, num_steps: int = 20,
           batch_size: int = 1, unet_lr: float | None = None, text_encoder_lr: float | None = None,
           optimizer: str = "adamw", scheduler: str = "constant", repeats: int = 10, network: str = "lora",
           method: str = "lora",
           **changes: Any) -> Member:
    """changes: of other keys of the config. Rates that are not given are the optimizer's."""
    usual = RATES.get(optimizer, (1e-4, 5e-5))
    unet_lr, text_encoder_lr = usual[0] if unet_lr is None else unet_lr, usual[1] if text_encoder_lr is None \
        else text_encoder_lr
    config = TrainConfig(
        base_model=BaseModelConfig(name="pocket", path=None, resolution=64), dataset=dataset_config(),
        trigger="alexq", class_noun="man", clip_skip=1, max_token_length=75,
        method=METHODS[method], network=NETWORKS[network], network_dim=dim, network_alpha=alpha or dim, **NO_EXTRAS,
        optimizer=OPTIMIZERS[optimizer], unet_lr=unet_lr, text_encoder_lr=text_encoder_lr,
        scheduler=SCHEDULERS[scheduler], lr_warmup_steps=0, train_batch_size=batch_size,
        repeats=repeats, steps_per_epoch=None, prior_loss_weight=1.0,
        max_train_epochs=1, max_train_steps=num_steps, max_grad_norm=1.0, mixed_precision="no", save_every_n_epochs=1,
        save_every_n_steps=None, save_precision="fp32", seed=seed, loraplus_lr_ratio=None, ema_decay=None,
        gradient_accumulation_steps=1, gradient_checkpointing=False, noise_offset=0, multires_noise_iterations=0,
        multires_noise_discount=0.3, ip_noise_gamma=0, min_snr_gamma=None, debiased_estimation_loss=False,
        loss_type="l2", huber_c=0.1, huber_schedule="snr")
    config = replace(config, **changes)
    data = TrainData(moments_NMHW=moments(), captions=CAPTIONS, plan=BatchPlan((repeats,) * 4, batch_size, seed,
                                                                               config.gradient_accumulation_steps))
    return Member(train_id=name, config=config, num_steps=num_steps, data=data)


def run(pack: Pack, *, max_passes: int | None = None) -> dict[str, list[float]]:
    """Train to the end (or so many passes); losses by trial."""
    from sweep.training.loop import train

    losses: dict[str, list[float]] = {}
    for index, rows in enumerate(train(pack)):
        for row in rows:
            losses.setdefault(row.member.train_id, []).append(row.loss)
        finished = [m for m in pack.members if m.is_finished]
        if finished:
            pack.drop(finished)
        if max_passes is not None and index + 1 == max_passes:
            break
    return losses
