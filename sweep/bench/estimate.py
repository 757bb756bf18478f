"""What packs should give on a GPU, on paper: every operation of an update counted on fake tensors, nothing computed.

An operation takes the longest of its arithmetic, its traffic to memory and a smallest kernel's time; an update takes
the longer of the sum of those and of what the CPU needs to launch them (the roofline of Williams et al. 2009, with
launches). The constants are stated in the results; what depends on them is given at both ends of their range.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from sweep.bench.layouts import Layout
from sweep.bench.packs import PLAN, make_pack, random_base
from sweep.bench.record import Folder, csv_text
from sweep.bench.room import as_on_a_gpu
from sweep.files import write_text
from sweep.training.loop import forward
from sweep.training.pack import Pass

_NO_KERNEL = ("_unsafe_view", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach")
_ADAM_BYTES = 28  # per parameter: gradient, weight and two states read, three of them written, fp32


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """All assumed. matmul_flops_per_s: of large bf16 products. achieved_frac: what layers of these sizes reach of it.
    """

    name: str
    matmul_flops_per_s: float
    achieved_frac: float
    memory_bytes_per_s: float
    kernel_s: float  # the smallest kernel
    launch_s: float  # the CPU's time per operation under autograd, eager


# The two ends of what a card of the H200's class (788 TFLOP/s in bf16 products, 4.8 TB/s on paper) may do.
HOPEFUL = Machine(name="hopeful", matmul_flops_per_s=788e12, achieved_frac=0.6, memory_bytes_per_s=3.8e12,
                  kernel_s=2e-6, launch_s=5e-6)
WARY = Machine(name="wary", matmul_flops_per_s=788e12, achieved_frac=0.3, memory_bytes_per_s=2.5e12,
               kernel_s=4e-6, launch_s=10e-6)


@dataclass(frozen=True, slots=True)
class Operation:
    flops: float
    num_bytes: float


def estimate(folder: Folder, layout: Layout, ks: Sequence[int], machines: Sequence[Machine] = (HOPEFUL, WARY)) -> None:
    """A table of trial-steps per second over K, with what holds each K back."""
    folder.begin(kind="estimated, not measured", machines=[asdict(machine) for machine in machines])
    rows: list[dict[str, Any]] = []
    for k in sorted({1, *ks}):
        operations = operations_of(replace(layout, k=k))
        for machine in machines:
            gpu_s, launch_s = seconds(operations, machine)
            update_s = max(gpu_s, launch_s)
            alone = next((row["trial_steps_per_s"] for row in rows if row["machine"] == machine.name), k / update_s)
            rows.append({
                "machine": machine.name, "base_model": layout.base_model, "precision": layout.precision,
                "resolution": layout.resolution, "rank": layout.rank, "k": k, "num_operations": len(operations),
                "tflop": sum(each.flops for each in operations) / 1e12,
                "gb": sum(each.num_bytes for each in operations) / 1e9, "gpu_s": gpu_s, "launch_s": launch_s,
                "trial_steps_per_s": k / update_s, "gain": k / update_s / alone,
                "held_back_by": "launches" if launch_s > gpu_s else "the GPU",
                "achieved_frac": sum(each.flops for each in operations) / update_s / machine.matmul_flops_per_s})
            write_text(folder.path / "table.csv", csv_text(list(rows[0]), rows))
            print(rows[-1], flush=True)


def seconds(operations: Sequence[Operation], machine: Machine) -> tuple[float, float]:
    """(the GPU's time, the CPU's) of an update."""
    rate = machine.matmul_flops_per_s * machine.achieved_frac
    return (sum(max(each.flops / rate, each.num_bytes / machine.memory_bytes_per_s, machine.kernel_s)
                for each in operations), len(operations) * machine.launch_s)


def operations_of(layout: Layout) -> list[Operation]:
    """Of one update of a pack: forward, backward, and each trial's AdamW."""
    for seed in range(1, layout.k + 1):
        replace(PLAN, seed=seed).photos_at(0)  # remembered: an order can't be drawn from fake numbers
    with FakeTensorMode(allow_non_fake_inputs=True):
        pack = make_pack(layout, random_base(layout))
        one = Pass(tuple((member, member.data.batches_at(0)[0]) for member in pack.members))
        counter = _Counter()
        with as_on_a_gpu(counter.attention), counter, pack.forward(pack.counts(one)):
            forward(pack, one).sum().backward()
        num_params = pack.flat_of(pack.members[0]).numel()
    return [*counter.operations, *[Operation(0.0, _ADAM_BYTES * num_params)] * layout.k]


class _Counter(TorchDispatchMode):
    """Notes every operation that would be a kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []

    def attention(self, query: torch.Tensor, key: torch.Tensor, is_backward: bool) -> None:
        """One fused kernel (Dao et al. 2022): two products forward; five backward."""
        flops = (10 if is_backward else 4) * query.numel() * key.shape[-2]
        tensors = (2 * query.numel() + 2 * key.numel()) * query.element_size()
        self.operations.append(Operation(flops, tensors * (2 if is_backward else 1)))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        if func.namespace == "aten" and not func.is_view and packet.__name__ not in _NO_KERNEL:
            plain = getattr(torch.ops.aten, packet.__name__.rstrip("_"))  # torch counts no product that adds in place
            count = flop_registry.get(plain)
            flops = count(*args, **(kwargs or {}), out_val=out) if count else 0.0
            tensors = [leaf for leaf in (*tree_leaves(args), *tree_leaves(out)) if isinstance(leaf, torch.Tensor)]
            self.operations.append(Operation(float(flops), sum(t.numel() * t.element_size() for t in tensors)))
        return out
