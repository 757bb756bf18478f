"""The same seed gives the same file: whatever threads did the data work, in whatever order a folder lists its files and
processes come."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sweep.files import write_json
from sweep.trial import to_json
from sweep.worker.process import Worker
from tests.conftest import ROOT
from tests.equivalence.packs import files_of, pack_of
from tests.equivalence.photos import EVERYTHING_DRAWN, make_project


def cells(project: Path) -> dict[str, dict[str, Any]]:
    """With text encoder and without, so that text states are both made anew and cached; all that data can be."""
    return {"drawn": {"seed": 1, "num_steps": 4, "batch_size": 2, "dataset": EVERYTHING_DRAWN},
            "masked": {"seed": 2, "num_steps": 4, "batch_size": 3, "text_encoder_lr": 0,
                       "gradient_accumulation_steps": 2, "dataset": {
                           "enable_bucket": True, "num_buckets": 2, "flip_aug": True, "masked_loss": "folder",
                           "mask_dir": str(project / "masks"), "validation_split": 0.2, "reg_dir": "none",
                           "generate_reg": 10, "reg_num_steps": 2}}}


def trained(worker: Worker, results: Path, project: Path) -> dict[str, bytes]:
    worker.run(pack_of(results, project, cells(project)))
    files = files_of(results)
    assert len(files) == 4, [path.read_text() for path in results.glob("trials/*/train.log")]
    return files


@pytest.fixture(scope="module")
def files(worker, project, tmp_path_factory) -> dict[str, bytes]:
    return trained(worker, tmp_path_factory.mktemp("first"), project)


def test_data_work_by_two_threads(worker, project, tmp_path, files) -> None:
    """Latents made with two threads, or long ago, are those that one thread makes on the way. (Training itself and
    the drawing of regularisation images do feel the number of threads, in their last bits.)"""
    photos = cells(project)
    for cell in photos.values():
        cell["num_steps"] = 1
        cell["dataset"] = {**cell["dataset"], "generate_reg": None}
    worker.run(pack_of(tmp_path / "filled", project, photos, threads=2))
    latents = tmp_path / "filled" / "cache" / "latents"
    assert len(list(latents.iterdir())) > 20
    shutil.copytree(latents, tmp_path / "results" / "cache" / "latents")
    assert trained(worker, tmp_path / "results", project) == files


def test_another_folder_that_lists_its_files_in_another_order(worker, tmp_path, files, monkeypatch) -> None:
    def backwards(listing: Callable[..., Any]) -> Callable[..., Any]:
        def listed(*arguments: Any) -> Any:
            return sorted(listing(*arguments), key=str, reverse=True)

        return listed

    project = make_project(tmp_path / "elsewhere", reverse=True)
    for photo in (project / "img").rglob("*.png"):
        os.utime(photo, (1, 1))
    monkeypatch.setattr(Path, "iterdir", backwards(Path.iterdir))
    names = [path.name for path in (project / "masks").iterdir()]
    assert names == sorted(names, reverse=True) and len(names) == 6
    assert trained(worker, tmp_path / "results", project) == files


@pytest.mark.slow
def test_processes_in_another_order_and_at_once(project, tmp_path, files) -> None:
    """Two processes of their own, the last trial's first, with other hash seeds; alone each, so that its pack is its
    own: packs round otherwise, so they are held against packs of one."""
    def specs(results: Path) -> Iterator[Path]:
        for name, cell in cells(project).items():
            path = results / f"{name}.json"
            write_json(path, to_json(pack_of(results, project, {name: cell})))
            yield path

    def start(hash_seed: str, *paths: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", "sweep.worker", *map(str, paths)], cwd=ROOT,
                                env={**os.environ, "PYTHONHASHSEED": hash_seed})

    one, other = tmp_path / "one", tmp_path / "other"
    assert start("1", *specs(one)).wait(timeout=600) == 0
    running = [start(str(i), path) for i, path in enumerate(reversed(list(specs(other))), start=2)]
    assert [process.wait(timeout=600) for process in running] == [0, 0]
    assert files_of(one) == files_of(other)
    assert files_of(one).keys() == files.keys()
