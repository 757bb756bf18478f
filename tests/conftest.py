"""What many tests start from: the pocket base, its layers, and small folders of photos."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# Before anything loads torch, and whatever the shell says: two test processes share the cores, and threads that wait
# for each other are slower (measured: 135 s for 24 s).
os.environ["OMP_NUM_THREADS"] = "1"

ROOT = Path(__file__).parent.parent
CLUSTERS = {"postgres": "needs PostgreSQL's initdb; run with: .venv/bin/pytest -m postgres -n 0",
            "ray": "needs Ray; run with: .venv/bin/pytest -m ray -n 0",
            "slurm": "needs a SLURM of this machine, tests/clusters/slurm.sh; run with: .venv/bin/pytest -m slurm -n 0"}


def pytest_configure(config: pytest.Config) -> None:
    for name, text in CLUSTERS.items():
        config.addinivalue_line("markers", f"{name}: {text}")


@pytest.fixture(scope="session")
def base():
    """The pocket base on the CPU in fp32."""
    from sweep.identity import base_identity
    from sweep.model.base import BaseModelConfig
    from sweep.model.loading import load_base

    config = BaseModelConfig(name="pocket", path=None, resolution=64)
    return load_base(config, base_identity(config, Path("results")))


@pytest.fixture(scope="session")
def targets(base):
    from sweep.network.targets import find_targets

    return find_targets(base)


def dataset_config(**changes):
    """The settings of conf/dataset/folder.yaml with changes."""
    import yaml

    from sweep.data.settings import DatasetConfig
    from sweep.schema import build

    defaults = yaml.safe_load((ROOT / "conf" / "dataset" / "folder.yaml").read_text(encoding="utf-8"))
    return build(DatasetConfig, {**defaults, **changes})


@pytest.fixture
def photo_folder(tmp_path: Path) -> Path:
    """Four captioned 64-pixel photos in `10_alexq man`."""
    return make_photos(tmp_path / "photos", num_photos=4)


def make_photos(root: Path, *, num_photos: int, subset: str = "10_alexq man", captioned: bool = True) -> Path:
    """Distinct small pictures; returns the dataset's folder."""
    import numpy as np
    from PIL import Image

    folder = root / subset
    folder.mkdir(parents=True)
    for i in range(num_photos):
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC).save(folder / f"{i:03d}.png")
        if captioned:
            (folder / f"{i:03d}.txt").write_text(f"photo of alexq man, picture {i}\n")
    return root


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `python train.py ...` or `python evaluate.py ...` from the repository, as a user does."""

    def run(*arguments: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True,
                              timeout=timeout_s)

    return run
