"""Where a training step's time goes, and how much memory a process took at most."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class Timers:
    """Seconds spent in the forward pass, the backward pass and the optimizer (with clipping), summed over updates.

    On a GPU each reading waits for the device, which costs little beside a step.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.spent_s = {"forward": 0.0, "backward": 0.0, "optimizer": 0.0}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Inside, the training loop's calls are timed."""
        import torch

        from sweep.training import loop
        from sweep.training.pack import Pack

        places: list[tuple[Any, str, str]] = [
            (loop, "forward", "forward"), (torch.Tensor, "backward", "backward"),
            (Pack, "clip_gradients", "optimizer"), (Pack, "step_optimizer", "optimizer")]
        real = [getattr(owner, name) for owner, name, _ in places]
        for (owner, name, part), function in zip(places, real, strict=True):
            setattr(owner, name, self._timed(function, part))
        try:
            yield
        finally:
            for (owner, name, _), function in zip(places, real, strict=True):
                setattr(owner, name, function)

    def _timed(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self._wait()
                self.spent_s[part] += time.perf_counter() - started

        return timed

    def _wait(self) -> None:
        import torch

        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def peak_memory_gib(device: torch.device) -> float:
    """Of the device for a GPU, else of this process."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return float(getattr(psutil.Process().memory_info(), "peak_wset")) / 2**30  # noqa: B009
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
