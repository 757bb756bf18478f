"""The models of the pocket base: their configs, in exactly the layout of Stable Diffusion 1.x, and their loaders.

Images are float in [0, 1], NCHW. Every loader freezes its model and puts it in eval mode.
Legend: B images or texts, C channels, H W pixels, D width of an embedding.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from sweep.errors import ModelError
from sweep.pocket import WEIGHTS_DIR
from sweep.pocket.networks import IMAGE_SIZE, FaceRecogniser, Judge, PerceptualBackbone, to_image_size
from sweep.pocket.tokenizer import END, MAX_LENGTH, START

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

TEXT_WIDTH = 128
LATENT_SIZE = 16
SCALING_FACTOR = 0.18215

VAE_CONFIG: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "block_out_channels": (16, 32, 64),
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 8,
    "act_fn": "silu",
    "sample_size": IMAGE_SIZE,
    "scaling_factor": SCALING_FACTOR,
}

UNET_CONFIG: dict[str, Any] = {
    "sample_size": LATENT_SIZE,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "block_out_channels": (48, 96, 160),
    "layers_per_block": 1,
    "cross_attention_dim": TEXT_WIDTH,
    "attention_head_dim": 2,
    "norm_num_groups": 16,
    "act_fn": "silu",
    "use_linear_projection": False,
}

TEXT_CONFIG: dict[str, Any] = {
    "hidden_size": TEXT_WIDTH,
    "intermediate_size": TEXT_WIDTH * 4,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": MAX_LENGTH,
    "hidden_act": "quick_gelu",
    "projection_dim": TEXT_WIDTH,
}

CLIP_VISION_CONFIG: dict[str, Any] = {
    "hidden_size": TEXT_WIDTH,
    "intermediate_size": TEXT_WIDTH * 4,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": IMAGE_SIZE,
    "patch_size": 8,
    "hidden_act": "quick_gelu",
    "projection_dim": TEXT_WIDTH,
}
CLIP_MEAN_STD = 0.5

SCHEDULER_CONFIG: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}

_Module = TypeVar("_Module", bound=nn.Module)


def import_hubs() -> None:
    """transformers and diffusers may need torchvision's operators declared first (see there)."""
    from sweep.model.torchvision_ops import declare_missing_operators

    declare_missing_operators()


def freeze(model: _Module) -> _Module:
    """Eval mode, no gradients."""
    return model.eval().requires_grad_(False)


def _text_config(tokenizer: CLIPTokenizer) -> dict[str, Any]:
    start, end = tokenizer.convert_tokens_to_ids([START, END])
    return TEXT_CONFIG | {
        "vocab_size": len(tokenizer),
        "bos_token_id": start,
        "eos_token_id": end,
        "pad_token_id": end,
    }


def new_vae() -> AutoencoderKL:
    """An untrained VAE, 64x64x3 to 16x16x4."""
    import_hubs()
    from diffusers import AutoencoderKL

    return AutoencoderKL(**VAE_CONFIG)


def new_unet() -> UNet2DConditionModel:
    """An untrained UNet over 16x16 latents."""
    import_hubs()
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(**UNET_CONFIG)


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """An untrained text encoder for the base model."""
    import_hubs()
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(CLIPTextConfig(**_text_config(tokenizer)))


def new_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """An untrained CLIP (Radford et al. 2021) for scoring; it shares nothing but the tokenizer with the base."""
    import_hubs()
    from transformers import CLIPConfig, CLIPModel

    return CLIPModel(
        CLIPConfig(text_config=_text_config(tokenizer), vision_config=CLIP_VISION_CONFIG, projection_dim=TEXT_WIDTH)
    )


def new_scheduler() -> DDIMScheduler:
    """SD's noise schedule: scaled-linear betas 0.00085 to 0.012 over 1000 steps."""
    import_hubs()
    from diffusers import DDIMScheduler

    return DDIMScheduler(**SCHEDULER_CONFIG)


def assemble_pipeline(
    vae: AutoencoderKL, unet: UNet2DConditionModel, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer
) -> StableDiffusionPipeline:
    """The parts as one diffusers pipeline; no safety checker, no feature extractor."""
    import_hubs()
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _load_network(model: _Module, path: Path) -> _Module:
    from safetensors.torch import load_file

    if not path.is_file():
        raise ModelError(
            f"no weights at {path}; the shipped set is {WEIGHTS_DIR}, `python -m sweep.pocket.build` makes one"
        )
    tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
    expected = model.state_dict()
    # `export_network` leaves out the counters of the batch norms: only training reads them.
    missing = sorted(name for name in expected.keys() - tensors.keys() if not name.endswith("num_batches_tracked"))
    unknown = sorted(tensors.keys() - expected.keys())
    misshapen = sorted(name for name in expected.keys() & tensors.keys() if expected[name].shape != tensors[name].shape)
    wrong = {"lacks": missing, "has unknown": unknown, "has in another shape": misshapen}
    if any(wrong.values()):
        found = "; ".join(f"{how} {', '.join(some[:3])} ({len(some)} in all)" for how, some in wrong.items() if some)
        raise ModelError(
            f"{path} holds no {type(model).__name__} of this version: it {found}. Give the file of that name from a "
            "set that `python -m sweep.pocket.build` made with this version"
        )
    model.load_state_dict(tensors, strict=False)
    return freeze(model)


def load_face(path: Path | str | None = None) -> FaceRecogniser:
    """The face recogniser; a file, or None for the shipped one."""
    return _load_network(FaceRecogniser(), Path(path or WEIGHTS_DIR / "face.safetensors"))


def load_perceptual(path: Path | str | None = None) -> PerceptualBackbone:
    """The backbone of the perceptual distance; a file, or None for the shipped one."""
    return _load_network(PerceptualBackbone(), Path(path or WEIGHTS_DIR / "perceptual.safetensors"))


def load_judge(path: Path | str | None = None) -> Judge:
    """The attribute judge; a file, or None for the shipped one."""
    return _load_network(Judge(), Path(path or WEIGHTS_DIR / "judge.safetensors"))


def load_clip(folder: Path | str | None = None) -> tuple[CLIPModel, CLIPTokenizer]:
    """CLIP and its tokenizer in float32; a folder, or None for the shipped one."""
    import_hubs()
    from transformers import CLIPModel, CLIPTokenizer

    folder = Path(folder or WEIGHTS_DIR / "clip")
    if not (folder / "config.json").is_file():
        raise ModelError(f"no CLIP in {folder}: it needs config.json, model.safetensors and the tokenizer's files")
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32)
    return freeze(model), CLIPTokenizer.from_pretrained(folder)


def load_pipeline(folder: Path | str | None = None) -> StableDiffusionPipeline:
    """The base model in float32, its progress bar off; a folder, or None for the shipped one."""
    import_hubs()
    from diffusers import StableDiffusionPipeline

    folder = Path(folder or WEIGHTS_DIR / "sd")
    if not (folder / "model_index.json").is_file():
        raise ModelError(f"no diffusers pipeline in {folder}: it needs model_index.json and the folders it names")
    pipeline = StableDiffusionPipeline.from_pretrained(
        folder, torch_dtype=torch.float32, safety_checker=None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        freeze(part)
    return pipeline


def clip_image_features(model: CLIPModel, images_BCHW: torch.Tensor) -> torch.Tensor:
    """Unit-norm image features B x D of images in [0, 1]."""
    pixels = (to_image_size(images_BCHW) - CLIP_MEAN_STD) / CLIP_MEAN_STD
    pooled = model.vision_model(pixel_values=pixels).pooler_output
    return F.normalize(model.visual_projection(pooled).float(), dim=1)


def clip_text_features(model: CLIPModel, tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """Unit-norm text features B x D."""
    # Causal attention: what follows a text's end can't change it, so padding to the longest is enough.
    batch = tokenizer(texts, padding="longest", truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
    pooled = model.text_model(input_ids=batch.input_ids.to(model.device)).pooler_output
    return F.normalize(model.text_projection(pooled).float(), dim=1)
