"""The `ss_*` and `modelspec.*` metadata that A1111 and other tools show. Holds no time, host or path."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable

from sweep import __version__
from sweep.data.folder import Dataset
from sweep.data.settings import bucket_bounds
from sweep.data.train_data import bucket_table
from sweep.train_config import TrainConfig


def training_metadata(config: TrainConfig, dataset: Dataset, *, output_name: str, steps_per_epoch: int,
                      batches_per_epoch: int, num_steps: int, step: int, epoch: int,
                      base_identity: str) -> dict[str, str]:
    """sd-scripts' keys, as text, for the file saved after `step` steps and `epoch` whole epochs."""
    subsets: dict[str, Counter[str]] = {}
    folders = Counter((photo.subset, photo.repeats) for photo in dataset.photos)
    for photo in dataset.photos:
        tags = [tag.strip() for tag in photo.caption.split(",") if tag.strip()]
        subsets.setdefault(photo.subset, Counter()).update(tags)
    resolution, data = config.base_model.resolution, config.dataset
    num_epochs = -(-num_steps // steps_per_epoch)
    values = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": config.network_dim,
        "ss_network_alpha": config.network_alpha,
        "ss_learning_rate": config.unet_lr,
        "ss_unet_lr": config.unet_lr,
        "ss_text_encoder_lr": config.text_encoder_lr,
        "ss_optimizer": config.optimizer.name,
        "ss_lr_scheduler": config.scheduler.name,
        "ss_lr_warmup_steps": config.lr_warmup_steps,
        "ss_num_train_images": sum(photo.repeats for photo in dataset.photos),
        "ss_num_reg_images": sum(repeats * count for _, repeats, count in dataset.reg_subsets),
        "ss_num_validation_images": len(dataset.validation) if dataset.is_split else 0,
        "ss_validation_split": data.validation_split,
        "ss_num_batches_per_epoch": batches_per_epoch,
        "ss_num_epochs": num_epochs,
        "ss_max_train_steps": num_steps,
        "ss_steps": step,
        "ss_epoch": epoch,
        "ss_batch_size_per_device": config.train_batch_size,
        "ss_total_batch_size": config.train_batch_size,
        "ss_gradient_accumulation_steps": config.gradient_accumulation_steps,
        "ss_max_grad_norm": config.max_grad_norm,
        "ss_mixed_precision": config.mixed_precision,
        "ss_seed": config.seed,
        "ss_resolution": f"({resolution}, {resolution})",
        **_bucket_values(config, dataset),
        "ss_random_crop": data.random_crop,
        "ss_flip_aug": data.flip_aug,
        "ss_shuffle_caption": data.shuffle_caption,
        "ss_keep_tokens": data.keep_tokens,
        "ss_caption_dropout_rate": data.caption_dropout_rate,
        "ss_caption_dropout_every_n_epochs": data.caption_dropout_every_n_epochs,
        "ss_caption_tag_dropout_rate": data.caption_tag_dropout_rate,
        "ss_prior_loss_weight": config.prior_loss_weight,
        "ss_cache_latents": True,
        "ss_tag_frequency": json.dumps(subsets, sort_keys=True),
        "ss_dataset_dirs": _folders((*subset, count) for subset, count in folders.items()),
        "ss_reg_dataset_dirs": _folders(dataset.reg_subsets),
        "ss_base_model_version": "sd_v1",
        "ss_sd_model_name": config.base_model.name,
        "ss_new_sd_model_hash": base_identity,
        "ss_v2": False,
        "ss_output_name": output_name,
        "ss_training_comment": f"lora-sweep {__version__}",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": output_name,
        "modelspec.prediction_type": "epsilon",
        "modelspec.resolution": f"{resolution}x{resolution}",
        "modelspec.trigger_phrase": dataset.trigger,
    }
    return {key: str(value) for key, value in values.items()}


def _folders(subsets: Iterable[tuple[str, int, int]]) -> str:
    """Repeats and number of images of each folder."""
    return json.dumps({name: {"n_repeats": repeats, "img_count": count} for name, repeats, count in subsets},
                      sort_keys=True)


def _bucket_values(config: TrainConfig, dataset: Dataset) -> dict[str, object]:
    data, resolution = config.dataset, config.base_model.resolution
    if not data.enable_bucket:
        return {"ss_enable_bucket": False, "ss_bucket_no_upscale": False, "ss_min_bucket_reso": None,
                "ss_max_bucket_reso": None, "ss_bucket_info": "null"}
    low, high, _ = bucket_bounds(data, resolution)
    table = bucket_table(data, dataset, resolution)
    buckets = {str(i): {"resolution": list(size), "count": count} for i, (size, count) in enumerate(table.items())}
    return {"ss_enable_bucket": True, "ss_bucket_no_upscale": data.bucket_no_upscale, "ss_min_bucket_reso": low,
            "ss_max_bucket_reso": high, "ss_bucket_info": json.dumps({"buckets": buckets})}
