"""The `ss_*` and `modelspec.*` metadata that A1111 and other tools show. Holds no time, host or path."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from sweep import __version__
from sweep.data.batches import BatchPlan
from sweep.data.dataset import Dataset
from sweep.data.settings import bucket_bounds
from sweep.data.train_data import bucket_table
from sweep.methods import DREAMBOOTH, LORA, TEXTUAL_INVERSION
from sweep.train_config import TrainConfig

if TYPE_CHECKING:
    from sweep.model.base import Base

# What sd-scripts and the ModelSpec call the families.
_VERSION = {"sd1": "sd_v1", "sd2": "sd_v2", "sdxl": "sdxl_base_v1-0"}
_ARCHITECTURE = {("sd1", "epsilon"): "stable-diffusion-v1/lora", ("sd1", "v_prediction"): "stable-diffusion-v1/lora",
                 ("sd2", "epsilon"): "stable-diffusion-v2-512/lora",
                 ("sd2", "v_prediction"): "stable-diffusion-v2-768-v/lora",
                 ("sdxl", "epsilon"): "stable-diffusion-xl-v1-base/lora",
                 ("sdxl", "v_prediction"): "stable-diffusion-xl-v1-base/lora"}

_MODULES = {"lora": "networks.lora", "locon": "networks.lora", "dylora": "networks.dylora", "dora": "lycoris.kohya",
            "loha": "lycoris.kohya", "lokr": "lycoris.kohya", "ia3": "lycoris.kohya"}

_AT_REST: Mapping[str, object] = {
    "ss_adaptive_noise_scale": None, "ss_bucket_no_upscale": False, "ss_caption_dropout_every_n_epochs": 0,
    "ss_caption_dropout_rate": 0.0, "ss_caption_tag_dropout_rate": 0.0, "ss_clip_skip": None, "ss_color_aug": False,
    "ss_debiased_estimation": False, "ss_face_crop_aug_range": None, "ss_flip_aug": False, "ss_fp8_base": False,
    "ss_fp8_base_unet": False, "ss_full_fp16": False, "ss_gradient_checkpointing": False, "ss_huber_c": 0.1,
    "ss_huber_scale": 1.0, "ss_huber_schedule": "snr", "ss_ip_noise_gamma": None,
    "ss_ip_noise_gamma_random_strength": False, "ss_keep_tokens": 0, "ss_loss_type": "l2", "ss_lowram": False,
    "ss_max_bucket_reso": None, "ss_max_token_length": None, "ss_max_validation_steps": None,
    "ss_min_bucket_reso": None, "ss_min_snr_gamma": None, "ss_multires_noise_discount": 0.3,
    "ss_multires_noise_iterations": None, "ss_noise_offset": None, "ss_noise_offset_random_strength": False,
    "ss_num_validation_images": 0, "ss_prior_loss_weight": 1.0, "ss_random_crop": False,
    "ss_resize_interpolation": None, "ss_shuffle_caption": False, "ss_validate_every_n_epochs": None,
    "ss_validate_every_n_steps": None, "ss_validation_seed": None, "ss_validation_split": 0.0,
    "ss_zero_terminal_snr": False,
}
"""sd-scripts' keys of what is not used here, with the values that it writes then; settings override them. It also
writes times, a session's number, its own commit and hashes of the base's file, which a reproducible file can't hold."""


_SAME_NAME = (
    "network_dim", "network_alpha", "scale_weight_norms", "unet_lr", "text_encoder_lr", "gradient_accumulation_steps",
    "gradient_checkpointing", "max_grad_norm", "mixed_precision", "multires_noise_discount", "min_snr_gamma",
    "loss_type", "huber_schedule", "huber_c", "seed", "prior_loss_weight", "clip_skip", "max_token_length")
_SAME_NAME_IF_USED = ("network_dropout", "noise_offset", "multires_noise_iterations", "ip_noise_gamma")
"""Settings that sd-scripts calls as we do; the latter are None there where they are 0 here."""
_SAME_NAME_OF_DATA = (
    "validation_split", "random_crop", "flip_aug", "shuffle_caption", "keep_tokens", "caption_dropout_rate",
    "caption_dropout_every_n_epochs", "caption_tag_dropout_rate")


def training_metadata(config: TrainConfig, dataset: Dataset, *, output_name: str, plan: BatchPlan,
                      num_steps: int, step: int, epoch: int, base: Base) -> dict[str, str]:
    """sd-scripts' keys, as text, for the file saved after `step` steps and `epoch` whole epochs."""
    values = {
        **_AT_REST,
        **{f"ss_{name}": getattr(config, name) for name in _SAME_NAME},
        **{f"ss_{name}": getattr(config, name) or None for name in _SAME_NAME_IF_USED},
        **{f"ss_{name}": getattr(config.dataset, name) for name in _SAME_NAME_OF_DATA},
        "ss_learning_rate": config.unet_lr,
        "ss_optimizer": config.optimizer.name,
        "ss_lr_scheduler": config.scheduler.name,
        "ss_lr_warmup_steps": config.num_warmup_steps(num_steps),
        "ss_num_batches_per_epoch": plan.batches_per_epoch,
        "ss_num_epochs": -(-num_steps // plan.steps_per_epoch),
        "ss_max_train_steps": num_steps,
        "ss_steps": step,
        "ss_epoch": epoch,
        "ss_batch_size_per_device": config.train_batch_size,
        "ss_total_batch_size": config.train_batch_size,
        "ss_debiased_estimation": config.debiased_estimation_loss,
        **_dataset_values(dataset),
        **_bucket_values(config, dataset),
        **_base_values(config, base),
        "ss_cache_latents": True,
        "ss_output_name": output_name,
        "ss_training_comment": f"lora-sweep {__version__}",
        "modelspec.title": output_name,
        "modelspec.trigger_phrase": dataset.trigger,
    }
    values |= _method_values(config, dataset, str(values["modelspec.architecture"]))
    return {key: str(value) for key, value in values.items() if key not in _left_out(config)}


def _method_values(config: TrainConfig, dataset: Dataset, architecture: str) -> dict[str, object]:
    """architecture: of a LoRA for the base."""
    model = architecture.removesuffix("/lora")
    if config.method.name == DREAMBOOTH:
        return {"modelspec.architecture": model}
    if config.method.name == TEXTUAL_INVERSION:
        return {"modelspec.architecture": f"{model}/textual-inversion", "ss_token_string": dataset.trigger,
                "ss_init_word": config.method.init_word or dataset.class_noun,
                "ss_num_vectors_per_token": config.method.num_vectors}
    return {"ss_network_module": _MODULES[config.network.name], "ss_network_args": json.dumps(_network_args(config))}


def _left_out(config: TrainConfig) -> tuple[str, ...]:
    """What only a LoRA has."""
    return () if config.method.name == LORA else ("ss_network_dim", "ss_network_alpha", "ss_network_dropout",
                                                  "ss_scale_weight_norms")


def _dataset_values(dataset: Dataset) -> dict[str, object]:
    tags: dict[str, Counter[str]] = {}
    folders = Counter((photo.subset, photo.repeats) for photo in dataset.photos)
    for photo in dataset.photos:
        tags.setdefault(photo.subset, Counter()).update(tag.strip() for tag in photo.caption.split(",") if tag.strip())
    return {"ss_num_train_images": sum(photo.repeats for photo in dataset.photos),
            "ss_num_reg_images": sum(repeats * count for _, repeats, count in dataset.reg_subsets),
            "ss_num_validation_images": len(dataset.validation) if dataset.is_split else 0,
            "ss_tag_frequency": json.dumps(tags, sort_keys=True),
            "ss_dataset_dirs": _folders((*subset, count) for subset, count in folders.items()),
            "ss_reg_dataset_dirs": _folders(dataset.reg_subsets)}


def _base_values(config: TrainConfig, base: Base) -> dict[str, object]:
    resolution, is_v = config.base_model.resolution, base.prediction_type == "v_prediction"
    return {"ss_resolution": f"({resolution}, {resolution})",
            "ss_base_model_version": _VERSION[base.family] + ("_v" if is_v and base.family != "sdxl" else ""),
            "ss_sd_model_name": config.base_model.name,
            "ss_new_sd_model_hash": base.identity,
            "ss_v2": base.family == "sd2",
            "modelspec.sai_model_spec": "1.0.1",
            "modelspec.architecture": _ARCHITECTURE[base.family, base.prediction_type],
            "modelspec.implementation": "diffusers",
            "modelspec.prediction_type": "v" if is_v else "epsilon",
            "modelspec.resolution": f"{resolution}x{resolution}"}


def _folders(subsets: Iterable[tuple[str, int, int]]) -> str:
    """Repeats and number of images of each folder."""
    return json.dumps({name: {"n_repeats": repeats, "img_count": count} for name, repeats, count in subsets},
                      sort_keys=True)


def _bucket_values(config: TrainConfig, dataset: Dataset) -> dict[str, object]:
    data, resolution = config.dataset, config.base_model.resolution
    if not data.enable_bucket:
        return {"ss_enable_bucket": False, "ss_bucket_info": "null"}
    low, high, _ = bucket_bounds(data, resolution)
    table = bucket_table(data, dataset, resolution)
    buckets = {str(i): {"resolution": list(size), "count": count} for i, (size, count) in enumerate(table.items())}
    return {"ss_enable_bucket": True, "ss_bucket_no_upscale": data.bucket_no_upscale, "ss_min_bucket_reso": low,
            "ss_max_bucket_reso": high, "ss_bucket_info": json.dumps({"buckets": buckets})}


def _network_args(config: TrainConfig) -> dict[str, str]:
    """What sd-scripts is told as --network_args, as text; LyCORIS' names for LyCORIS' algorithms."""
    network = config.network
    args: dict[str, object] = {"conv_dim": config.conv_dim, "conv_alpha": config.conv_alpha,
                               "rank_dropout": config.rank_dropout or None,
                               "module_dropout": config.module_dropout or None,
                               "preset": network.preset if network.preset != "full" else None}
    if _MODULES[network.name] == "lycoris.kohya":
        args["algo"] = "lora" if network.name == "dora" else network.name
        args["dora_wd"] = True if network.name == "dora" else None
        args["preset"] = {"full": None, "attention": "attn-only"}[network.preset]
    if network.name == "lokr":
        args["factor"] = network.factor
    if network.name == "dylora":
        args["unit"] = network.unit
    return {key: str(value) for key, value in args.items() if value is not None}
