"""Trials for the equivalence tests: members of a pack with few steps over four synthetic photos."""

from __future__ import annotations

import torch

from sweep.data.batches import BatchPlan, TrainData
from sweep.model.base import BaseModelConfig
from sweep.network.settings import Lora
from sweep.train_config import TrainConfig
from sweep.training.optimizer import AdamW, AdamW8bit
from sweep.training.pack import Member, Pack
from sweep.training.scheduler import Constant, CosineWithRestarts, Polynomial
from tests.conftest import dataset_config

CAPTIONS = ("photo of alexq man wearing a green hoodie", "photo of alexq man on a beach", "alexq man, close-up",
            "photo of alexq man with glasses")

OPTIMIZERS = {
    "adamw": AdamW(name="adamw", betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01),
    "adamw8bit": AdamW8bit(name="adamw8bit", betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01),
}
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
           batch_size: int = 1, unet_lr: float = 1e-4, text_encoder_lr: float = 5e-5, optimizer: str = "adamw",
           scheduler: str = "constant", repeats: int = 10, accumulation: int = 1) -> Member:
    config = TrainConfig(
        base_model=BaseModelConfig(name="pocket", path=None, resolution=64),
        dataset=dataset_config(),
        trigger="alexq", class_noun="man", network=Lora(name="lora"), network_dim=dim, network_alpha=alpha or dim,
        optimizer=OPTIMIZERS[optimizer], unet_lr=unet_lr, text_encoder_lr=text_encoder_lr,
        scheduler=SCHEDULERS[scheduler], lr_warmup_steps=0, train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation, repeats=repeats, prior_loss_weight=1.0,
        max_train_epochs=1, max_train_steps=num_steps, max_grad_norm=1.0, mixed_precision="no", save_every_n_epochs=1,
        save_every_n_steps=None, save_precision="fp32", seed=seed)
    data = TrainData(moments_NMHW=moments(), captions=CAPTIONS,
                     plan=BatchPlan((repeats,) * 4, batch_size, seed, accumulation))
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
