"""Packs to measure: k trials over the pocket base, or over the exact shape of SD 1.5 or SDXL with random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any

from sweep.bench.layouts import Layout
from sweep.data.batches import BatchPlan, TrainData
from sweep.model.base import Base, BaseModelConfig, TextStates
from sweep.network.targets import find_targets
from sweep.train_config import TrainConfig
from sweep.training.pack import Member, Pack

if TYPE_CHECKING:
    import torch

# The UNets' config keys as in the hub's unet/config.json (stable-diffusion-v1-5, stable-diffusion-xl-base-1.0).
UNETS: dict[str, dict[str, Any]] = {
    "sd15": {"sample_size": 64, "block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 768,
             "attention_head_dim": 8, "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
             "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3},
    "sdxl": {"sample_size": 128, "block_out_channels": (320, 640, 1280), "cross_attention_dim": 2048,
             "attention_head_dim": (5, 10, 20), "transformer_layers_per_block": (1, 2, 10),
             "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
             "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
             "use_linear_projection": True, "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
             "projection_class_embeddings_input_dim": 2816},
}
WIDTHS = {"sd15": (768, None), "sdxl": (2048, 1280)}  # of the text states, and of the pooled one
DTYPES = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}


def make_pack(layout: Layout, base: Base | None = None) -> Pack:
    """Trials that differ in their seed alone. Large bases train their UNet alone: their text states are random too."""
    import torch

    base = base or (pocket_base(layout) if layout.base_model == "pocket" else random_base(layout))
    if layout.compiled:
        base.unet.compile_repeated_blocks(dynamic=False)
    trained = layout.trains_text_encoder and bool(base.text_encoders)
    config = _config(layout, text_encoder_lr=5e-5 if trained else 0.0)
    side = layout.resolution // base.vae_scale
    moments = torch.randn(4, 2 * base.latent_channels, side, side, generator=torch.Generator().manual_seed(0)).abs()
    return Pack(base, find_targets(base), [
        _member(f"trial {i}", replace(config, seed=i), moments, known_text=not trained, base=base)
        for i in range(1, layout.k + 1)])


def pocket_base(layout: Layout) -> Base:
    import torch

    from sweep.identity import base_identity
    from sweep.model.loading import load_base

    config = BaseModelConfig(name="pocket", path=None, resolution=layout.resolution)
    return load_base(config, base_identity(config, Path(gettempdir())), torch.device(layout.device), _dtype(layout))


def random_base(layout: Layout) -> Base:
    """UNet and noise schedule alone; neither VAE nor text encoders take part in these measurements."""
    from sweep.model.torchvision_ops import declare_missing_operators

    declare_missing_operators()
    import torch
    from diffusers import DDPMScheduler, UNet2DConditionModel

    torch.manual_seed(0)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(_dtype(layout) or torch.float32)
    try:
        with torch.device(layout.device):
            unet = UNet2DConditionModel(**UNETS[layout.base_model])
    finally:
        torch.set_default_dtype(usual)
    schedule = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012,
                "beta_schedule": "scaled_linear", "prediction_type": "epsilon"}
    return Base(unet=unet.eval().requires_grad_(False), vae=None, text_encoders=[], tokenizers=[],
                alphas_cumprod=DDPMScheduler.from_config(schedule).alphas_cumprod.cpu(), scheduler_config=schedule,
                device=torch.device(layout.device), name=layout.base_model,
                family="sdxl" if layout.base_model == "sdxl" else "sd1", prediction_type="epsilon", identity="random",
                resolution=layout.resolution, scaling_factor=0.18215, latent_channels=4, vae_scale=8,
                dtype=_dtype(layout) or torch.float32)


def _dtype(layout: Layout) -> torch.dtype | None:
    import torch

    return None if layout.precision == "no" else getattr(torch, DTYPES[layout.precision])


_CAPTIONS = ("photo of alexq man wearing a green hoodie", "photo of alexq man on a beach", "alexq man, close-up",
             "photo of alexq man with glasses")
PLAN = BatchPlan((250,) * len(_CAPTIONS), 1, 1)  # of the first trial


def _member(name: str, config: TrainConfig, moments: torch.Tensor, *, known_text: bool, base: Base) -> Member:
    plan = replace(PLAN, seed=config.seed)
    member = Member(train_id=name, config=config, num_steps=10**6,
                    data=TrainData(moments_NMHW=moments.unbind(), captions=_CAPTIONS, plan=plan))
    if known_text:
        member.known_text = {caption: _states(base, caption) for caption in _CAPTIONS}
    return member


def _states(base: Base, caption: str) -> TextStates:
    import torch

    if base.text_encoders:
        with torch.no_grad():
            return base.text_states([caption])
    width, pooled = WIDTHS[base.name]
    states = torch.randn(1, 77, width, device=base.device)
    return TextStates(states, None if pooled is None else torch.randn(1, pooled, device=base.device))


def _config(layout: Layout, *, text_encoder_lr: float) -> TrainConfig:
    """conf/'s defaults with the layout's values."""
    from hydra import compose, initialize_config_dir

    from sweep.command_line import CONF_DIR
    from sweep.config import load

    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = load(compose("config", overrides=["dataset.dir=none", f"network_dim={layout.rank}"])).train
    return replace(config, mixed_precision=layout.precision, text_encoder_lr=text_encoder_lr,
                   gradient_checkpointing=layout.gradient_checkpointing)
