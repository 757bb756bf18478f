"""The weights of a base's layers as they lie in its files, to be compared, changed and written back in that layout.

No model is built: of a folder in diffusers layout the files' own tensors are held, of one checkpoint file (in LDM's
layout) views into them under diffusers' names, so that a change to a layer is a change to the file's tensor.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from sweep.errors import ModelError
from sweep.model import checkpoint
from sweep.model.base import EMBEDDED
from sweep.model.difference import add_difference
from sweep.model.families import Family, family_of_checkpoint
from sweep.model.header import read_header
from sweep.model.sources import DIFFERENCE, weights_files
from sweep.network.convert import targets_of_folder
from sweep.network.targets import Target, find_targets

if TYPE_CHECKING:
    import torch
    from torch import Tensor

COMPONENTS = ("unet", "text_encoder", "text_encoder_2")


@dataclass(frozen=True, slots=True, eq=False)
class BaseWeights:
    """targets: the layers that adapters may be laid over. files: every tensor by its file and name there. layers: the
    targets' weights [O,I] or [O,I,kh,kw] by key, views into `files`."""

    path: Path
    targets: Sequence[Target]
    files: Mapping[Path, dict[str, Tensor]]
    layers: Mapping[str, Tensor]

    def write(self, out: Path) -> None:
        """The base with its present weights: a .safetensors file for a file, a folder for a folder.

        Raises ModelError if `out` is there already, or not of the base's kind.
        """
        from safetensors.torch import save_file

        if out.exists():
            raise ModelError(f"OUT = {out} exists already; give a new name.")
        if self.path.is_file() and out.suffix != ".safetensors":
            raise ModelError(f"OUT = {out} must end in .safetensors, since {self.path} is a file.")
        if self.path.is_dir():
            left_out = {path.relative_to(self.path) for path in self.files}
            kept = [path.relative_to(self.path) for path in sorted(self.path.rglob("*")) if path.is_file()]
            for inside in kept:
                if inside not in left_out:
                    (out / inside).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(self.path / inside, out / inside)
        for path, tensors in self.files.items():
            place = out / path.relative_to(self.path) if self.path.is_dir() else out
            place.parent.mkdir(parents=True, exist_ok=True)
            partial = place.with_name(f"{place.name}.tmp")
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial,
                      metadata=dict(read_header(path).metadata) if path.suffix == ".safetensors" else None)
            partial.replace(place)


def base_path(given: str) -> Path:
    """One of EMBEDDED (all of them have the same folder), a folder or a file. Raises ModelError."""
    if given in EMBEDDED:
        from sweep.pocket import WEIGHTS_DIR

        return WEIGHTS_DIR / "sd"
    path = Path(given).expanduser()
    if not path.exists():
        raise ModelError(f"{given} does not exist. Give {' or '.join(EMBEDDED)}, a folder in diffusers layout, or a "
                         "checkpoint file.")
    return path


def read_targets(given: str) -> list[Target]:
    """A base's layers, whose weights are not loaded. Raises ModelError."""
    path = base_path(given)
    if path.is_dir():
        return targets_of_folder(path)
    shapes = read_header(path).shapes
    return _targets_of_shapes(shapes, family_of_checkpoint(shapes, str(path)))


def read_base(given: str, dtype: torch.dtype | None = None) -> BaseWeights:
    """All of a base's weights. dtype: None = in the precision they have. Raises ModelError."""
    path = base_path(given)
    if given == "pocket_rv":
        return _read_folder(path, dtype, path.parent / DIFFERENCE)
    return _read_folder(path, dtype) if path.is_dir() else _read_file(path, dtype)


def _read_folder(folder: Path, dtype: torch.dtype | None, difference: Path | None = None) -> BaseWeights:
    from safetensors.torch import load_file

    targets = targets_of_folder(folder)
    files: dict[Path, dict[str, Tensor]] = {}
    by_component: dict[str, dict[str, Tensor]] = {}
    for component in COMPONENTS:
        for path in weights_files(folder / component) if (folder / component).is_dir() else []:
            tensors = load_file(path)
            if difference is not None and component == "unet":
                exact = {name: tensor.float() for name, tensor in tensors.items()}
                add_difference({name.removesuffix(".weight"): tensor for name, tensor in exact.items()
                                if name.endswith(".weight") and tensor.dim() in (2, 4)}, difference)
                tensors = {name: tensor.to(dtype or tensors[name].dtype) for name, tensor in exact.items()}
            files[path] = _cast(tensors, dtype)
            by_component.setdefault(component, {}).update(files[path])
    return BaseWeights(folder, targets, files, _of_targets(folder, targets, by_component))


def _read_file(path: Path, dtype: torch.dtype | None) -> BaseWeights:
    tensors = _cast(checkpoint.read_tensors(path), dtype)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    family = family_of_checkpoint(shapes, str(path))
    texts = checkpoint.text_tensors(tensors, family, checkpoint.text_configs(shapes, family))
    components = {"unet": checkpoint.unet_tensors(tensors, checkpoint.unet_config(shapes, family)),
                  **dict(zip(COMPONENTS[1:], texts, strict=False))}
    targets = _targets_of_shapes(shapes, family)
    return BaseWeights(path, targets, {path: tensors}, _of_targets(path, targets, components))


def _cast(tensors: dict[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    return {name: tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor
            for name, tensor in tensors.items()}


def _of_targets(path: Path, targets: Sequence[Target],
                components: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    layers = {}
    for target in targets:
        tensors = components[target.component]
        # transformers' own files have the level "text_model" or not, by their age
        names = (f"{target.path}.weight", f"{target.path.removeprefix('text_model.')}.weight")
        name = next((name for name in names if name in tensors), None)
        if name is None:
            raise ModelError(f"{path} lacks {names[0]}: it is not a whole base model.")
        layers[target.key] = tensors[name]
    return layers


def _targets_of_shapes(shapes: Mapping[str, tuple[int, ...]], family: Family) -> list[Target]:
    """The layers of a checkpoint file."""
    from sweep.model.torchvision_ops import declare_missing_operators

    declare_missing_operators()
    import torch
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(checkpoint.unet_config(shapes, family))
        encoders = [CLIPTextModel(CLIPTextConfig(**config)) for config in checkpoint.text_configs(shapes, family)]
    return find_targets(cast(Any, SimpleNamespace(unet=unet, text_encoders=encoders, family=family)))
