"""LoRA files as products, whatever algorithm made them, and products as LoRA files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.errors import AdapterFileError
from sweep.network.apply import weight_difference
from sweep.network.forms import Layer
from sweep.network.lora_file import read_whole, write_lora
from sweep.network.targets import Target
from sweep.network.tools.low_rank import Product, Spectrum, spectrum_of, spectrum_of_product

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_ON_THE_BASE = ("dora", "ia3")


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a tool wrote, checked on the file read back. ranks: by layer. asked, left: norms of the whole difference
    that was to be said, and of what the file lacks of it."""

    ranks: Mapping[str, int]
    asked: float
    left: float
    notes: tuple[str, ...] = ()

    @property
    def kept_frac(self) -> float:
        """Of the sum of squares."""
        return 1 - (self.left / self.asked) ** 2 if self.asked > 0 else 1.0


def product_of(layer: Layer, target: Target, tensors: Mapping[str, Tensor], path: Path) -> Product | None:
    """A LoRA's layer with its scale in the up matrix; None for what must be multiplied out.

    Raises AdapterFileError for what depends on the base's weights.
    """
    if layer.form.algorithm in _ON_THE_BASE:
        raise AdapterFileError(f"{path}: {target.key} is of the kind {layer.form.algorithm!r}, which depends on the "
                               "base's weights and is no sum of products. `bake` writes it into a checkpoint; "
                               "`extract` then makes a LoRA of the difference.")
    if layer.form.algorithm in ("lora", "dylora"):
        return Product(tensors["lora_up.weight"].flatten(1) * layer.scale, tensors["lora_down.weight"].flatten(1))
    return None


def spectrum_of_layer(layer: Layer, target: Target, tensors: Mapping[str, Tensor], path: Path) -> Spectrum:
    product = product_of(layer, target, tensors, path)
    return spectrum_of(matrix_of(layer, target, tensors)) if product is None else spectrum_of_product(product)


def matrix_of(layer: Layer, target: Target, tensors: Mapping[str, Tensor]) -> Tensor:
    """What an adapter that does not depend on the base adds to a layer's weight, [O, I x kernel]."""
    import torch

    return weight_difference(layer.form, target, tensors, torch.tensor(layer.scale)).flatten(1)


def difference_on(layer: Layer, target: Target, tensors: Mapping[str, Tensor], weight: Tensor) -> Tensor:
    """What any adapter adds to a layer of this weight, [O,I] or [O,I,kh,kw], in fp32."""
    weight = weight.float()
    if layer.form.algorithm == "ia3":
        scales = tensors["weight"].flatten()  # Liu et al. 2022, 3.3
        shape = (1, -1) if layer.form.option else (-1, 1)
        return weight * scales.reshape(shape + (1,) * (weight.ndim - 2))
    if layer.form.algorithm == "dora":  # Liu et al. 2024, Eq. 5
        merged = weight.flatten(1) + (tensors["lora_up.weight"].flatten(1) * layer.scale
                                      @ tensors["lora_down.weight"].flatten(1))
        magnitude = tensors["dora_scale"].reshape(-1, 1)
        return (magnitude * merged / merged.norm(dim=1, keepdim=True)).reshape(weight.shape) - weight
    return matrix_of(layer, target, tensors).reshape(weight.shape)


def write_products(path: Path, products: Mapping[str, Product], targets: Sequence[Target], *, dtype: torch.dtype,
                   metadata: Mapping[str, str]) -> None:
    """A kohya file with alpha = rank in every layer, so that its products count as they are."""
    import torch

    weights: dict[str, dict[str, Tensor]] = {}
    for target in targets:
        product = products.get(target.key)
        if product is None:
            continue
        tail, ones = (target.kernel_size, (1, 1)) if target.is_conv else ((), ())
        weights[target.key] = {
            "lora_down.weight": product.down_RI.reshape(product.rank, target.in_features, *tail),
            "lora_up.weight": product.up_OR.reshape(target.out_features, product.rank, *ones),
            "alpha": torch.tensor(float(product.rank))}
    ranks = sorted({product.rank for product in products.values()})
    told = str(ranks[-1]) if len(ranks) == 1 else "Dynamic"
    kept = {key: value for key, value in metadata.items()
            if not key.startswith("sshs_") and key != "lora_adapter_metadata"}
    write_lora(path, weights, dtype=dtype,
               metadata={**kept, "ss_network_module": "networks.lora", "ss_network_dim": told,
                         "ss_network_alpha": told})


def left_of(path: Path, targets: Sequence[Target], wanted: Mapping[str, Tensor]) -> float:
    """Norm of what the file, read back, lacks of the wanted differences [O, I x kernel] by target key."""
    lora = read_whole(path, targets)
    by_key = {target.key: target for target in targets}
    squares = 0.0
    for key, matrix in wanted.items():
        have = matrix_of(lora.layers[key], by_key[key], lora.weights[key]) if key in lora.layers else 0
        squares += float((matrix.cpu() - have).double().square().sum())
    return squares ** 0.5


def norm_of(matrices: Mapping[str, Tensor]) -> float:
    return float(sum(float(matrix.double().square().sum()) for matrix in matrices.values()) ** 0.5)
