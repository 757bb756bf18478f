"""Optimizers whose next step is not a function of their state."""

from typing import Any

import torch


class Remembers(torch.optim.SGD):
    """Slows down with a count of its own."""

    count = 0

    def step(self, closure: Any = None) -> Any:
        self.count += 1
        for group in self.param_groups:
            group["lr"] /= self.count
        return super().step(closure)


class Gambles(torch.optim.SGD):
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            group["lr"] *= float(torch.rand(()))
        return super().step(closure)
