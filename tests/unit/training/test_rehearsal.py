"""The rehearsal of an unknown optimizer is held over what the trial's adapter really is."""

from dataclasses import replace

import pytest

from sweep.training.pack import Pack
from sweep.training.rehearsal import _groups
from tests.equivalence.trials import NETWORKS, member


@pytest.mark.parametrize("network", NETWORKS)
def test_its_tensors_are_of_the_trials_kinds(base, targets, network: str) -> None:
    import torch

    conv_dim = None if network == "ia3" else 4
    one = member("a", network=network, dim=4, optimizer="custom", loraplus_lr_ratio=4, conv_dim=conv_dim)
    pack = Pack(base, targets, [one])
    assert pack.members[0].optimizer is not None
    [real] = pack.members[0].optimizer.inner
    rehearsed = _groups(one.config, torch.Generator())
    assert ({(group.part, group.lr_factor, tensor.ndim) for group in rehearsed for tensor in group.tensors}
            == {(group["part"], group["lr_factor"], tensor.ndim) for group in real.param_groups
                for tensor in group["params"]})
    assert len(rehearsed) == len(real.param_groups)


def test_a_base_that_projects_with_linears_has_no_convolution() -> None:
    import torch

    config = member("a", optimizer="custom").config
    sdxl = replace(config, base_model=replace(config.base_model, name="sdxl"))
    assert {tensor.ndim for group in _groups(sdxl, torch.Generator()) for tensor in group.tensors} == {2}
    assert {tensor.ndim for group in _groups(config, torch.Generator()) for tensor in group.tensors} == {2, 4}
