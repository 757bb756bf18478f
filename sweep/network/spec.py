"""What the bank needs to know of one trial's weights: which layers, in which form, how strong, with which dropout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.methods import DREAMBOOTH, TEXTUAL_INVERSION
from sweep.network.forms import Form, Layer
from sweep.network.targets import ADAPTED_KINDS, PARTS, TRANSFORMER_KINDS, WHOLE_KINDS, Part, Target

if TYPE_CHECKING:
    from sweep.train_config import TrainConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterSpec:
    """An adapter made by settings. Its output is scaled by strength * alpha / dim (Hu et al. 2021, 4.1)."""

    dim: int
    alpha: float
    strength: float = 1.0
    algorithm: str = "lora"
    conv_dim: int | None = None  # of convolutions larger than 1x1; None: those get no adapter
    conv_alpha: float = 0.0
    preset: str = "full"
    option: int = 0  # dylora: unit; lokr: factor
    parts: tuple[Part, ...] = PARTS
    network_dropout: float = 0.0
    rank_dropout: float = 0.0
    module_dropout: float = 0.0

    def layers(self, targets: Sequence[Target]) -> dict[str, Layer]:
        """Its layers by target key, in the targets' order."""
        return {target.key: self._layer(target) for target in targets if self._takes(target)}

    def _takes(self, target: Target) -> bool:
        if target.part not in self.parts or target.kind not in ADAPTED_KINDS:
            return False
        if self.algorithm == "ia3":
            return _ia3_place(target.key) is not None and (self.preset == "full" or target.kind == "attention")
        if self.preset == "attention":
            return target.kind == "attention"
        return target.kind in TRANSFORMER_KINDS or self.conv_dim is not None

    def _layer(self, target: Target) -> Layer:
        if self.algorithm == "ia3":
            # its scales have no rank: alpha and dim do not enter
            return Layer(Form("ia3", 1, int(_ia3_place(target.key) == "input")), 1.0)
        if target.is_spatial:
            assert self.conv_dim is not None, "transformer blocks have no spatial convolutions"
            return Layer(Form(self.algorithm, self.conv_dim, self.option), self.conv_alpha)
        return Layer(Form(self.algorithm, self.dim, self.option), self.alpha)


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeSpec:
    """All of a part's own weights (DreamBooth), but for the text encoder's tables of tokens and positions."""

    parts: tuple[Part, ...]
    strength: float = 1.0
    network_dropout: float = 0.0
    rank_dropout: float = 0.0
    module_dropout: float = 0.0

    def layers(self, targets: Sequence[Target]) -> dict[str, Layer]:
        return {target.key: WHOLE for target in targets if target.part in self.parts and target.kind in WHOLE_KINDS}


@dataclass(frozen=True, slots=True, kw_only=True)
class WordsSpec:
    """New tokens of every text encoder (textual inversion)."""

    num_vectors: int
    init_word: str
    parts: tuple[Part, ...] = ("text_encoder",)
    strength: float = 1.0
    network_dropout: float = 0.0
    rank_dropout: float = 0.0
    module_dropout: float = 0.0

    def layers(self, targets: Sequence[Target]) -> dict[str, Layer]:
        layer = Layer(Form("words", self.num_vectors, init_word=self.init_word), float(self.num_vectors))
        return {target.key: layer for target in targets if target.kind == "tokens"}


WHOLE = Layer(Form("whole", 1), 1.0)


def spec_of(config: TrainConfig) -> AdapterSpec | WholeSpec | WordsSpec:
    """What a trial trains. A part whose rate is 0 gets nothing."""
    name = config.network.name
    rates: dict[Part, float] = {"unet": config.unet_lr, "text_encoder": config.text_encoder_lr}
    if config.method.name == DREAMBOOTH:
        return WholeSpec(parts=tuple(part for part in PARTS if rates[part] > 0))
    if config.method.name == TEXTUAL_INVERSION:
        return WordsSpec(num_vectors=config.method.num_vectors,
                         init_word=config.method.init_word or config.class_noun or config.trigger or "")
    return AdapterSpec(
        dim=config.network_dim, alpha=config.network_alpha, algorithm="lora" if name == "locon" else name,
        conv_dim=config.conv_dim, conv_alpha=config.conv_alpha or config.conv_dim or 0.0,
        preset=config.network.preset, option=config.network.option,
        parts=tuple(part for part in PARTS if rates[part] > 0), network_dropout=config.network_dropout,
        rank_dropout=config.rank_dropout, module_dropout=config.module_dropout)


def _ia3_place(key: str) -> str | None:
    """Keys, values and the feed-forward's second layer, which is scaled at its input (Liu et al. 2022, 3.3)."""
    if key.endswith(("_to_k", "_to_v", "_k_proj", "_v_proj")):
        return "output"
    return "input" if key.endswith(("_ff_net_2", "_mlp_fc2")) else None
