"""How the threads of one torch operation wait for each other on a CPU."""

from __future__ import annotations

from collections.abc import MutableMapping

_SPIN_COUNT = "10000"
"""How often libgomp looks for the other threads before it sleeps. At its own 300,000, two threads beside two busy
programs on two cores took 9 times as long as at this, and on idle cores as long (convolutions of 64 channels)."""


def spin_little(environment: MutableMapping[str, str]) -> None:
    """Set it for a process whose torch is not loaded yet, unless the user has said how threads wait."""
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", _SPIN_COUNT)
