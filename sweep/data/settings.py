"""What a person may say about the photos and captions; and which of it changes what is trained. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweep.errors import DataError
from sweep.schema import bounds, one_of


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetConfig:
    """Which photos of the subject to train on, how they are cropped and captioned, and which to keep for scoring.

    Names are sd-scripts' where it has the key. conf/dataset/folder.yaml says units and ranges.
    """

    name: str
    dir: str | None
    # folder with subsets <repeats>_<trigger> <class>, or with the photos themselves; null = the pocket's own subject
    reg_dir: str | None
    # regularisation images in the same form; null = the folder `reg` inside `dir` if there is one; none = without
    generate_reg: int | None = bounds(1, 100_000)
    # so many regularisation images are drawn by the base model instead; null = none
    reg_prompt: str
    reg_num_steps: int = bounds(2, 1000)
    reg_guidance_scale: float | None = bounds(1, 50)
    holdout_dir: str | None
    # photos of the subject that are never trained on, the ceiling of likeness; null = none (leave-one-out), or the
    # pocket's own where dir is null
    num_images: int | None = bounds(1)
    # train on the first this many photos by file name; null = all
    validation_split: float = bounds(0, 0.9)
    # share of the photos, chosen by content, that is kept from training for the validation loss

    captions: bool
    # false = every photo gets its folder's token words as caption
    caption_extension: str
    caption_prefix: str
    caption_suffix: str
    trigger_first: bool
    shuffle_caption: bool
    keep_tokens: int = bounds(0, 1000)
    keep_tokens_separator: str
    caption_tag_dropout_rate: float = bounds(0, 1)
    caption_dropout_rate: float = bounds(0, 1)
    caption_dropout_every_n_epochs: int = bounds(0)
    enable_wildcard: bool

    enable_bucket: bool
    min_bucket_reso: int | None = bounds(8)
    max_bucket_reso: int | None = bounds(8)
    bucket_reso_steps: int | None = bounds(8)
    bucket_no_upscale: bool
    num_buckets: int | None = bounds(1, 100)
    random_crop: bool
    flip_aug: bool

    masked_loss: str = one_of("none", "alpha", "folder")
    mask_dir: str | None
    mask: str | None = one_of("head")

    @property
    def draws_tags(self) -> bool:
        """Whether a caption's tags are shuffled or dropped."""
        return self.shuffle_caption or self.caption_tag_dropout_rate > 0

    @property
    def varies_captions(self) -> bool:
        """Whether one photo's caption can differ from batch to batch; if not, its text states may be kept."""
        return (self.draws_tags or self.enable_wildcard or self.caption_dropout_rate > 0
                or self.caption_dropout_every_n_epochs > 0)


OF_DRAWING = ("reg_prompt", "reg_num_steps", "reg_guidance_scale")
"""Keys that only say how `generate_reg` draws."""


NEUTRAL: Mapping[str, Any] = {
    "reg_dir": None, "generate_reg": None, "reg_prompt": "photo of a {class_noun}", "reg_num_steps": 20,
    "reg_guidance_scale": 7.0, "validation_split": 0,
    "caption_prefix": "", "caption_suffix": "", "trigger_first": False,
    "shuffle_caption": False, "keep_tokens": 0, "keep_tokens_separator": "", "caption_tag_dropout_rate": 0.0,
    "caption_dropout_rate": 0.0, "caption_dropout_every_n_epochs": 0, "enable_wildcard": False,
    "enable_bucket": False, "min_bucket_reso": None, "max_bucket_reso": None, "bucket_reso_steps": None,
    "bucket_no_upscale": False, "num_buckets": None, "random_crop": False, "flip_aug": False,
    "masked_loss": "none", "mask_dir": None, "mask": None,
}
"""Keys added after version 1, with the value at which they change nothing."""

_DRAWN = ("shuffle_caption", "caption_tag_dropout_rate", "caption_dropout_rate", "caption_dropout_every_n_epochs",
          "random_crop", "flip_aug")
"""Options that change training by themselves; what changes a photo, a caption or a mask counts through
`Dataset.identity` instead."""


def training_options(config: DatasetConfig, resolution: int) -> dict[str, Any]:
    """The options that change what is trained on the same files, resolved; empty for the defaults.

    What has no effect beside the others is left out, so that trials which train the same are one trial.
    """
    options = {key: getattr(config, key) for key in _DRAWN if getattr(config, key) != NEUTRAL[key]}
    if config.draws_tags:
        options["keep_tokens"] = config.keep_tokens
        options["trigger_first"] = config.trigger_first
        if config.keep_tokens_separator:
            options["keep_tokens_separator"] = config.keep_tokens_separator
    if config.enable_bucket:
        low, high, steps = bucket_bounds(config, resolution)
        options["buckets"] = {"steps": steps, "no_upscale": True} if config.bucket_no_upscale else {
            "min": low, "max": high, "steps": steps, "num": config.num_buckets}
    return options


def bucket_bounds(config: DatasetConfig, resolution: int) -> tuple[int, int, int]:
    """(shortest side, longest side, step) of the buckets in pixels.

    null is sd-scripts' 256, 1024 and 64 from a resolution of 512 on. Below, where those bounds leave nothing to choose,
    it is half and twice the resolution in steps of an eighth of it, a multiple of 8.
    """
    is_small = resolution < 512
    low = config.min_bucket_reso or (resolution // 2 if is_small else 256)
    high = config.max_bucket_reso or (resolution * 2 if is_small else max(1024, resolution))
    steps = config.bucket_reso_steps or (max(8, resolution // 64 * 8) if is_small else 64)
    return low, high, steps


def check_dataset(config: DatasetConfig, resolution: int) -> None:
    """Refuse combinations that can't work or would silently do nothing. Raises DataError."""
    low, high, steps = bucket_bounds(config, resolution)
    if config.generate_reg is not None and config.reg_dir not in (None, "none"):
        raise DataError(f"dataset.generate_reg={config.generate_reg} draws the regularisation images, dataset.reg_dir="
                        f"{config.reg_dir} has others. Leave one of the two out.")
    if config.enable_bucket and steps % 8:
        raise DataError(f"dataset.bucket_reso_steps={steps} must be a multiple of 8, the pixels of one latent.")
    if config.enable_bucket and not config.bucket_no_upscale and not low <= resolution <= high:
        raise DataError(f"dataset.min_bucket_reso={low} and dataset.max_bucket_reso={high} must enclose "
                        f"base_model.resolution={resolution}.")
    if config.enable_bucket and not config.bucket_no_upscale and low % steps:
        raise DataError(f"dataset.min_bucket_reso={low} must be a multiple of dataset.bucket_reso_steps={steps}: "
                        "sides of buckets are counted from it.")
    if config.num_buckets is not None and (not config.enable_bucket or config.bucket_no_upscale):
        raise DataError(f"dataset.num_buckets={config.num_buckets} picks among the fixed buckets: set "
                        "dataset.enable_bucket=true, and dataset.bucket_no_upscale=false.")
    if config.masked_loss == "folder" and config.mask_dir is None:
        raise DataError("dataset.masked_loss=folder needs dataset.mask_dir=FOLDER with one mask of the same file name "
                        "(without its ending) for each photo.")
    if config.masked_loss != "folder" and config.mask_dir is not None:
        raise DataError(f"dataset.mask_dir={config.mask_dir} is read with dataset.masked_loss=folder only.")
    if config.mask is not None and config.masked_loss != "none":
        raise DataError(f"dataset.mask={config.mask} makes the masks itself; leave dataset.masked_loss="
                        f"{config.masked_loss} out.")
