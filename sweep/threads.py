"""How the threads of one torch operation wait for each other on a CPU."""

from __future__ import annotations

from collections.abc import MutableMapping

_SPIN_COUNT = "10000"
"""How often libgomp looks for the other threads before it sleeps. At its own 300,000 a step of two threads beside one
busy program takes 15 times as long as at this, on idle cores as long (results/2026-11-22_threads)."""


def spin_little(environment: MutableMapping[str, str]) -> None:
    """Set it for a process whose torch is not loaded yet, unless the user has said how threads wait."""
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", _SPIN_COUNT)
