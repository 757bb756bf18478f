"""LoRAs of which it is known what is wrong with them get the verdict that says so. `.venv/bin/pytest -m slow -n 0`"""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow

# One file each, at one strength: a sweep's choice would avoid what is to be seen here.
COMMON = ("save_every_n_epochs=1000", "launcher.devices=1", "launcher.threads=1", "tracker=none", "sweep.name=one")
AT_ONE, TOO_STRONG = "scoring.choice.strengths=[1.0]", "scoring.choice.strengths=[3.5]"
RECIPES = {
    "underfit": ["network_dim=32", "unet_lr=1e-4", "text_encoder_lr=0", "scheduler=cosine", "max_train_steps=1200",
                 "dataset.num_images=14", AT_ONE],
    "good": ["network_dim=128", "max_train_steps=1000", AT_ONE],
    # What overtraining does is planted: the good training's weights, three and a half times as far from the base. A
    # rate ten times too high ends by luck as overtrained (6 of 10 in results/pocket), mildly overfit or broken.
    "overtrained": ["network_dim=128", "max_train_steps=1000", TOO_STRONG],
    "memorised": ["network_dim=128", "unet_lr=1e-3", "text_encoder_lr=1e-4", "max_train_steps=1200",
                  "dataset.num_images=4", "dataset.captions=false", AT_ONE],
}


@pytest.mark.parametrize("verdict", RECIPES)
def test_a_known_recipe_gets_its_verdict(verdict: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "train.py", *RECIPES[verdict], *COMMON, f"sweep.results_dir={tmp_path}"],
                          cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "one" / "trials.csv").open() as file:
        [row] = csv.DictReader(file)
    assert row["verdict"].startswith(verdict), row
