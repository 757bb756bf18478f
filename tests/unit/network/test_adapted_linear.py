"""The step of its own against autograd's operators, one adapter after the other."""

import pytest
import torch

from sweep.network.adapted_linear import Share, adapted_linear

SIZES = [(2, 4), (1, 16), (3, 8)]  # adapters and rank of each segment; one more row belongs to nobody
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
        shares.append(Share(slice(first, first + 2 * num), down, up, torch.full((num,), scale)))
        rows_of += [(row, down, up, k, scale) for k in range(num) for row in (first + 2 * k, first + 2 * k + 1)]
        first += 2 * num

    def one_by_one() -> torch.Tensor:
        added = [scale * x[row] @ down[k].T @ up[k].T for row, down, up, k, scale in rows_of]
        return module(x) + torch.stack([*added, torch.zeros_like(added[0])])

    wanted = one_by_one()
    gradients = torch.autograd.grad(wanted.square().sum(), leaves)
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        found = adapted_linear(module, x, shares)
    assert found.dtype == precision
    assert _error(found, wanted) < bound
    for leaf, a, b in zip(leaves, torch.autograd.grad(found.float().square().sum(), leaves), gradients, strict=True):
        assert a.dtype == leaf.dtype and _error(a, b) < bound


def test_no_gradient_is_made_for_what_needs_none() -> None:
    """As for the text states that all trials of a pack know."""
    module = torch.nn.Linear(6, 9).requires_grad_(False)
    down, up = torch.randn(2, 4, 6, requires_grad=True), torch.randn(2, 9, 4, requires_grad=True)
    x = torch.randn(2, 5, 6)
    adapted_linear(module, x, [Share(slice(0, 2), down, up, torch.ones(2))]).sum().backward()
    assert x.grad is None and down.grad is not None and up.grad is not None


def _error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float(((found.float() - wanted).abs().max() / wanted.abs().max()).detach())
