"""Load and freeze a base model: UNet, text encoder, tokenizer, VAE and noise schedule, from a diffusers folder.

Shapes: B images, C H W latent or pixels, L tokens (77), D width of the text states.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.errors import ModelError
from sweep.schema import bounds, one_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

COMPONENTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModelConfig:
    """The base that all adapters of a pack are laid over."""

    name: str = one_of("pocket", "sd15")
    # "pocket" embedded in the package; "sd15": Stable Diffusion 1.x in the hub's folder layout
    path: str | None
    # folder in diffusers layout; null = the embedded one (pocket only)
    resolution: int = bounds(16, 4096)
    # training and scoring resolution in pixels, a multiple of 8


@dataclass(frozen=True, slots=True)
class TextStates:
    """What the UNet sees of B texts."""

    states_BLD: Tensor

    def __getitem__(self, picks: Tensor) -> TextStates:
        """The texts at these indices, any number of times each."""
        return TextStates(self.states_BLD[picks])


@dataclass(slots=True)
class Base:
    """A frozen base in evaluation mode. Nothing in it is ever trained or changed; adapters come as forward hooks."""

    unet: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    alphas_cumprod: Tensor  # [T], the products of (1 - beta) of Ho et al. 2020
    scheduler_config: dict[str, Any]
    device: torch.device
    name: str
    identity: str  # hash of the weights
    resolution: int  # pixels, of training and scoring
    scaling_factor: float = 0.18215
    latent_channels: int = 4
    vae_scale: int = 8  # pixels per latent
    family: str = "sd1"  # sd1, sd2 or sdxl
    _tokens: dict[str, Tensor] = field(default_factory=dict)

    @property
    def text_encoders(self) -> list[Any]:
        return [self.text_encoder]

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Token ids [B, L], truncated and padded as SD 1.x expects."""
        import torch

        for text in texts:
            if text not in self._tokens:
                encoded = self.tokenizer(text, padding="max_length", truncation=True,
                                         max_length=self.tokenizer.model_max_length, return_tensors="pt")
                self._tokens[text] = encoded.input_ids[0]
        return torch.stack([self._tokens[text] for text in texts]).to(self.device)

    def is_cut(self, text: str) -> bool:
        """Whether a text has more tokens than the text encoder reads."""
        return len(self.tokenizer(text).input_ids) > int(self.tokenizer.model_max_length)

    def text_states(self, texts: Sequence[str]) -> TextStates:
        """The texts' states after the final layer norm. Under `bank.rows` the adapters take part."""
        return TextStates(self.text_encoder(self.tokenize(texts))[0])

    def predict(self, noisy_BCHW: Tensor, timesteps_B: Tensor, text: TextStates) -> Tensor:
        """The UNet's answer [B, C, H, W]. Under `bank.rows` the adapters take part."""
        answer_BCHW: Tensor = self.unet(noisy_BCHW, timesteps_B, encoder_hidden_states=text.states_BLD).sample
        return answer_BCHW

    def encode_moments(self, pixels_BCHW: Tensor) -> Tensor:
        """Mean and standard deviation of the latents, [B, 2C, h, w], unscaled; pixels in [-1, 1]."""
        import torch

        with torch.no_grad():
            distribution = self.vae.encode(pixels_BCHW.to(self.device)).latent_dist
        return torch.cat([distribution.mean, distribution.std], dim=1).cpu()

    def decode(self, latents_BCHW: Tensor) -> Tensor:
        """Images in [0, 1] on the CPU, [B, 3, H, W], from latents as the UNet sees them."""
        import torch

        with torch.no_grad():
            pixels = self.vae.decode(latents_BCHW / self.scaling_factor).sample
        return (pixels.float().cpu() / 2 + 0.5).clamp(0, 1)


def base_folder(config: BaseModelConfig) -> Path:
    """The folder to load, checked without torch: present, whole, of the right family.

    Raises ModelError with what is missing.
    """
    if config.path is None and config.name == "pocket":
        from sweep.pocket import WEIGHTS_DIR

        folder = WEIGHTS_DIR / "sd"
    elif config.path is None:
        raise ModelError(f"base_model={config.name} needs base_model.path=FOLDER: the model in diffusers layout "
                         f"({', '.join(c + '/' for c in COMPONENTS)}). Nothing is downloaded without being asked for; "
                         "get it with: hf download stable-diffusion-v1-5/stable-diffusion-v1-5 --local-dir FOLDER")
    else:
        folder = Path(config.path).expanduser()
    if not folder.is_dir():
        raise ModelError(f"The base model's folder {folder} does not exist. Give base_model.path=FOLDER, a folder in "
                         "diffusers layout.")
    missing = [c for c in COMPONENTS if not (folder / c).is_dir()]
    if missing:
        raise ModelError(f"{folder} is not a base model in diffusers layout: it lacks {', '.join(missing)}.")
    for component in ("unet", "vae", "text_encoder"):
        weights_files(folder, component)
        if not (folder / component / "config.json").is_file():
            raise ModelError(f"{folder / component} has no config.json.")
    _check_family(folder, config.name)
    return folder


def _check_family(folder: Path, name: str) -> None:
    """Raise ModelError for a base that would load and mean something else."""
    unet = json.loads((folder / "unet" / "config.json").read_text(encoding="utf-8"))
    text_encoder = json.loads((folder / "text_encoder" / "config.json").read_text(encoding="utf-8"))
    width, hidden = unet.get("cross_attention_dim"), text_encoder.get("hidden_size")
    if (folder / "text_encoder_2").exists():
        raise ModelError(f"{folder} is an SDXL model; base_model={name} wants Stable Diffusion 1.x.")
    if unet.get("in_channels", 4) != 4:
        raise ModelError(f"{folder}: its UNet takes {unet['in_channels']} channels; an inpainting or edit model can't "
                         "be trained on here. Use the plain model that it was made from.")
    if name == "sd15" and width != 768:
        raise ModelError(f"{folder}: its text states are {width} wide, Stable Diffusion 1.x has 768. Is it SD 2?")
    if width != hidden:
        raise ModelError(f"{folder}: the UNet takes text states of width {width}, the text encoder gives {hidden}. "
                         "Is it a mix of two models?")


def weights_files(folder: Path, component: str) -> list[Path]:
    """The safetensors that hold a component's weights; ModelError if there are none (pickles are not read)."""
    candidates = sorted((folder / component).glob("*.safetensors"))
    # A hub folder may hold the same weights at several precisions; the plain name is the one diffusers takes.
    plain = [f for f in candidates if f.name.count(".") == 1]
    if not candidates:
        raise ModelError(f"{folder / component} has no .safetensors file. Pickled weights (.bin, .ckpt) are not read; "
                         "convert them with the model's own tools.")
    return plain or candidates


def load_base(config: BaseModelConfig, identity: str, device: str | torch.device = "cpu", dtype: Any = None) -> Base:
    """Load every component frozen, on `device`, in `dtype` (fp32 by default).

    identity: the hash of the weights, from `sweep.identity.base_identity`.
    Raises ModelError for a folder that can't be loaded.
    """
    from sweep.model.torchvision_ops import declare_missing_operators

    declare_missing_operators()
    import torch
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from diffusers.utils import logging as diffusers_logging
    from transformers import CLIPTextModel, CLIPTokenizer
    from transformers.utils import logging as transformers_logging

    diffusers_logging.set_verbosity_error()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    diffusers_logging.disable_progress_bar()
    folder = base_folder(config)
    dtype = dtype or torch.float32

    def load(cls: Any, component: str, **extra: Any) -> Any:
        suffix = weights_files(folder, component)[0].name.split(".")[1:-1]
        variant = {"variant": suffix[0].split("-")[0]} if suffix else {}
        model = cls.from_pretrained(folder / component, use_safetensors=True, **variant, **extra)
        return model.to(device, dtype).eval().requires_grad_(False)

    try:
        unet = load(UNet2DConditionModel, "unet", torch_dtype=dtype)
        vae = load(AutoencoderKL, "vae", torch_dtype=dtype)
        text_encoder = load(CLIPTextModel, "text_encoder", dtype=dtype)
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        scheduler = DDPMScheduler.from_pretrained(folder / "scheduler")
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(f"The base model in {folder} can't be loaded: {error}") from error
    if scheduler.config.prediction_type != "epsilon":
        raise ModelError(f"{folder} predicts {scheduler.config.prediction_type!r}; only epsilon is supported here yet.")
    return Base(unet=unet, vae=vae, text_encoder=text_encoder, tokenizer=tokenizer,
                alphas_cumprod=scheduler.alphas_cumprod.to(device), scheduler_config=dict(scheduler.config),
                device=torch.device(device), name=config.name, identity=identity,
                resolution=config.resolution,
                scaling_factor=vae.config.scaling_factor, latent_channels=vae.config.latent_channels,
                vae_scale=2 ** (len(vae.config.block_out_channels) - 1))
