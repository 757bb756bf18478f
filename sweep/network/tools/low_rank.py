"""Weight differences as products of two thin matrices, and the best such product of a given rank (Eckart & Young 1936).

Shapes: O out, I in x kernel, R rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """up_OR @ down_RI."""

    up_OR: Tensor
    down_RI: Tensor

    @property
    def rank(self) -> int:
        return len(self.down_RI)

    def matrix(self) -> Tensor:
        return self.up_OR @ self.down_RI


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """A matrix by its singular values S, largest first, and vectors."""

    U_OS: Tensor
    S: Tensor
    V_SI: Tensor

    def best(self, rank: int) -> Product:
        """The nearest product of this rank. Each factor gets the root of the singular values, so that both are of one
        size and fit into half precision."""
        rank = min(rank, len(self.S))
        root = self.S[:rank].sqrt()
        return Product(self.U_OS[:, :rank] * root, root[:, None] * self.V_SI[:rank])

    def rank_that_keeps(self, energy: float) -> int:
        """The smallest rank whose singular values have this share of the sum of squares; at least 1."""
        shares = self.S.double().square().cumsum(0)
        if not len(shares) or shares[-1] == 0:
            return 1
        return int((shares < energy * shares[-1] * (1 - 1e-12)).sum()) + 1

    def lost(self, rank: int) -> float:
        """Norm of what the best product of this rank leaves out."""
        return float(self.S[rank:].double().norm())


def spectrum_of(matrix_OI: Tensor) -> Spectrum:
    import torch

    U, S, V = torch.linalg.svd(matrix_OI, full_matrices=False)
    return Spectrum(U, S, V)


def spectrum_of_product(product: Product) -> Spectrum:
    """Of up @ down without multiplying them out: SVD of the R x R core of their QR decompositions."""
    import torch

    num_out, num_in = len(product.up_OR), product.down_RI.shape[1]
    if product.rank >= min(num_out, num_in):
        return spectrum_of(product.matrix())
    Q_up, R_up = torch.linalg.qr(product.up_OR)
    Q_down, R_down = torch.linalg.qr(product.down_RI.T)
    core = spectrum_of(R_up @ R_down.T)
    return Spectrum(Q_up @ core.U_OS, core.S, core.V_SI @ Q_down.T)
