"""What sd-scripts (v0.10.1) calls our keys, and what it means where it says nothing. docs/knobs.md has the reasons."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from sweep.command_line import CONF_DIR

EMBEDDED = ("pocket", "pocket_rv")  # bases that come with the program; a file of ours names them
GROUPS = ("base_model", "dataset", "network", "optimizer", "scheduler")

_SAME = (
    "network_dim", "network_alpha", "network_dropout", "scale_weight_norms", "lr_warmup_steps", "train_batch_size",
    "prior_loss_weight", "gradient_accumulation_steps", "max_grad_norm", "mixed_precision", "gradient_checkpointing",
    "clip_skip", "max_token_length", "noise_offset", "multires_noise_iterations", "multires_noise_discount",
    "ip_noise_gamma", "min_snr_gamma", "debiased_estimation_loss", "loss_type", "huber_c", "huber_schedule",
    "save_every_n_epochs", "save_every_n_steps", "seed", "max_train_epochs", "max_train_steps")
_DATASET = (
    "caption_extension", "caption_prefix", "caption_suffix", "shuffle_caption", "keep_tokens", "keep_tokens_separator",
    "caption_tag_dropout_rate", "caption_dropout_rate", "caption_dropout_every_n_epochs", "enable_wildcard",
    "enable_bucket", "min_bucket_reso", "max_bucket_reso", "bucket_reso_steps", "bucket_no_upscale", "random_crop",
    "flip_aug", "validation_split")

OURS: Mapping[str, str] = {
    **{name: name for name in _SAME}, **{name: f"dataset.{name}" for name in _DATASET},
    "dataset_repeats": "repeats", "train_data_dir": "dataset.dir", "reg_data_dir": "dataset.reg_dir",
    "vae": "base_model.vae",
}
"""sd-scripts' option -> our dotted key, where the value is the same."""

NETWORK_ARGS: Mapping[str, str] = {name: name for name in ("conv_dim", "conv_alpha", "rank_dropout", "module_dropout",
                                                           "loraplus_lr_ratio")}
"""`--network_args` that are flat keys of ours."""

OPTIMIZERS: Mapping[str, str] = {
    "adamw": "AdamW", "adamw8bit": "AdamW8bit", "lion": "Lion", "lion8bit": "Lion8bit", "prodigy": "Prodigy",
    "dadapt_adam": "DAdaptAdam", "adafactor": "AdaFactor", "adamw_schedulefree": "AdamWScheduleFree"}
"""Our optimizer -> its `--optimizer_type`, which is read in any case; "DAdaptation" is DAdaptAdam's older name."""

ALGORITHMS: Mapping[str, str] = {"loha": "loha", "lokr": "lokr", "ia3": "ia3", "dylora": "dylora"}
"""LyCORIS' `algo` -> our network; lora and locon are told apart by conv_dim, dora by dora_wd."""

ITS_DEFAULTS: Mapping[str, Any] = {
    "network_dim": 4, "network_alpha": 1, "learning_rate": 2e-6, "max_train_steps": 1600,
    "caption_extension": ".caption", "save_precision": "float"}
"""What sd-scripts takes for an option that isn't given, where ours is another."""

UNSAID: Mapping[str, Any] = {"noise_offset": 0, "multires_noise_iterations": 0, "ip_noise_gamma": 0,
                             "network_dropout": 0, "clip_skip": 1, "max_token_length": 75}
"""Our value that is said by leaving its option out."""

NOT_ABOUT_TRAINING = frozenset({
    "output_dir", "output_name", "logging_dir", "log_with", "log_prefix", "log_tracker_name", "log_tracker_config",
    "save_model_as", "cache_latents", "cache_latents_to_disk", "cache_text_encoder_outputs", "xformers", "sdpa",
    "mem_eff_attn", "cache_text_encoder_outputs_to_disk", "max_data_loader_n_workers", "lowram", "highvram",
    "persistent_data_loader_workers", "vae_batch_size", "training_comment", "wandb_run_name", "console_log_level",
    "no_metadata", "num_cpu_threads_per_process", "no_half_vae"})
"""Options that change nothing in what is learned, so nobody misses them."""


@cache
def defaults_of(group: str, name: str) -> Mapping[str, Any]:
    """Keys of a group's member with their defaults, as conf/ has them; empty if there is no such member."""
    import yaml

    path = CONF_DIR / group / f"{name}.yaml"
    return dict(yaml.safe_load(path.read_text(encoding="utf-8"))) if path.exists() else {}


@cache
def flat_defaults() -> Mapping[str, Any]:
    """The flat keys of conf/config.yaml that a trial trains by, with their defaults."""
    import yaml

    tree = yaml.safe_load((CONF_DIR / "config.yaml").read_text(encoding="utf-8"))
    return {key: value for key, value in tree.items() if not isinstance(value, (dict, list))}
