"""The tools: extract a LoRA from a fine-tuned base, merge LoRAs, bake them into a base, resize or truncate one.

Each returns what it wrote, checked on the file read back.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.errors import AdapterFileError, ModelError
from sweep.network.convert import dtype_of
from sweep.network.lora_file import read_whole
from sweep.network.targets import Target
from sweep.network.tools.base_weights import BaseWeights, read_base
from sweep.network.tools.layers import (
    Done,
    difference_on,
    left_of,
    matrix_of,
    norm_of,
    product_of,
    spectrum_of_layer,
    write_products,
)
from sweep.network.tools.low_rank import Product, Spectrum, spectrum_of, spectrum_of_product

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def extract(tuned: str, base: str, out: Path, *, rank: int, conv_rank: int | None = None, dtype: torch.dtype,
            device: str = "cpu") -> Done:
    """The LoRA of this rank that comes nearest to tuned - base. conv_rank: of 3x3 convolutions; None = those are left
    out.

    Raises ModelError if the two are not of one architecture, or do not differ.
    """
    after, before = read_base(tuned), read_base(base)
    _check_alike(after, before)
    products: dict[str, Product] = {}
    wanted: dict[str, Tensor] = {}
    for target in before.targets:
        limit = conv_rank if target.is_spatial else rank
        delta = (after.layers[target.key].float() - before.layers[target.key].float()).flatten(1)
        if limit is None or not bool(delta.any()):
            continue
        products[target.key] = spectrum_of(delta.to(device)).best(limit)
        wanted[target.key] = delta
    if not products:
        raise ModelError(f"{tuned} and {base} don't differ in any layer that a LoRA of this kind can hold.")
    write_products(out, products, before.targets, dtype=dtype, metadata={})
    return Done(ranks={key: product.rank for key, product in products.items()}, asked=norm_of(wanted),
                left=left_of(out, before.targets, wanted), notes=_outside(after, before, set(products)))


def merge(sources: Sequence[Path], strengths: Sequence[float], out: Path, targets: Sequence[Target], *,
          rank: int | None = None, dtype: torch.dtype) -> Done:
    """One LoRA that adds what the sources add together, each at its strength.

    rank: None = exact, the ranks add up (LoRA and LoCon alone); else the nearest of this rank.
    Raises AdapterFileError if a source can't be read or said this way.
    """
    loras = [read_whole(path, targets) for path in sources]
    products: dict[str, Product] = {}
    wanted: dict[str, Tensor] = {}
    for target in targets:
        parts = [(path, lora, strength) for path, lora, strength in zip(sources, loras, strengths, strict=True)
                 if target.key in lora.layers]
        if not parts:
            continue
        found = [_scaled(product_of(lora.layers[target.key], target, lora.weights[target.key], path), strength)
                 for path, lora, strength in parts]
        wanted[target.key] = sum((strength * matrix_of(lora.layers[target.key], target, lora.weights[target.key])
                                  for _, lora, strength in parts[1:]),
                                 parts[0][2] * matrix_of(parts[0][1].layers[target.key], target,
                                                         parts[0][1].weights[target.key]))
        products[target.key] = _joined([each for each in found if each is not None], wanted[target.key], rank,
                                       is_exact=None not in found, where=f"{parts[0][0]}: {target.key}")
    words = ", ".join(f"{path.stem} x {strength:g}" for path, strength in zip(sources, strengths, strict=True))
    metadata = {**loras[0].metadata, "ss_output_name": out.stem, "ss_training_comment": f"merged: {words}"}
    write_products(out, products, targets, dtype=dtype, metadata=metadata)
    return Done(ranks={key: product.rank for key, product in products.items()}, asked=norm_of(wanted),
                left=left_of(out, targets, wanted))


def resize(source: Path, out: Path, targets: Sequence[Target], *, rank: int | None, keep: float | None) -> Done:
    """The nearest LoRA of this rank; or, in each layer, of the smallest rank that keeps a share of the energy (the sum
    of squared singular values), and of at most `rank`. In the source's precision.

    Raises AdapterFileError if it can't be read or said this way.
    """
    lora = read_whole(source, targets)
    by_key = {target.key: target for target in targets}
    products, wanted = {}, {}
    for key, layer in lora.layers.items():
        target, tensors = by_key[key], lora.weights[key]
        spectrum = spectrum_of_layer(layer, target, tensors, source)
        products[key] = spectrum.best(_new_rank(spectrum, layer.form.dim, rank, keep))
        wanted[key] = matrix_of(layer, target, tensors)
    how = " ".join(text for text in (f"rank {rank}" if rank else "", f"energy {keep:g}" if keep else "") if text)
    metadata = {**lora.metadata, "ss_training_comment": f"resized to {how}"}
    write_products(out, products, targets, dtype=dtype_of(source), metadata=metadata)
    return Done(ranks={key: product.rank for key, product in products.items()}, asked=norm_of(wanted),
                left=left_of(out, targets, wanted))


def inner(source: Path, out: Path, targets: Sequence[Target], *, rank: int) -> Done:
    """The first ranks of a DyLoRA, which were trained to stand by themselves (Valipour et al. 2023, 3.2), at the scale
    that they had in training.

    Raises AdapterFileError if a layer is no LoRA.
    """
    lora = read_whole(source, targets)
    by_key = {target.key: target for target in targets}
    products, wanted = {}, {}
    for key, layer in lora.layers.items():
        whole = product_of(layer, by_key[key], lora.weights[key], source)
        if whole is None:
            raise AdapterFileError(f"{source}: {key} is of the kind {layer.form.algorithm!r}; only a DyLoRA has inner "
                                   "ranks. `resize` makes other kinds smaller.")
        products[key] = Product(whole.up_OR[:, :rank], whole.down_RI[:rank])
        wanted[key] = products[key].matrix()
    metadata = {**lora.metadata, "ss_training_comment": f"the first {rank} ranks"}
    write_products(out, products, targets, dtype=dtype_of(source), metadata=metadata)
    return Done(ranks={key: product.rank for key, product in products.items()}, asked=norm_of(wanted),
                left=left_of(out, targets, wanted))


def bake(sources: Sequence[Path], strengths: Sequence[float], base: str, out: Path,
         dtype: torch.dtype | None = None) -> Done:
    """A base with the LoRAs in its weights, in the base's own layout. dtype: None = and in its precision, whose
    rounding is what `Done.left` then says.

    Raises AdapterFileError or ModelError.
    """
    weights = read_base(base, dtype)
    by_key = {target.key: target for target in weights.targets}
    loras = [read_whole(path, weights.targets) for path in sources]
    deltas: dict[str, Tensor] = {}
    for lora, strength in zip(loras, strengths, strict=True):
        for key, layer in lora.layers.items():
            added = strength * difference_on(layer, by_key[key], lora.weights[key], weights.layers[key])
            deltas[key] = deltas[key] + added if key in deltas else added
    before = {key: weights.layers[key].float().clone() for key in deltas}
    for key, delta in deltas.items():
        stored = weights.layers[key]
        stored.copy_(before[key] + delta.reshape(stored.shape))
    weights.write(out)
    left = norm_of({key: read - before[key] - deltas[key].reshape(read.shape)
                    for key, read in _layers_of(out, deltas).items()})
    return Done(ranks={key: layer.form.dim for lora in loras for key, layer in lora.layers.items()},
                asked=norm_of(deltas), left=left)


def _layers_of(out: Path, keys: Any) -> dict[str, Tensor]:
    read = read_base(str(out))
    return {key: read.layers[key].float() for key in keys}


def _scaled(product: Product | None, strength: float) -> Product | None:
    return None if product is None else Product(product.up_OR * strength, product.down_RI)


def _joined(parts: Sequence[Product], matrix: Tensor, rank: int | None, *, is_exact: bool, where: str) -> Product:
    """[u1 u2] [d1; d2] = u1 d1 + u2 d2."""
    import torch

    if is_exact:
        whole = Product(torch.cat([part.up_OR for part in parts], dim=1), torch.cat([part.down_RI for part in parts]))
        return whole if rank is None or rank >= whole.rank else spectrum_of_product(whole).best(rank)
    if rank is None:
        raise AdapterFileError(f"{where} is no plain LoRA and has to be multiplied out: give --rank, the rank of the "
                               "nearest LoRA that takes its place.")
    return spectrum_of(matrix).best(rank)


def _new_rank(spectrum: Spectrum, dim: int, rank: int | None, keep: float | None) -> int:
    most = rank if rank is not None else dim if dim > 1 else len(spectrum.S)
    return most if keep is None else min(most, spectrum.rank_that_keeps(keep))


def _check_alike(after: BaseWeights, before: BaseWeights) -> None:
    shapes = [{key: tuple(weight.shape) for key, weight in weights.layers.items()} for weights in (after, before)]
    if shapes[0] != shapes[1]:
        differing = sorted(key for key in {**shapes[0], **shapes[1]} if shapes[0].get(key) != shapes[1].get(key))
        raise ModelError(f"{after.path} and {before.path} are not of one architecture: {len(differing)} layers differ "
                         f"in shape, e.g. {', '.join(differing[:3])}.")


def _outside(after: BaseWeights, before: BaseWeights, taken: set[str]) -> tuple[str, ...]:
    """What a LoRA can't hold of a fine-tuning: norms, biases, embeddings, and layers that were not asked for."""
    layers = {key for key in after.layers if key not in taken and bool((after.layers[key] != before.layers[key]).any())}
    held = {tensor.data_ptr() for tensor in after.layers.values()}
    names_before = {(path.relative_to(before.path) if before.path.is_dir() else Path(), name): tensor
                    for path, tensors in before.files.items() for name, tensor in tensors.items()}
    others = [name for path, tensors in after.files.items() for name, tensor in tensors.items()
              if tensor.data_ptr() not in held
              and (old := names_before.get((path.relative_to(after.path) if after.path.is_dir() else Path(), name)))
              is not None and old.shape == tensor.shape and bool((old != tensor).any())]
    notes = []
    if layers:
        notes.append(f"{len(layers)} convolutions differ too and were left out; --conv-rank takes them in")
    if others:
        notes.append(f"{len(others)} tensors that no LoRA holds (norms, biases, embeddings, the VAE) differ too, e.g. "
                     f"{', '.join(sorted(others)[:3])}")
    return tuple(notes)
