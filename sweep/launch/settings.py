"""Where workers run."""

from __future__ import annotations

from dataclasses import dataclass

from sweep.schema import bounds, one_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """Worker processes on this machine, one per device."""

    name: str
    devices: int = bounds(1, 1024)
    # how many workers at a time; on GPUs worker i gets cuda:i
    device: str = one_of("auto", "cpu", "cuda")
    # auto = cuda if there is one
    threads: int | None = bounds(1, 4096)
    # CPU threads of each worker; null = the machine's cores shared out evenly


LAUNCHERS: dict[str, type] = {"local": Local}
