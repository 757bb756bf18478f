"""Who proposes the trials of a sweep."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Every combination of the swept values, in Hydra's order."""

    name: str


SEARCHES: dict[str, type] = {"grid": Grid}
