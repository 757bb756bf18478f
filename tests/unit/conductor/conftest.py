"""What the tests of the conductor share."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweep.trial import TrialResult
from tests.stand_in import StandIn, run_sweep
from tests.unit.conductor.conductor_examples import Sweeper


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in's training takes no time, so nothing is waited for."""
    monkeypatch.setattr("sweep.conductor.dispatch.POLL_S", 0.01)


@pytest.fixture
def sweep(tmp_path: Path) -> Sweeper:
    """Runs a sweep in `tmp_path` as `train.py -m` would, with a stand-in for training."""

    def run(*arguments: str, stand_in: StandIn | None = None) -> list[TrialResult]:
        lines = [f"sweep.results_dir={tmp_path}", "sweep.name=s", "dataset.num_images=4", "launcher.devices=1",
                 *arguments]
        if not any(argument.startswith("tracker=") for argument in arguments):
            lines.append("tracker=none")
        launcher = stand_in or StandIn()
        return run_sweep(lines, lambda config, folder: launcher)

    return run
