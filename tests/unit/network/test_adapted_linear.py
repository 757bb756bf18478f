"""The step of its own against autograd's operators, one adapter after the other."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sweep.network.adapted_linear import Share, adapted_linear, is_cheaper_merged, step_of

SIZES = [(2, 1), (1, 16), (3, 8)]  # adapters and rank of each segment; one more row belongs to nobody
SCALES = (0.5, 1.0, 2.0)


@pytest.mark.parametrize("shape", [(5, 6), (6,)], ids=["tokens", "vectors"])
@pytest.mark.parametrize(("precision", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_output_and_gradients_are_autograds(shape: tuple[int, ...], precision: torch.dtype, bound: float) -> None:
    torch.manual_seed(0)
    module = torch.nn.Linear(6, 9).requires_grad_(False)
    adapters = [(torch.randn(k, r, 6).requires_grad_(), torch.randn(k, 9, r).requires_grad_()) for k, r in SIZES]
    x = torch.randn(2 * sum(k for k, _ in SIZES) + 1, *shape, requires_grad=True)
    leaves = [x, *(leaf for pair in adapters for leaf in pair)]

    first, shares, rows_of = 0, [], []
    for (num, _), (down, up), scale in zip(SIZES, adapters, SCALES, strict=True):
        shares.append(Share(slice(first, first + 2 * num), down, up, torch.full((num, 1, 1), scale)))
        rows_of += [(row, down, up, k, scale) for k in range(num) for row in (first + 2 * k, first + 2 * k + 1)]
        first += 2 * num

    def one_by_one() -> torch.Tensor:
        added = [scale * x[row] @ down[k].T @ up[k].T for row, down, up, k, scale in rows_of]
        return module(x) + torch.stack([*added, torch.zeros_like(added[0])])

    merged = [is_cheaper_merged(x, share) for share in shares]
    assert merged == ([False, True, True] if len(shape) == 2 else [False] * 3), "both ways, side by side"
    wanted = one_by_one()
    gradients = torch.autograd.grad(wanted.square().sum(), leaves)
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        found = adapted_linear(module, x, step_of(x, shares))
    assert found.dtype == precision
    assert _error(found, wanted) < bound
    for a, b in zip(torch.autograd.grad(found.float().square().sum(), leaves), gradients, strict=True):
        assert _error(a, b) < bound


@pytest.mark.parametrize(("precision", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_a_1x1_convolution_is_autograds_too(precision: torch.dtype, bound: float) -> None:
    """Two rows of each adapter, and a row that belongs to nobody."""
    torch.manual_seed(0)
    module = torch.nn.Conv2d(6, 9, 1).requires_grad_(False)
    adapters = [(torch.randn(k, r, 6).requires_grad_(), torch.randn(k, 9, r).requires_grad_()) for k, r in SIZES]
    x = torch.randn(2 * sum(k for k, _ in SIZES) + 1, 6, 3, 4, requires_grad=True)
    leaves = [x, *(leaf for pair in adapters for leaf in pair)]
    first, shares, added = 0, [], []
    for (num, _), (down, up), scale in zip(SIZES, adapters, SCALES, strict=True):
        shares.append(Share(slice(first, first + 2 * num), down, up, torch.full((num, 1, 1), scale)))
        added += [scale * torch.einsum("or,ri,ihw->ohw", up[k], down[k], x[first + 2 * k + n])
                  for k in range(num) for n in range(2)]
        first += 2 * num
    assert [is_cheaper_merged(x, share) for share in shares] == [False, True, True], "both ways, side by side"
    wanted = module(x) + torch.stack([*added, torch.zeros_like(added[0])])
    gradients = torch.autograd.grad(wanted.square().sum(), leaves)
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        found = adapted_linear(module, x, step_of(x, shares))
    assert found.dtype == precision and found.shape == wanted.shape
    assert _error(found, wanted) < bound
    for a, b in zip(torch.autograd.grad(found.float().square().sum(), leaves), gradients, strict=True):
        assert _error(a, b) < bound


def test_in_half_precision_adapters_stay_beside_the_weights() -> None:
    share = Share(slice(0, 2), torch.randn(2, 16, 6), torch.randn(2, 9, 16), torch.ones(2, 1, 1))
    x = torch.randn(2, 500, 6)
    assert is_cheaper_merged(x, share)
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_cheaper_merged(x, share)


def test_images_take_the_cheaper_way_too() -> None:
    """Without gradients, merging costs one product of the weights' size."""
    share = Share(slice(0, 1), torch.randn(1, 4, 60), torch.randn(1, 60, 4), torch.ones(1, 1, 1))
    x = torch.randn(1, 50, 60)
    with torch.no_grad():
        assert is_cheaper_merged(x, share)
    assert not is_cheaper_merged(x, share)


def test_no_gradient_is_made_for_what_needs_none() -> None:
    """As for the text states that all trials of a pack know: the base's product that leads back to x is not made."""
    module = torch.nn.Linear(6, 9).requires_grad_(False)
    down, up = torch.randn(2, 4, 6, requires_grad=True), torch.randn(2, 9, 4, requires_grad=True)

    def backward_flops(x: torch.Tensor) -> int:
        share = Share(slice(0, 2), down, up, torch.ones(2, 1, 1))
        total = adapted_linear(module, x, step_of(x, [share])).sum()
        with FlopCounterMode(display=False) as counter:
            total.backward()
        return counter.get_total_flops()

    x = torch.randn(2, 5, 6)
    saved = backward_flops(x.clone().requires_grad_()) - backward_flops(x)
    assert saved == 2 * 2 * 5 * 6 * 9  # torch does not count the adapters', which is added in place
    assert down.grad is not None and up.grad is not None


def test_a_strength_is_not_rounded_in_half_precision() -> None:
    """0.6 is 0.6016 in bf16: all that a pack adds would be a quarter of a percent too strong."""
    torch.manual_seed(0)
    module = torch.nn.Linear(64, 64).requires_grad_(False)
    torch.nn.init.zeros_(module.weight)
    torch.nn.init.zeros_(module.bias)
    down, up, x = torch.randn(1, 4, 64), torch.randn(1, 64, 4), torch.randn(1, 512, 64)
    with torch.autocast("cpu", torch.bfloat16):
        shares = [Share(slice(0, 1), down, up, torch.tensor([[[scale]]])) for scale in (0.6, 1.0)]
        weak, whole = (adapted_linear(module, x, step_of(x, [share])).double() for share in shares)
    assert float((weak * whole).sum() / (whole * whole).sum()) == pytest.approx(0.6, rel=5e-4)


def _error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float(((found.float() - wanted).abs().max() / wanted.abs().max()).detach())
