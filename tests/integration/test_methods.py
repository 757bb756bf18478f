"""One command trains, scores and names files of all three methods; another ranks these files."""

import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sweep.network.file_kinds import KIND_OF_METHOD, kind_of_file
from tests.conftest import ROOT
from tests.integration.test_sweep import SMALL, rows_of, train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    results = tmp_path_factory.mktemp("results")
    run = train("-m", "method=lora,dreambooth,textual_inversion", f"sweep.results_dir={results}", "sweep.name=methods",
                *SMALL)
    assert run.returncode == 0, run.stdout + run.stderr
    return results


def files_of(results: Path) -> dict[str, Path]:
    """The file to use, by method."""
    return {row["method"]: results / "trials" / row["identity"] / "checkpoints" / row["file"]
            for row in rows_of(results / "methods")}


def test_each_method_leaves_its_kind_of_file_scored(finished: Path) -> None:
    rows = rows_of(finished / "methods")
    assert [(row["status"], row["steps"]) for row in rows] == [("done", "12")] * 3
    assert all(row["verdict"] and row["usefulness"] for row in rows)
    assert {method: kind_of_file(file) for method, file in files_of(finished).items()} == KIND_OF_METHOD
    diary = (finished / "methods" / "diary.md").read_text()
    assert "method = dreambooth, unet_lr = 5e-6, text_encoder_lr = 0" in diary, "the rates that it brings"
    assert "a whole checkpoint to choose as the model" in diary and "stands for the trigger" in diary


def test_a_killed_training_goes_on_to_the_same_files(finished: Path, tmp_path: Path) -> None:
    """The pack's log and state are a LoRA's; so is the way back."""
    arguments = ["-m", "method=dreambooth,textual_inversion", f"sweep.results_dir={tmp_path}", "sweep.name=k",
                 "scoring=none", "pack.save_state_every_n_steps=4",
                 *(setting for setting in SMALL if not setting.startswith("scoring."))]
    killed = subprocess.Popen([sys.executable, "train.py", *arguments], cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("trials/*/state/step-00000004*")):
        assert time.monotonic() < deadline and killed.poll() is None
        time.sleep(0.05)
    killed.kill()
    killed.wait()
    run = train(*arguments)
    assert run.returncode == 0, run.stdout + run.stderr
    whole = files_of(finished)
    rows = rows_of(tmp_path / "k")
    assert {row["method"] for row in rows} == {"dreambooth", "textual_inversion"}
    for row in rows:
        again = tmp_path / "trials" / row["identity"] / "checkpoints"
        files = {path.name: path.read_bytes() for path in again.glob("*.safetensors")}
        assert len(files) == 2
        assert files == {path.name: path.read_bytes() for path in whole[row["method"]].parent.glob("*.safetensors")}


def test_their_files_are_ranked_together(finished: Path, tmp_path: Path) -> None:
    for method, file in files_of(finished).items():
        (tmp_path / f"{method}.safetensors").write_bytes(file.read_bytes())
    run = subprocess.run(
        [sys.executable, "evaluate.py", f"lora={tmp_path}", f"results_dir={tmp_path / 'results'}", "threads=1",
         "dataset.num_images=4", *(setting for setting in SMALL if setting.startswith("scoring."))],
        cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    [folder] = (tmp_path / "results").glob("evaluate-*")
    with (folder / "table.csv").open() as table:
        assert {row["file"] for row in csv.DictReader(table)} == {f"{method}.safetensors" for method in KIND_OF_METHOD}
    assert json.loads((folder / "answer.json").read_text())["kind"] in KIND_OF_METHOD.values()
