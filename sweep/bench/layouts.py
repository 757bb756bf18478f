"""How a machine is laid out for training: trials per pack, processes, threads, precision; and what one layout does."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from sweep.bench.timers import Timers, peak_memory_gib

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_READY_S = 1800.0  # a worker that says nothing for so long is stuck


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """workers processes of so many threads, each with a pack of k trials at batch 1."""

    base_model: str = "pocket"
    device: str = "cpu"
    precision: str = "no"
    resolution: int = 64
    rank: int = 8
    k: int = 1
    workers: int = 1
    threads: int = 1
    compiled: bool = False
    gradient_checkpointing: bool = False
    trains_text_encoder: bool = True

    @property
    def name(self) -> str:
        precision = "fp32" if self.precision == "no" else self.precision
        return (f"K={self.k} rank {self.rank} {precision} {self.workers}x{self.threads} threads"
                f"{' compiled' if self.compiled else ''}{' checkpointing' if self.gradient_checkpointing else ''}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """trial_steps_per_s: of the whole machine. *_frac: of the workers' time."""

    trial_steps_per_s: float
    images_per_s: float
    peak_memory_gib: float  # of all workers
    forward_frac: float
    backward_frac: float
    optimizer_frac: float
    outside_frac: float
    update_s: tuple[float, ...]  # of each update of the first worker
    failed: str = ""


def measure(layout: Layout, *, num_updates: int, num_warmups: int = 2, min_s: float = 0.0) -> Measured:
    """Run a layout in processes of its own, which start together; at least so many updates and seconds each."""
    context = get_context("spawn")
    pipes, processes = [], []
    for _ in range(layout.workers):
        mine, its = context.Pipe()
        process = context.Process(target=_work, args=(its, asdict(layout), num_updates, num_warmups, min_s))
        process.start()
        pipes.append(mine)
        processes.append(process)
    try:
        answers = _answers(pipes)
    finally:
        for process in processes:
            process.join(10)
            if process.is_alive():
                process.terminate()
    failed = next((answer["failed"] for answer in answers if answer["failed"]), "")
    if failed:
        return Measured(trial_steps_per_s=0, images_per_s=0, peak_memory_gib=0, forward_frac=0, backward_frac=0,
                        optimizer_frac=0, outside_frac=0, update_s=(), failed=failed)
    rate = sum(layout.k * len(answer["update_s"]) / sum(answer["update_s"]) for answer in answers)
    total_s = sum(sum(answer["update_s"]) for answer in answers)
    share = {part: sum(answer[part] for answer in answers) / total_s for part in ("forward", "backward", "optimizer")}
    return Measured(
        trial_steps_per_s=rate, images_per_s=rate, peak_memory_gib=sum(answer["peak_gib"] for answer in answers),
        forward_frac=share["forward"], backward_frac=share["backward"], optimizer_frac=share["optimizer"],
        outside_frac=1 - sum(share.values()), update_s=tuple(answers[0]["update_s"]))


def _answers(pipes: Sequence[Connection]) -> list[dict[str, Any]]:
    """Wait until all have warmed up, start them, and hear what they found."""
    for pipe in pipes:
        if not pipe.poll(_READY_S):
            raise TimeoutError(f"A worker of the benchmark has not warmed up within {_READY_S:g} s.")
        pipe.recv()
    for pipe in pipes:
        pipe.send("start")
    return [pipe.recv() for pipe in pipes]


def _work(pipe: Connection, layout: dict[str, Any], num_updates: int, num_warmups: int, min_s: float) -> None:
    """In a process of its own. Running out of memory is an answer too."""
    import torch

    answer: dict[str, Any] = {"failed": ""}
    is_ready = False
    try:
        from sweep.bench.packs import make_pack
        from sweep.training.loop import train

        torch.set_num_threads(layout["threads"])
        timers = Timers(torch.device(layout["device"]))
        updates = train(make_pack(Layout(**layout)))
        for _ in range(num_warmups):
            next(updates)
        pipe.send("ready")
        is_ready = True
        pipe.recv()
        update_s: list[float] = []
        with timers.running():
            while len(update_s) < num_updates or sum(update_s) < min_s:
                started = time.perf_counter()
                next(updates)  # it reads the losses, so it waits for the device
                update_s.append(time.perf_counter() - started)
        answer |= {"update_s": update_s, "peak_gib": peak_memory_gib(torch.device(layout["device"])), **timers.spent_s}
    except Exception as error:
        answer["failed"] = f"{type(error).__name__}: {error}".splitlines()[0]
        if not is_ready:
            pipe.send("ready")
            pipe.recv()
    pipe.send(answer)
