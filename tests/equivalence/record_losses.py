"""Record what a few trials' losses are, so that a later change can prove that it changed nothing.

    python -m tests.equivalence.record_losses      # renew tests/assets/recorded_losses.json, after a change on purpose
"""

from __future__ import annotations

import hashlib
import json
import platform
from pathlib import Path
from typing import Any

import torch

from sweep.identity import base_identity
from sweep.model.base import Base, BaseModelConfig
from sweep.model.loading import load_base
from sweep.network.targets import Target, find_targets
from sweep.training.pack import Member, Pack
from tests.equivalence.trials import member, run

RECORD = Path(__file__).parents[1] / "assets/recorded_losses.json"
CPUINFO = Path("/proc/cpuinfo")


def trials() -> list[Member]:
    """One pack: plain AdamW, AdamW with most of the objective's options, and 8-bit Lion at a rank that is quantised."""
    return [
        member("adamw", dim=8, seed=1),
        member("objective", dim=8, seed=2, batch_size=2, noise_offset=0.1, multires_noise_iterations=6, min_snr_gamma=5,
               ip_noise_gamma=0.1, loss_type="huber", scheduler="cosine_with_restarts", loraplus_lr_ratio=4,
               ema_decay=0.9),
        member("lion8bit", dim=64, seed=3, optimizer="lion8bit", text_encoder_lr=0),
    ]


def losses(base: Base, targets: list[Target]) -> dict[str, list[float]]:
    """Of 20 steps by trial, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return run(Pack(base, targets, trials()))
    finally:
        torch.set_num_threads(threads)


def fingerprint() -> dict[str, Any]:
    """What decides the last bits: the kind of CPU and the version of torch."""
    cpu = [platform.machine(), platform.processor()]
    if CPUINFO.exists():
        lines = CPUINFO.read_text(encoding="utf-8").split("\n\n")[0].splitlines()
        wanted = ("vendor_id", "cpu family", "model", "stepping", "flags", "Features", "CPU part")
        cpu += [line for line in lines if line.partition(":")[0].strip() in wanted]
    return {"cpu": hashlib.sha256("\n".join(cpu).encode()).hexdigest()[:16], "torch": torch.__version__.split("+")[0],
            "instructions": torch.backends.cpu.get_cpu_capability()}


def main() -> None:
    config = BaseModelConfig(name="pocket", path=None, resolution=64)
    base = load_base(config, base_identity(config, Path("results")))
    record = {"fingerprint": fingerprint(), "losses": losses(base, find_targets(base))}
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {RECORD.name}: {', '.join(record['losses'])}")


if __name__ == "__main__":
    main()
