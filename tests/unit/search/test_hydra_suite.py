"""Hydra's own suite for sweeps, over our reading of the command line.

The suite knows sweepers that call a task function with each job's config and leave a folder per job. Our conductor
trains in other processes and leaves a record, so a small sweeper stands between: cells as we read them, run by Hydra's
own launcher. What can't apply:
- BatchedSweeperTestSuite: asks for hydra.sweeper.max_batch_size; a conductor that is told results as they come has no
  batches.
- IntegrationTestSuite: checks hydra.job.*, hydra.sweep.dir and the working directory of jobs; ours has neither jobs in
  its process nor folders of Hydra's, and doesn't change the directory.
- ConfigSourceTestSuite: asks a ConfigSource, which finds and reads config files, about a tree of files of its own; ours
  is Hydra's own file source, so the suite would test Hydra.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import hydra.version
import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.test_utils.launcher_common_tests import LauncherTestSuite
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

import hydra_plugins
from sweep.search.axes import read_axes
from sweep.search.grid import override_lists


class CellsSweeper(Sweeper):
    """Our cells, run by the launcher that Hydra's config names."""

    def __init__(self) -> None:
        self.launcher: Launcher | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.hydra_context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(hydra_context=hydra_context,
                                                                task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> Any:
        assert self.launcher is not None
        cells = override_lists(read_axes(arguments, self.hydra_context.config_loader))
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        return [self.launcher.launch(cells, initial_job_idx=0)]


CellsSweeper.__module__ = "hydra_plugins.cells"  # Hydra takes plugins from nowhere else


@pytest.fixture(autouse=True)
def cells_sweeper(hydra_restore_singletons: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hydra.version.setbase("1.1")  # the suite's own: its jobs change into their folders
    monkeypatch.setitem(sys.modules, "hydra_plugins.cells", sys.modules[__name__])
    monkeypatch.setattr(hydra_plugins, "cells", sys.modules[__name__], raising=False)
    Plugins.instance().register(CellsSweeper)
    ConfigStore.instance().store(group="hydra/sweeper", name="cells", provider="tests",
                                 node={"_target_": f"{CellsSweeper.__module__}.{CellsSweeper.__qualname__}"})


@pytest.mark.parametrize(("launcher_name", "overrides"), [("basic", ["hydra/sweeper=cells"])])
class TestCells(LauncherTestSuite):
    pass
