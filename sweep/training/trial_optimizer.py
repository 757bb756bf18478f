"""The optimizer instances of one trial: stepped together, saved and restored bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sweep.training.optimizer_settings import Group, OptimizerSettings

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sweep.network.targets import Part


class TrialOptimizer:
    """All instances of one trial over its adapter's tensors."""

    def __init__(self, settings: OptimizerSettings, groups: Sequence[Group]):
        self.settings = settings
        self.inner: list[torch.optim.Optimizer] = settings.build(groups)
        self._set_mode("train")

    def step(self, rates: Mapping[Part, float]) -> dict[Part, float]:
        """One update with each part's scheduled rate; returns the rates that it really took (Prodigy: d times the
        rate), of a part's first group where LoRA+ gives it two."""
        used: dict[Part, float] = {}
        for optimizer in self.inner:
            self.settings.set_rates(optimizer, rates)
            for group in optimizer.param_groups:
                used.setdefault(group["part"], self.settings.used_rate(optimizer, group))
        for optimizer in self.inner:
            optimizer.step()
        return used

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the tensors hold what is worth saving: the average, if the optimizer is schedule-free. The tensors
        themselves must be put back by the caller: going back by the inverse formula would not give the same bits."""
        self._set_mode("eval")
        try:
            yield
        finally:
            for group in (group for optimizer in self.inner for group in optimizer.param_groups):
                if "train_mode" in group:
                    group["train_mode"] = True

    @property
    def is_schedule_free(self) -> bool:
        """Whether it has two modes, one for the average; nothing else does."""
        return any("train_mode" in optimizer.param_groups[0] for optimizer in self.inner)

    def _set_mode(self, mode: str) -> None:
        for optimizer in self.inner:
            if "train_mode" in optimizer.param_groups[0]:
                getattr(optimizer, mode)()

    def save(self) -> tuple[dict[str, Tensor], list[Any]]:
        """The whole state: tensors by path, and everything else as plain JSON values that refer to them."""
        tensors: dict[str, Tensor] = {}
        trees = []
        for i, optimizer in enumerate(self.inner):
            params = [param for group in optimizer.param_groups for param in group["params"]]
            states = [_plain(optimizer.state.get(param, {}), f"optimizer/{i}/{n}", param.device, tensors)
                      for n, param in enumerate(params)]
            groups = [_plain({key: value for key, value in group.items() if key != "params"},
                             f"optimizer/{i}/group{n}", params[0].device, tensors)
                      for n, group in enumerate(optimizer.param_groups)]
            trees.append({"states": states, "groups": groups})
        return tensors, trees

    def load(self, tensors: Mapping[str, Tensor], trees: Sequence[Any]) -> None:
        """Put back what `save` gave. Not by `load_state_dict`: that casts states to the parameters' type."""
        for optimizer, tree in zip(self.inner, trees, strict=True):
            params = [param for group in optimizer.param_groups for param in group["params"]]
            optimizer.state.clear()
            for param, state in zip(params, tree["states"], strict=True):
                if restored := _restored(state, param.device, tensors):
                    optimizer.state[param] = restored
            for group, saved in zip(optimizer.param_groups, tree["groups"], strict=True):
                group.update(_restored(saved, params[0].device, tensors))


_MARK = "__is__"  # a key that no optimizer uses


def _plain(value: Any, path: str, device: torch.device, tensors: dict[str, Tensor]) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        # a copy: bitsandbytes shares its tables among states
        tensors[path] = value.detach().cpu().clone().contiguous()
        return {_MARK: "tensor", "path": path, "is_with_parameter": value.device == device}
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"{path} has keys that are no words")
        return {key: _plain(item, f"{path}/{key}", device, tensors) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_plain(item, f"{path}/{n}", device, tensors) for n, item in enumerate(value)]
        return {_MARK: "tuple", "items": items} if isinstance(value, tuple) else items
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{path} is a {type(value).__name__}, which can't be saved")


def _restored(value: Any, device: torch.device, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_restored(item, device, tensors) for item in value]
    if not isinstance(value, Mapping):
        return value
    match value.get(_MARK):
        case "tensor":
            tensor = tensors[value["path"]]
            return tensor.to(device) if value["is_with_parameter"] else tensor.clone()
        case "tuple":
            return tuple(_restored(item, device, tensors) for item in value["items"])
    return {key: _restored(item, device, tensors) for key, item in value.items()}
