"""A step waits for the device once, not once per trial: on a GPU each wait costs as much as many small kernels."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sweep.training.pack import Pack
from tests.equivalence.trials import member


class Reads(TorchDispatchMode):
    """Counts values that leave the device one by one, as float(tensor) and int(tensor) have them."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*arguments, **(keywords or {}))


def test_gradients_are_clipped_and_norms_scaled_without_reading_value_by_value(base, targets) -> None:
    pack = Pack(base, targets, [member(name, dim=2) for name in "ab"])
    for k in range(2):
        pack.bank.flat_grad(k).fill_(float(k + 1))
    with Reads() as reads:
        norms = pack.clip_gradients()
        pack.bank.scale_weight_norms(0, max_norm=1.0)
    assert reads.count == 0
    assert norms[1] == pytest.approx(2 * norms[0]) and norms[0] > 1
    assert all(float(pack.bank.flat_grad(k).norm()) == pytest.approx(1, rel=1e-3) for k in range(2))


def test_clipping_is_torchs_and_leaves_alone_what_is_short_enough(base, targets) -> None:
    pack = Pack(base, targets, [member(name, dim=2) for name in "ab"])
    long, short = pack.bank.flat_grad(0), pack.bank.flat_grad(1)
    torch.manual_seed(0)
    long.normal_()
    short.normal_().mul_(0.5 / short.norm())
    wanted, kept = torch.nn.Parameter(torch.zeros_like(long)), short.clone()
    wanted.grad = long.clone()
    torch.nn.utils.clip_grad_norm_([wanted], 1.0)
    pack.clip_gradients()
    torch.testing.assert_close(long, wanted.grad, rtol=1e-6, atol=0)
    assert torch.equal(short, kept)
