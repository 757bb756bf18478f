"""Optimizers that go wrong at their fourth step, as a user's own may."""

from typing import Any

import torch


class _Counting(torch.optim.SGD):
    def step(self, closure: Any = None) -> Any:
        weight = self.param_groups[0]["params"][0]
        state = self.state[weight]
        state["count"] = state.get("count", torch.zeros(())) + 1
        if state["count"] == 4:
            self.go_wrong()
        return super().step(closure)

    def go_wrong(self) -> None:
        raise NotImplementedError


class Raises(_Counting):
    def go_wrong(self) -> None:
        raise RuntimeError("no fourth step")


class Explodes(_Counting):
    def go_wrong(self) -> None:
        with torch.no_grad():
            self.param_groups[0]["params"][0].mul_(1e30).add_(1e30)
