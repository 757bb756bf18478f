"""The thin adapter that hands `-m` to the conductor. Hydra imports this file at every start: nothing heavy here.

No `from __future__ import annotations`: Hydra's plugin scan fails on dataclasses in modules that have it.
"""

from typing import Any, List

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class ConductorSweeper(Sweeper):
    """Enumerates the cells and lets `sweep.conductor` run them as one sweep."""

    def __init__(self) -> None:
        self.config: DictConfig | None = None
        self.hydra_context: HydraContext | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context = hydra_context
        self.config = config

    def sweep(self, arguments: List[str]) -> Any:
        from sweep.conductor.conduct import conduct
        from sweep.search.grid import cells_of

        assert self.hydra_context is not None and self.config is not None
        loader, config = self.hydra_context.config_loader, self.config

        def compose(overrides: List[str]) -> DictConfig:
            whole = loader.load_sweep_config(config, overrides)
            return OmegaConf.masked_copy(whole, [key for key in whole if key != "hydra"])

        return conduct(cells_of(arguments, compose, loader))


ConfigStore.instance().store(group="hydra/sweeper", name="lora_sweep", provider="lora_sweep",
                             node={"_target_": "hydra_plugins.lora_sweep.sweeper.ConductorSweeper"})
