"""Each family's miniature as a folder and as a checkpoint file, written once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.miniatures import VOCABULARY, write_checkpoint, write_folder

FAMILIES = ("sd1", "sd2", "sdxl")


@pytest.fixture(autouse=True, scope="session")
def missing_operators() -> None:
    """What transformers asks of torchvision is declared where it is not installed."""
    from sweep.model.torchvision_ops import declare_missing_operators

    declare_missing_operators()


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("miniatures")
    return {family: write_folder(root / family, family) for family in FAMILIES}


@pytest.fixture(scope="session")
def files(folders, tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    return {family: write_checkpoint(root / f"{family}.safetensors", folders[family], family) for family in FAMILIES}


@pytest.fixture(scope="session")
def load():
    """Loads a base from a path, under base_model=file unless told otherwise."""
    from sweep.model.loading import load_base

    def loaded(path: Path, *, dtype=None, **changes):
        return load_base(config(path, **changes), "identity", "cpu", dtype)

    return loaded


def config(given: Path | None, **changes):
    """base_model=file base_model.path=PATH."""
    from sweep.model.base import PretrainedConfig

    values = {"name": "file", "path": None if given is None else str(given), "resolution": 64, "download": False,
              "vae": None, "tokenizer": str(VOCABULARY), "prediction_type": None}
    return PretrainedConfig(**{**values, **changes})
