"""DreamBooth's files: the base with the trained weights in place of its own, as one checkpoint in LDM's layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.errors import AdapterFileError, ModelError
from sweep.model import checkpoint
from sweep.model.families import family_of_checkpoint
from sweep.model.ldm_layout import ldm_tensors
from sweep.network.lora_file import LoraFile, write_tensors
from sweep.network.spec import WHOLE
from sweep.network.targets import WHOLE_KINDS, Part, Target

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sweep.model.base import Base


def write_checkpoint_file(path: Path, base: Base, targets: Sequence[Target],
                          weights: Mapping[str, Mapping[str, Tensor]], *, dtype: torch.dtype,
                          metadata: Mapping[str, str]) -> None:
    """Write the whole base, VAE included, with a trial's weights (`AdapterBank.weights`) in it, atomically."""
    parts = [dict(each.state_dict()) for each in (base.unet, *base.text_encoders)]
    names = [{id(module): name for name, module in each.named_modules()} for each in (base.unet, *base.text_encoders)]
    for target in targets:
        for part, known in zip(parts, names, strict=True):
            if target.key in weights and id(target.module) in known:
                part.update({f"{known[id(target.module)]}.{kind}": tensor
                             for kind, tensor in weights[target.key].items()})
    tensors = ldm_tensors(parts[0], base.vae.state_dict(), parts[1:], base.family, base.unet.config.layers_per_block)
    write_tensors(path, {name: tensor.to("cpu", dtype if tensor.is_floating_point() else tensor.dtype).contiguous()
                         for name, tensor in tensors.items()}, metadata)


def read_checkpoint_file(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str],
                         targets: Sequence[Target]) -> LoraFile:
    """Its UNet and text encoders as layers of their own, in the file's precision; encoders that are just the base's
    are left out. The VAE is the base's, whatever the file has; tables of tokens are named in `unknown` if they differ.

    targets: all of the base's layers (`find_layers`).
    Raises AdapterFileError for a checkpoint of another architecture.
    """
    by_component = _components(path, tensors)
    layers, weights, unknown = {}, {}, []
    changed: set[Part] = set()
    for target in targets:
        found = by_component.get(target.component, {})
        if target.kind == "tokens":
            name = "embeddings.token_embedding.weight"
            if name not in found or not _is_same(target.module.weight, found[name]):
                unknown += [f"{target.component}.{name}", f"{target.component}.embeddings.position_embedding.weight"]
        if target.kind not in WHOLE_KINDS:
            continue
        own = {kind: _found(path, target, kind, found) for kind in ("weight", "bias")[:1 + target.has_bias]}
        layers[target.key], weights[target.key] = WHOLE, own
        if not all(_is_same(getattr(target.module, kind), tensor) for kind, tensor in own.items()):
            changed.add(target.part)
    kept = {target.key for target in targets if target.part in changed or target.part == "unet"}
    return LoraFile({key: layer for key, layer in layers.items() if key in kept},
                    {key: own for key, own in weights.items() if key in kept}, dict(metadata), tuple(unknown),
                    kind="checkpoint")


def _components(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """By component of the pipeline, under diffusers' and transformers' names."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    try:
        family = family_of_checkpoint(shapes, str(path))
        checkpoint.check_whole(shapes, family, str(path))
    except ModelError as error:
        raise AdapterFileError(str(error)) from error
    texts = checkpoint.text_tensors(tensors, family, checkpoint.text_configs(shapes, family))
    return {"unet": checkpoint.unet_tensors(tensors, checkpoint.unet_config(shapes, family)),
            **dict(zip(("text_encoder", "text_encoder_2"), texts, strict=False))}


def _found(path: Path, target: Target, kind: str, tensors: Mapping[str, Tensor]) -> Tensor:
    tensor = tensors.get(f"{target.path.removeprefix('text_model.')}.{kind}")
    wanted = tuple(getattr(target.module, kind).shape)
    if tensor is None or tuple(tensor.shape) != wanted:
        has = "lacks it" if tensor is None else f"has {list(tensor.shape)}"
        raise AdapterFileError(f"{path} is a checkpoint of another architecture than this base: {target.key}.{kind} is "
                               f"{list(wanted)} here, and the file {has}. Give the base that it was made from.")
    return tensor


def _is_same(own: Any, read: Tensor) -> bool:
    """Whether a file's tensor is the base's, rounded to the file's precision."""
    rounded: Tensor = own.detach().cpu().to(read.dtype)
    return rounded.shape == read.shape and bool((rounded == read).all())
