"""Load a base that `sources.find_base` has found: every component frozen, on its device, in its precision."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.errors import ModelError
from sweep.model import checkpoint
from sweep.model.base import Base, BaseModelConfig
from sweep.model.difference import merge_difference
from sweep.model.families import TITLE, Family, check_wanted, family_of_checkpoint
from sweep.model.header import Header, read_header
from sweep.model.sources import Source, find_base, prediction_of, variant, weights_files
from sweep.model.text import padding_token

if TYPE_CHECKING:
    import torch
    from torch import nn

_SCHEDULE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
             "clip_sample": False, "steps_offset": 1, "timestep_spacing": "leading"}


def load_base(config: BaseModelConfig, identity: str, device: str | torch.device = "cpu",
              dtype: torch.dtype | None = None) -> Base:
    """Load every component frozen, on `device`.

    identity: the hash of the weights, from `sweep.identity.base_identity`.
    dtype: bf16 or fp16 keeps the matrices of the UNet and the text encoders in it, to be used under `Base.autocast`;
    None = fp32. The VAE is always fp32.
    Raises ModelError for a base that can't be loaded.
    """
    from sweep.model.torchvision_ops import declare_missing_operators

    declare_missing_operators()
    import torch
    from diffusers import DDPMScheduler
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.set_verbosity_error()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    diffusers_logging.disable_progress_bar()
    source = find_base(config)
    dtype = dtype or torch.float32
    try:
        parts = _Parts.of_file(config, source, dtype) if source.is_file else _Parts.of_folder(source, dtype)
        if source.vae is not None:
            parts.vae = _other_vae(source.vae, parts.family)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(f"The base model in {source.path} can't be loaded: {error}") from error
    for tokenizer, encoder in zip(parts.tokenizers, parts.text_encoders, strict=True):
        _check_vocabulary(tokenizer, encoder, source)
    schedule = {**parts.schedule, "prediction_type": parts.prediction_type}
    for model in (parts.unet, parts.vae, *parts.text_encoders):
        model.to(device).eval().requires_grad_(False)
    vae = parts.vae.config
    return Base(unet=parts.unet, vae=parts.vae, text_encoders=parts.text_encoders, tokenizers=parts.tokenizers,
                alphas_cumprod=DDPMScheduler.from_config(schedule).alphas_cumprod.cpu(),
                scheduler_config=schedule, device=torch.device(device), name=config.name, family=parts.family,
                prediction_type=parts.prediction_type, identity=identity, resolution=config.resolution,
                scaling_factor=vae.scaling_factor, latent_channels=vae.latent_channels,
                vae_scale=2 ** (len(vae.block_out_channels) - 1), dtype=dtype)


class _Parts:
    """A base's components on the CPU, the matrices of UNet and text encoders in the precision asked for."""

    def __init__(self, family: Family, prediction_type: str, *, unet: Any, vae: Any, text_encoders: list[Any],
                 tokenizers: list[Any], schedule: dict[str, Any]):
        self.family, self.prediction_type = family, prediction_type
        self.unet, self.vae, self.text_encoders = unet, vae, text_encoders
        self.tokenizers, self.schedule = tokenizers, schedule

    @classmethod
    def of_folder(cls, source: Source, dtype: torch.dtype) -> _Parts:
        import torch
        from diffusers import DDPMScheduler, UNet2DConditionModel
        from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

        assert source.family is not None and source.prediction_type is not None
        folder, encoders, tokenizers = source.path, [CLIPTextModel], ["tokenizer"]
        if source.family == "sdxl":
            encoders.append(CLIPTextModelWithProjection)
            tokenizers.append("tokenizer_2")
        unet = _pretrained(UNet2DConditionModel, folder / "unet", dtype if source.difference is None else torch.float32)
        if source.difference is not None:
            merge_difference(unet, source.difference)
            _store(unet, dtype)
        return cls(source.family, source.prediction_type, unet=unet,
                   vae=None if source.vae else _pretrained_vae(folder / "vae"),
                   text_encoders=[_pretrained(each, folder / name, dtype) for each, name
                                  in zip(encoders, ("text_encoder", "text_encoder_2"), strict=False)],
                   tokenizers=[CLIPTokenizer.from_pretrained(folder / name) for name in tokenizers],
                   schedule=dict(DDPMScheduler.from_pretrained(folder / "scheduler").config))

    @classmethod
    def of_file(cls, config: BaseModelConfig, source: Source, dtype: torch.dtype) -> _Parts:
        """A checkpoint file, its configs read off its shapes."""
        from diffusers import UNet2DConditionModel

        tensors = checkpoint.read_tensors(source.path)
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        family, prediction_type = source.family, source.prediction_type
        if family is None:  # a .ckpt, seen for the first time
            family = family_of_checkpoint(shapes, str(source.path), config.unet_channels)
            check_wanted(config.name, family, str(source.path))
            checkpoint.check_whole(shapes, family, str(source.path))
        if prediction_type is None:
            prediction_type = prediction_of(config, Header(shapes, {}), family, source.path)
        unet = checkpoint.unet_config(shapes, family)
        texts = checkpoint.text_configs(shapes, family)
        encoders = [_text_encoder(each, own, dtype, projects=family == "sdxl" and i == 1)
                    for i, (each, own) in enumerate(zip(texts, checkpoint.text_tensors(tensors, family, texts),
                                                        strict=True))]
        schedule = {**_SCHEDULE, "rescale_betas_zero_snr": "ztsnr" in shapes}
        return cls(family, prediction_type, text_encoders=encoders, schedule=schedule,
                   unet=_filled(UNet2DConditionModel.from_config, unet, checkpoint.unet_tensors(tensors, unet),
                            dtype),
                   vae=None if source.vae else _vae_of(tensors, shapes, family),
                   tokenizers=[_tokenizer(source, padding_token(family, i)) for i in range(len(encoders))])


def _pretrained(cls: Any, folder: Path, dtype: torch.dtype) -> Any:
    """A component of a folder in diffusers layout."""
    import torch

    kind = {"variant": name} if (name := variant(weights_files(folder)[0])) else {}
    model = cls.from_pretrained(folder, use_safetensors=True, dtype=torch.float32, **kind)
    _store(model, dtype)
    return model


def _store(model: nn.Module, dtype: torch.dtype) -> None:
    for _, matrix in _matrices(model):
        matrix.to(dtype)


def _pretrained_vae(folder: Path) -> Any:
    import torch
    from diffusers import AutoencoderKL

    return _pretrained(AutoencoderKL, folder, torch.float32)


def _other_vae(path: Path, family: Family) -> Any:
    if path.is_dir():
        return _pretrained_vae(path)
    return _vae_of(checkpoint.read_tensors(path), read_header(path).shapes, family)


def _vae_of(tensors: checkpoint.Tensors, shapes: Any, family: Family) -> Any:
    import torch
    from diffusers import AutoencoderKL

    config = checkpoint.vae_config(shapes, family)
    return _filled(AutoencoderKL.from_config, config, checkpoint.vae_tensors(tensors, config), torch.float32)


def _text_encoder(config: dict[str, Any], tensors: dict[str, Any], dtype: torch.dtype, *, projects: bool) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    if projects:
        # this class alone keeps the level "text_model"
        tensors = {name if name.startswith("text_projection.") else f"text_model.{name}": tensor
                   for name, tensor in tensors.items()}
    kind = CLIPTextModelWithProjection if projects else CLIPTextModel
    return _filled(lambda tree: kind(CLIPTextConfig(**tree)), config, tensors, dtype)


def _filled(build: Any, config: dict[str, Any], tensors: dict[str, Any], dtype: torch.dtype) -> Any:
    """A model of this config that holds exactly these tensors.

    Raises ModelError if some are missing or left over.
    """
    import torch
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):  # weights that are replaced at once need no memory
        model = build(config)
    # copied, so that the file's mapping can go and the memory is aligned as torch's own
    stored = {f"{name}.{kind}": dtype for name, _ in _matrices(model) for kind in ("weight", "bias")}
    own = {name: tensor.to(stored.get(name, torch.float32), copy=True) for name, tensor in tensors.items()}
    missing, unknown = model.load_state_dict(own, strict=False, assign=True)
    if missing or unknown:
        raise ModelError(f"The checkpoint's {type(model).__name__} can't be loaded: {len(missing)} tensors are missing "
                         f"({', '.join(missing[:3])}), {len(unknown)} are unknown ({', '.join(unknown[:3])}).")
    return model


def _tokenizer(source: Source, padding: str) -> Any:
    from transformers import CLIPTokenizer

    assert source.vocabulary is not None
    return CLIPTokenizer.from_pretrained(source.vocabulary, pad_token=padding)


def _check_vocabulary(tokenizer: Any, encoder: Any, source: Source) -> None:
    known = encoder.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > known:
        raise ModelError(f"{source.path}: the tokenizer knows {len(tokenizer):,} words, the text encoder {known:,}. "
                         f"{TITLE['sd1']}, 2.x and XL share CLIP's 49,408; is another model's tokenizer in its place?")


def _matrices(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The layers that autocast computes in half precision; kept in it, they need not be cast at each step.

    Norms and embeddings stay fp32, as autocast leaves them: the result is the same to the last bit.
    """
    from torch import nn

    return [(name, each) for name, each in model.named_modules() if isinstance(each, nn.Linear | nn.Conv2d)]
