"""A few steps of an optimizer that nothing is known of, over tensors like those of the trial that chose it.

Shapes are the adapter's own on layers of 64 channels; structure, groups and rates are the trial's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, cast

from sweep.model.sources import find_base
from sweep.network.spec import spec_of
from sweep.network.targets import Kind, Part, Target
from sweep.training.optimizer_settings import Group, OptimizerSettings
from sweep.training.scheduler import learning_rate
from sweep.training.trial_optimizer import TrialOptimizer

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from sweep.train_config import TrainConfig

_WIDTH = 64
_STEPS = 2  # before the state is saved, and again after it is restored
_LAYERS: tuple[tuple[str, Part, Kind, tuple[int, int] | None], ...] = (  # key, part, kind, kernel of a convolution
    ("lora_unet_attn1_to_q", "unet", "attention", None), ("lora_unet_attn1_to_k", "unet", "attention", None),
    ("lora_unet_ff_net_2", "unet", "feed_forward", None), ("lora_unet_proj_in", "unet", "projection", (1, 1)),
    ("lora_unet_resnets_0_conv1", "unet", "resnet", (3, 3)),
    ("lora_te_self_attn_k_proj", "text_encoder", "attention", None),
    ("lora_te_mlp_fc2", "text_encoder", "feed_forward", None),
    ("unet.conv_norm_out", "unet", "norm", None), ("text_encoder.final_layer_norm", "text_encoder", "norm", None),
    ("text_encoder.tokens", "text_encoder", "tokens", None))


def rehearse(settings: OptimizerSettings, trial: TrainConfig) -> tuple[TrialOptimizer, bool]:
    """Build, step and save one; restore its state into a second and step both. Returns the first, and whether the
    second took the same steps to the last bit: without that a resumed trial would be another one.

    Raises whatever the optimizer raises.
    """
    import torch

    one = _groups(trial, torch.Generator().manual_seed(0))
    optimizer = TrialOptimizer(settings, one)
    _take_steps(optimizer, one, trial, first=0)
    weights = [tensor.clone() for tensor in _tensors(one)]
    with optimizer.averaged():  # as a checkpoint does
        pass
    for tensor, kept in zip(_tensors(one), weights, strict=True):
        tensor.copy_(kept)
    saved = optimizer.save()

    other = _groups(trial, torch.Generator().manual_seed(0))
    restored = TrialOptimizer(settings, other)
    for tensor, kept in zip(_tensors(other), weights, strict=True):
        tensor.copy_(kept)
    restored.load(*saved)
    for each, groups in ((optimizer, one), (restored, other)):
        _take_steps(each, groups, trial, first=_STEPS)
    # NaN where both have it: rates that diverge are no matter of the state
    return optimizer, all(torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)
                          for a, b in zip(_tensors(one), _tensors(other), strict=True))


def _take_steps(optimizer: TrialOptimizer, groups: list[Group], trial: TrainConfig, *, first: int) -> None:
    import torch

    for step in range(first, first + _STEPS):
        g = torch.Generator().manual_seed(step + 1)
        for tensor in _tensors(groups):
            assert tensor.grad is not None
            tensor.grad.copy_(1e-2 * torch.randn(tensor.shape, generator=g))
        optimizer.step(_rates(trial, step))


def _rates(trial: TrainConfig, step: int) -> Mapping[Part, float]:
    """The trial's first rate, which a warm-up begins at 0, and then its full ones."""
    full = {part: trial.unet_lr if part == "unet" else trial.text_encoder_lr for part in spec_of(trial).parts}
    if step > 0:
        return full
    return {part: learning_rate(trial.scheduler, rate, 0, trial.max_train_steps or 1000, trial.lr_warmup_steps)
            for part, rate in full.items()}


def _groups(trial: TrainConfig, g: Generator) -> list[Group]:
    """By part and LoRA+'s factor, a tensor per matrix, as `Pack` makes them."""
    import torch

    found: dict[tuple[Part, float], list[Tensor]] = {}
    spec, targets = spec_of(trial), {target.key: target for target in _targets(trial)}
    for key, layer in spec.layers(list(targets.values())).items():
        for each in layer.form.tensors(targets[key]):
            tensor = torch.zeros(each.shape) if each.is_up else 0.1 * torch.randn(each.shape, generator=g)
            tensor.grad = torch.zeros(each.shape)
            factor = (trial.loraplus_lr_ratio or 1.0) if each.is_up else 1.0
            found.setdefault((targets[key].part, factor), []).append(tensor)
    return [Group(part, factor, tuple(tensors)) for (part, factor), tensors in found.items()]


def _targets(trial: TrainConfig) -> list[Target]:
    """A layer of each kind that a base has. Those of 2.x and XL project with Linears."""
    name = trial.base_model.name
    family = find_base(trial.base_model).family if name == "file" else name
    targets = []
    for key, part, kind, kernel in _LAYERS:
        size = None if kind == "projection" and family in ("sd2", "sdxl") else kernel
        targets.append(Target(key, part, cast("nn.Module", None), _WIDTH, _WIDTH, size is not None, size or (1, 1),
                              kind=kind))
    return targets


def _tensors(groups: list[Group]) -> Iterator[Tensor]:
    return (tensor for group in groups for tensor in group.tensors)
