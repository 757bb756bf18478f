"""What a conductor costs per trial: time that stays flat, memory, and a plan that starts at once."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT

# Runs a grid of argv[1] trials with a stand-in for training, scored as argv[3] says; says ms and kB per trial.
GRID = """
import resource, sys, time
from pathlib import Path
import psutil
from tests.stand_in import StandIn, run_sweep

num_trials, folder, scoring = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
marks = []

class Marking(StandIn):
    most_kb = 0.0

    def _checkpoint(self, pack, trial):
        marks.append(time.process_time())
        if len(marks) % 100 == 0:  # while it conducts; the views that are written at the end are the record's
            self.most_kb = max(self.most_kb, memory_kb())
        super()._checkpoint(pack, trial)

def memory_kb():
    return psutil.Process().memory_info().rss / 1024

def run(num, name):
    launcher = Marking(num_checkpoints=1, is_gradual=True)
    run_sweep([f"sweep.results_dir={folder}", f"sweep.name={name}", "tracker=none", f"scoring={scoring}",
               "launcher.devices=1",
               "dataset.num_images=4", "unet_lr=1e-5,2e-5,5e-5,1e-4,2e-4", "network_dim=4,8", "pack.max_trials=10",
               f"seed=range({num // 10})"], lambda config, folder: launcher)
    return launcher.most_kb

run(10, "warm-up")
before_kb, started, wall = memory_kb(), time.process_time(), time.perf_counter()
marks.clear()
most_kb = run(num_trials, "whole")
whole_s, wall_s = time.process_time() - started, time.perf_counter() - wall
per = len(marks) // 10
early, late = marks[per] - marks[0], marks[-1] - marks[-1 - per]
record_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # with the record at the end
print("RESULT", 1000 * whole_s / num_trials, late / early, (most_kb - before_kb) / num_trials,
      (record_kb - before_kb) / num_trials, 1000 * wall_s / num_trials, file=sys.stderr)
"""


def measured(num_trials: int, folder: Path, scoring: str) -> tuple[float, float, float, float]:
    """(ms of one core per trial, time of the last tenth over the first's, kB per trial while it conducts, and with the
    record that is written at the end). Time on the clock, which other programs take part of, is said only."""
    run = subprocess.run([sys.executable, "-c", GRID, str(num_trials), str(folder), scoring], cwd=ROOT,
                         capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    ms, ratio, kb, record_kb, wall_ms = map(float, run.stderr.rsplit("RESULT", 1)[1].split())
    print(f"{num_trials} trials, scoring={scoring}: {ms:.1f} ms of one core each ({wall_ms:.1f} ms on the clock), last "
          f"tenth {ratio:.2f} of the first, {kb:.1f} kB each, {record_kb:.1f} kB with the record")
    return ms, ratio, kb, record_kb


@pytest.mark.parametrize("scoring", ["none", "pocket"])
def test_a_trial_costs_little(tmp_path: Path, scoring: str) -> None:
    ms, ratio, *_ = measured(300, tmp_path, scoring)
    assert ms <= 20
    assert ratio < 3


@pytest.mark.slow
@pytest.mark.parametrize("scoring", ["none", "pocket"])
def test_ten_thousand_trials(tmp_path: Path, scoring: str) -> None:
    ms, ratio, kb, record_kb = measured(10_000, tmp_path, scoring)
    assert ms <= 20 and ratio < 1.5 and kb <= 20
    assert record_kb <= 20, "the views at the end hold every score of every trial"


def test_a_plan_of_a_thousand_cells_loads_no_torch_and_takes_seconds(tmp_path: Path) -> None:
    code = ("import runpy, sys\nsys.argv = ['train.py', *sys.argv[1:]]\n"
            "try:\n  runpy.run_path('train.py', run_name='__main__')\n"
            "except SystemExit as end:\n  assert not end.code, end.code\n"
            "assert not {'torch', 'optuna'} & set(sys.modules)")
    before_s = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    started = time.perf_counter()
    run = subprocess.run([sys.executable, "-c", code, "-m", "network_dim=range(1,11)",
                          "unet_lr=1e-5,2e-5,3e-5,4e-5,5e-5", "seed=range(20)", "plan=true",
                          f"sweep.results_dir={tmp_path}"], cwd=ROOT, capture_output=True, text=True)
    wall_s = time.perf_counter() - started
    assert run.returncode == 0, run.stderr
    assert "1000 trials" in run.stdout and "LoRA files" in run.stdout
    spent_s = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before_s
    assert min(wall_s, spent_s) < 5, f"{wall_s:.1f} s"
