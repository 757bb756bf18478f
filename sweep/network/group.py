"""Adapters of one structure, stacked, and the layout of their parameters.

Shapes: K adapters of a group, N parameters of one adapter.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import TYPE_CHECKING, Protocol

from sweep.network.apply import Stack
from sweep.network.forms import Layer
from sweep.network.targets import PARTS, Part, Target

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Spec(Protocol):
    """What an adapter is made by: settings (`AdapterSpec`) or a file (`LoadedSpec`)."""

    @property
    def strength(self) -> float: ...
    @property
    def network_dropout(self) -> float: ...
    @property
    def rank_dropout(self) -> float: ...
    @property
    def module_dropout(self) -> float: ...
    def layers(self, targets: Sequence[Target]) -> Mapping[str, Layer]: ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where one tensor stands in an adapter's row of parameters."""

    key: str
    name: str
    part: Part
    is_up: bool
    shape: tuple[int, ...]
    columns: slice


class Group:
    """Adapters of one structure, stacked: one flat matrix of parameters and one of gradients, a row per adapter.

    `leaves[key][name]` [K,*shape] look into the matrix, so autograd writes each layer's gradient to its place, and
    clipping or an elementwise optimizer sees all layers of an adapter as one row. In a row come the UNet's tensors
    that start from values, then those that start at zero, then the text encoder's in the same order.
    """

    def __init__(self, targets: Sequence[Target], specs: Sequence[Spec], device: torch.device | str):
        import torch

        layers_K = [spec.layers(targets) for spec in specs]
        self.layers_K = layers_K
        self.specs = list(specs)
        self.targets = [target for target in targets if target.key in layers_K[0]]
        self.target_of = {target.key: target for target in self.targets}
        self.places = _places(self.targets, layers_K[0])
        num_params = self.places[-1].columns.stop if self.places else 0
        self.params_KN = torch.zeros(self.size, num_params, device=device)
        self.grads_KN = torch.zeros_like(self.params_KN)
        self.strength_K = torch.tensor([spec.strength for spec in specs], device=device)
        self.scales = {target.key: torch.tensor([layers[target.key].scale for layers in layers_K], device=device)
                       for target in self.targets}
        self.leaves: dict[str, dict[str, Tensor]] = {target.key: {} for target in self.targets}
        for place in self.places:
            self.leaves[place.key][place.name] = self._leaf(place)
        self.stacks = {key: Stack(self.target_of[key], layers_K[0][key].form, leaves, self.scales[key], self.strength_K,
                                  self.scales[key] * self.strength_K, None, self._replaces(key))
                       for key, leaves in self.leaves.items()}

    @property
    def size(self) -> int:
        return len(self.specs)

    def _replaces(self, key: str) -> bool:
        return self.layers_K[0][key].form.algorithm == "whole" and all(spec.strength == 1 for spec in self.specs)

    def _leaf(self, place: Place) -> Tensor:
        # autograd warns that gradients with gaps between rows may be slow; they are what makes one row of an adapter
        warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout contract")
        leaf = self.params_KN[:, place.columns].unflatten(1, place.shape).detach().requires_grad_()
        leaf.grad = self.grads_KN[:, place.columns].unflatten(1, place.shape)
        return leaf


def _places(targets: Sequence[Target], layers: Mapping[str, Layer]) -> list[Place]:
    """The row of one adapter: part by part, first what starts from values, then what starts at zero."""
    ordered = [(target, spec) for part in PARTS for is_up in (False, True) for target in targets
               if target.part == part for spec in layers[target.key].form.tensors(target) if spec.is_up == is_up]
    sizes = [prod(spec.shape) for _, spec in ordered]
    ends = list(accumulate(sizes))
    return [Place(target.key, spec.name, target.part, spec.is_up, spec.shape, slice(end - size, end))
            for (target, spec), size, end in zip(ordered, sizes, ends, strict=True)]
