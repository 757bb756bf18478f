"""What takes minutes: that training works, and contract 1 at the end of a training. `.venv/bin/pytest -m slow -n 0`"""

import csv
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow

COMMON = ("max_train_steps=600", "save_every_n_epochs=1000", "unet_lr=5e-4", "text_encoder_lr=2.5e-4", "network_dim=16",
          "tracker=none", "scoring.choice.strengths=[1.0]", "launcher.devices=1")


def rows(results: Path, name: str, *arguments: str) -> list[dict[str, str]]:
    done = subprocess.run([sys.executable, "train.py", *arguments, *COMMON, f"sweep.results_dir={results}",
                           f"sweep.name={name}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with (results / name / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_trial_is_as_useful_in_a_pack_as_alone(tmp_path: Path) -> None:
    """Rounding differs, so the files do; usefulness must agree within a fifth of its spread over seeds."""
    packed = rows(tmp_path / "packed", "seeds", "-m", "seed=1,2,3,4")
    assert all(float(row["likeness_low"]) > 0.2 for row in packed), "training makes the subject"
    values = [float(row["usefulness"]) for row in packed]
    [alone] = rows(tmp_path / "alone", "one", "seed=1")
    assert abs(float(alone["usefulness"]) - values[0]) <= statistics.stdev(values) / 5
