"""Who proposes the trials of a sweep, and when one is stopped early."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sweep.schema import bounds, one_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruning:
    """When a running trial is given up, judged by its screened checkpoints."""

    rule: str = one_of("none", "paired", "median", "halving", "hyperband")
    confidence: float = bounds(0.5, 0.999)
    # paired: of the interval of the difference to the best trial
    margin: float = bounds(0, 1)
    # paired: usefulness by which that interval must lie below the best trial's, wholly
    min_checkpoints: int = bounds(1)
    # screened checkpoints before a trial can be given up
    patience: int = bounds(1)
    # paired: for how many checkpoints in a row it must be behind


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Every combination of the swept values, in Hydra's order."""

    name: str
    pruning: Pruning
    storage_file: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """Values that an Optuna sampler proposes, one trial whenever a place is free."""

    name: str
    num_trials: int | None = bounds(1)
    gpu_hours: float | None = bounds(above=0)
    wall_hours: float | None = bounds(above=0)
    objectives: tuple[str, ...] = one_of("usefulness", "likeness", "adherence", "memorisation", "diversity")
    max_memorisation: float | None = bounds(-10, 10)
    min_diversity: float | None = bounds(-10, 10)
    space: dict[str, str] | None
    when: dict[str, Any] | None
    start_from: str | None
    warm_start: tuple[str, ...]
    num_startup_trials: int = bounds(0)
    population_size: int = bounds(2)
    seed: int = bounds(0, 2**31 - 1)
    pruning: Pruning
    storage_file: str | None

    @property
    def limits(self) -> dict[str, float]:
        """Beyond which a trial is infeasible, of those that are set."""
        limits = {"max_memorisation": self.max_memorisation, "min_diversity": self.min_diversity}
        return {name: limit for name, limit in limits.items() if limit is not None}


SAMPLERS = ("tpe", "random", "qmc", "gp", "cmaes", "nsga2")
LEARNERS = ("tpe", "gp", "nsga2")
"""Those that use trials which they have not proposed, and heed limits on memorisation and diversity. CMA-ES updates
its distribution by its own trials alone, and by nothing but their values."""
SEARCHES: dict[str, type] = {"grid": Grid, **dict.fromkeys(SAMPLERS, Sampled)}
