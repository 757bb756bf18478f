"""The network families a trial may choose, and which of the flat network keys mean something for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sweep.schema import bounds, one_of

if TYPE_CHECKING:
    from sweep.train_config import TrainConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """Low-rank adapters (Hu et al. 2021); with conv_dim also on ResNet blocks, down- and upsamplers, as sd-scripts."""

    is_low_rank: ClassVar[bool] = True

    name: str
    preset: str = one_of("full", "attention")
    # "full": attention, feed-forward and projection layers; "attention": attention layers alone

    @property
    def option(self) -> int:
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Locon(Lora):
    """LoRA for convolutions: LoRA with conv_dim (Yeh et al. 2023, 3.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dora(Lora):
    """Weight-decomposed LoRA (Liu et al. 2024)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dylora(Lora):
    """LoRA whose leading ranks work alone (Valipour et al. 2023); docs/networks.md says how sd-scripts' differs."""

    unit: int = bounds(1, 4096)
    # ranks are trained in blocks of so many; network_dim must be a multiple

    @property
    def option(self) -> int:
        return self.unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Loha(Lora):
    """Hadamard product of two low-rank matrices (Hyeon-Woo et al. 2022)."""

    is_low_rank: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Lokr(Lora):
    """Kronecker product with one low-rank factor (Edalati et al. 2022; Yeh et al. 2023)."""

    is_low_rank: ClassVar[bool] = False

    factor: int = bounds(-1, 4096)
    # size of the smaller Kronecker factor; -1 = as square as possible

    @property
    def option(self) -> int:
        return self.factor


@dataclass(frozen=True, slots=True, kw_only=True)
class Ia3(Lora):
    """(IA)^3: learned scales of keys, values and feed-forward activations (Liu et al. 2022)."""

    is_low_rank: ClassVar[bool] = False


NETWORKS: dict[str, type] = {"lora": Lora, "locon": Locon, "loha": Loha, "lokr": Lokr, "ia3": Ia3, "dylora": Dylora,
                             "dora": Dora}


def refusal(config: TrainConfig) -> str:
    """Why the network can't work with the trial's other settings, and what to do; empty if it can."""
    network, name = config.network, config.network.name
    if config.conv_alpha is not None and config.conv_dim is None:
        return (f"conv_alpha={config.conv_alpha:g} without conv_dim scales nothing: no 3x3 convolution gets "
                "an adapter. Set conv_dim too, or leave conv_alpha=null.")
    if name == "locon" and config.conv_dim is None:
        return ("network=locon needs conv_dim, the rank of its 3x3 convolutions, e.g. conv_dim=32 "
                "conv_alpha=16. Without convolutions it is network=lora.")
    if config.conv_dim is not None and name == "ia3":
        return (f"conv_dim={config.conv_dim} means nothing for network=ia3, which has no rank and scales "
                "keys, values and feed-forward layers alone. Leave conv_dim=null.")
    if config.conv_dim is not None and network.preset == "attention":
        return (f"conv_dim={config.conv_dim} asks for adapters on convolutions, network.preset=attention for "
                "none outside attention. Leave conv_dim=null, or set network.preset=full.")
    for key in ("network_dropout", "rank_dropout"):
        if getattr(config, key) and not network.is_low_rank:
            return (f"{key}={getattr(config, key):g} acts on the activations between down and up, and "
                    f"network={name} has none. Use module_dropout, or network=lora, locon, dylora or dora.")
    if config.scale_weight_norms is not None and name not in ("lora", "locon", "dylora"):
        return (f"scale_weight_norms={config.scale_weight_norms:g} scales up and down matrices back, which "
                f"is defined for network=lora, locon and dylora, not for {name}. Leave it null.")
    if name == "lokr" and network.factor == 0:
        return ("network.factor=0 is no size; give that of the smaller Kronecker factor, at least 1, or -1 "
                "for one as square as possible.")
    if name == "dylora":
        for key, dim in (("network_dim", config.network_dim), ("conv_dim", config.conv_dim)):
            if dim is not None and dim % network.unit:
                return (f"{key}={dim} must be a multiple of network.unit={network.unit}: DyLoRA trains its "
                        "ranks in blocks of that many.")
    return ""
