"""The pocket world's subject as a user's folder of photos."""

import shutil
from pathlib import Path

import pytest

from sweep.pocket import SUBJECT_DIR


@pytest.fixture
def subject(tmp_path: Path) -> Path:
    """A copy that a test may spoil: 25 captioned photos in `10_alexq man`."""
    return Path(shutil.copytree(SUBJECT_DIR / "train", tmp_path / "photos")) / "10_alexq man"
