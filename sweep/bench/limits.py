"""What a machine could give at most: floating-point operations of a trial-step over the rate of plain matrix products.
"""

from __future__ import annotations

import time
from multiprocessing import get_context
from typing import TYPE_CHECKING

from sweep.bench.layouts import Layout

if TYPE_CHECKING:
    from multiprocessing.queues import Queue


def step_flops(layout: Layout) -> float:
    """Operations of one trial's step, counted by torch while it is made once on the CPU: forward, and
    the gradient of all activations and adapters (frozen weights get none)."""
    from dataclasses import replace

    from torch.utils.flop_counter import FlopCounterMode

    from sweep.bench.packs import make_pack
    from sweep.training.loop import train

    updates = train(make_pack(replace(layout, k=1, device="cpu", precision="no", compiled=False)))
    with FlopCounterMode(display=False) as counter:
        next(updates)
    return float(counter.get_total_flops())


def matmul_flops_per_s(device: str, precision: str, *, num_processes: int = 1, threads: int = 1,
                       seconds: float = 2.0) -> float:
    """The rate of large square matrix products, all processes at once."""
    context = get_context("spawn")
    queue: Queue[float] = context.Queue()
    processes = [context.Process(target=_multiply, args=(queue, device, precision, threads, seconds))
                 for _ in range(num_processes)]
    for process in processes:
        process.start()
    rates = [queue.get() for _ in processes]
    for process in processes:
        process.join()
    return sum(rates)


def _multiply(queue: Queue[float], device: str, precision: str, threads: int, seconds: float) -> None:
    import torch

    torch.set_num_threads(threads)
    size = 8192 if device.startswith("cuda") else 1024
    dtype = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    is_cuda = device.startswith("cuda")
    num, best = 20 if is_cuda else 4, 0.0
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends:
        started = time.perf_counter()
        for _ in range(num):
            a @ b
        if is_cuda:
            torch.cuda.synchronize()
        best = max(best, num * 2 * size**3 / (time.perf_counter() - started))
    queue.put(best)
