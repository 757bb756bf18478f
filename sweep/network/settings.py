"""The network families a trial may choose."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """Low-rank adapters on the Linear and 1x1 layers of the transformer blocks (Hu et al. 2021)."""

    name: str


NETWORKS: dict[str, type] = {"lora": Lora}
