"""How many trials a card has room for: bytes counted on fake tensors, nothing is computed or allocated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

from sweep.bench.layouts import Layout
from sweep.bench.packs import PLAN, make_pack, random_base
from sweep.bench.record import Folder, csv_text
from sweep.files import write_text
from sweep.network.targets import find_targets
from sweep.training.memory import USABLE_FRAC, trial_bytes

CARDS_GB = (8, 12, 24, 80)
_RESOLUTION = {"sd15": 512, "sdxl": 1024}
_ELSEWHERE_GIB = 0.7  # the CUDA context and its libraries' workspaces; text encoders and VAE can be off the card


def count_room(folder: Folder) -> None:
    """A table of K for SD 1.5 and SDXL, bf16, batch 1, the UNet's adapters alone, by rank and checkpointing.

    Counted: the base, and per trial what autograd keeps and four times the adapter (weights, gradients, Adam's two
    states). Attention keeps its inputs, output and a number per query, as fused attention does on a GPU.
    Not counted: temporaries, and under checkpointing the one block that is being computed again.
    """
    folder.begin(kind="counted, not measured")
    rows = []
    for base_model, rank, checkpointing in product(("sd15", "sdxl"), (8, 32, 128), (False, True)):
        layout = Layout(base_model=base_model, precision="bf16", resolution=_RESOLUTION[base_model],
                        rank=rank, gradient_checkpointing=checkpointing, trains_text_encoder=False)
        each, base = _counted(layout)
        row: dict[str, Any] = {"base_model": base_model, "resolution": layout.resolution, "rank": rank,
                               "checkpointing": checkpointing, "counted": True, "base_gib": base / 2**30,
                               "trial_gib": each / 2**30}
        for card in CARDS_GB:
            free = USABLE_FRAC["cuda"] * (card * 1e9 - _ELSEWHERE_GIB * 2**30 - base)
            row[f"k_{card}gb"] = max(0, int(free / each))
        rows.append(row)
        write_text(folder.path / "table.csv", csv_text(list(row), rows))
        print(row, flush=True)


def _counted(layout: Layout) -> tuple[int, int]:
    """Bytes of one trial, and of the base's UNet."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    PLAN.photos_at(0)  # remembered: an order can't be drawn from fake numbers
    with FakeTensorMode(allow_non_fake_inputs=True), as_on_a_gpu():
        base = random_base(layout)
        base_bytes = sum(weight.numel() * weight.element_size() for weight in base.unet.parameters())
        pack = make_pack(layout, base)
        [member] = pack.members
        pack.change([])
        return trial_bytes(base, find_targets(base), member), base_bytes


@contextmanager
def as_on_a_gpu(note_attention: Callable[[Any, Any, bool], None] | None = None) -> Iterator[None]:
    """Inside, attention keeps what fused attention keeps, and norms keep fp32, as under CUDA's autocast.

    note_attention(query, key, is_backward): told of each attention."""
    import torch

    functional: Any = torch.nn.functional

    class Fused(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, query: Any, key: Any, value: Any) -> Any:
            if note_attention:
                note_attention(query, key, False)
            output = torch.empty_like(query)
            ctx.save_for_backward(query, key, value, output, query.new_empty(query.shape[:-1], dtype=torch.float32))
            return output

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            if note_attention:
                query, key, *_ = ctx.saved_tensors
                note_attention(query, key, True)
            return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])

    real = functional.scaled_dot_product_attention, functional.group_norm, functional.layer_norm
    functional.scaled_dot_product_attention = lambda query, key, value, *_, **__: Fused.apply(query, key, value)
    functional.group_norm = lambda x, *rest: real[1](x.float(), *rest)
    functional.layer_norm = lambda x, *rest: real[2](x.float(), *rest)
    try:
        yield
    finally:
        functional.scaled_dot_product_attention, functional.group_norm, functional.layer_norm = real
