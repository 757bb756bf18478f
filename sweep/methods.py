"""What a trial trains: an adapter, the base's own weights (DreamBooth), or words (textual inversion).

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweep.schema import bounds

if TYPE_CHECKING:
    from sweep.train_config import TrainConfig
    from sweep.trial import Trial

LORA, DREAMBOOTH, TEXTUAL_INVERSION = "lora", "dreambooth", "textual_inversion"


CHECKPOINT, EMBEDDING = "checkpoint", "embedding"  # kinds of file: what the latter two leave; a LoRA's is "lora"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraMethod:
    """An adapter of `network` beside the frozen base."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dreambooth:
    """The UNet's own weights, and the text encoder's where text_encoder_lr is above 0 (Ruiz et al. 2023)."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TextualInversion:
    """New word vectors for the trigger; text encoder and UNet stay as they are (Gal et al. 2023)."""

    name: str
    num_vectors: int = bounds(1, 64)
    # tokens that the trigger stands for
    init_word: str | None
    # words that the vectors start from; null = class_noun


METHODS: dict[str, type] = {LORA: LoraMethod, DREAMBOOTH: Dreambooth, TEXTUAL_INVERSION: TextualInversion}
TITLES: Mapping[str, str] = {LORA: "LoRA", DREAMBOOTH: "DreamBooth", TEXTUAL_INVERSION: "textual inversion"}

def method_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of a trial's plain config, of any version."""
    return config.get("method", {"name": LORA})


def file_word(trials: Sequence[Trial]) -> str:
    """What their files are called."""
    return "LoRA file" if all(method_of(trial.config)["name"] == LORA for trial in trials) else "file"


_OF_ADAPTERS = ("conv_dim", "conv_alpha", "network_dropout", "rank_dropout", "module_dropout", "scale_weight_norms",
                "loraplus_lr_ratio")
"""Keys whose resting value is null or 0."""


def refusal(config: TrainConfig) -> str:
    """Why the method can't work with the trial's other settings, and what to do; empty if it can."""
    name = config.method.name
    if name == LORA:
        return ""
    if config.network.name != LORA:
        return (f"network={config.network.name} with method={name}: a network is how an adapter is built, and this "
                "method trains none. Leave network out, or set method=lora.")
    if config.network.preset != "full":
        return (f"network.preset={config.network.preset} with method={name}: it picks the layers that get an adapter, "
                "and this method trains none. Leave it out, or set method=lora.")
    for key in _OF_ADAPTERS:
        value = getattr(config, key)
        if value:
            return (f"{key}={value:g} with method={name}: it acts on an adapter's matrices, and this method trains "
                    "none. Leave it out, or set method=lora.")
    if name == TEXTUAL_INVERSION:
        return _refused_words(config)
    return _refused_rates(config)


def _refused_words(config: TrainConfig) -> str:
    if config.unet_lr > 0:
        return (f"unet_lr={config.unet_lr:g} with method=textual_inversion: it trains word vectors and leaves the UNet "
                "as it is. Leave unet_lr out (0); text_encoder_lr is the vectors' rate.")
    if config.method.init_word is not None and not config.method.init_word.strip():
        return "method.init_word is empty; give a word that the base knows, e.g. man, or null for class_noun."
    if config.method.num_vectors > config.max_token_length // 2:
        return (f"method.num_vectors={config.method.num_vectors} of max_token_length={config.max_token_length} tokens: "
                "they would leave a caption less than half of its tokens. Lower num_vectors.")
    return _refused_rates(config)


def _refused_rates(config: TrainConfig) -> str:
    """Optimizers that find the rate take a factor on it, and the method's own rates are none."""
    if config.optimizer.name not in ("prodigy", "dadapt_adam"):
        return ""
    small = {key: rate for key, rate in (("unet_lr", config.unet_lr), ("text_encoder_lr", config.text_encoder_lr))
             if 0 < rate < 0.01}
    if not small:
        return ""
    key, rate = next(iter(small.items()))
    return (f"{key}={rate:g} with optimizer={config.optimizer.name}: this optimizer finds the rate itself and "
            f"multiplies it by {key}. Set {key}=1.")


def ignored(config: TrainConfig) -> str:
    """Which of the trial's settings have no effect under its method, in words; empty if all have."""
    if config.method.name == LORA:
        return ""
    return (f"method={config.method.name} trains no adapter: network_dim={config.network_dim} and "
            f"network_alpha={config.network_alpha:g} have no effect")
