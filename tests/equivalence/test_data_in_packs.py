"""Contracts 1 and 2 with all that data can vary: what one trial draws of photos and captions touches no other."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweep.files import read_jsonl
from sweep.trial import PackSpec, trial_folder
from tests.equivalence.packs import Killed, files_of, killed_at_write, losses_of, pack_of
from tests.equivalence.photos import EVERYTHING_DRAWN


def cells(project: Path) -> dict[str, dict[str, Any]]:
    """Flips, crops, dropout of captions and tags, masks, regularisation images and a validation split, of which each
    trial has others; and one plain trial beside them."""
    return {
        "drawn": {"seed": 1, "num_steps": 5, "batch_size": 2, "dataset": EVERYTHING_DRAWN},
        "masked": {"seed": 2, "num_steps": 5, "text_encoder_lr": 0, "prior_loss_weight": 0.5, "dataset": {
            "masked_loss": "folder", "mask_dir": str(project / "masks"), "flip_aug": True, "enable_bucket": True,
            "validation_split": 0.2}},
        "split": {"seed": 3, "num_steps": 5, "gradient_accumulation_steps": 2, "dataset": {
            "reg_dir": "none", "random_crop": True, "validation_split": 0.4, "caption_dropout_every_n_epochs": 2}},
        "plain": {"seed": 4, "num_steps": 5, "dataset": {"reg_dir": "none"}}}


@pytest.fixture(scope="module")
def together(worker, project, tmp_path_factory) -> tuple[PackSpec, Path, int]:
    """The pack, where it trained, and how many writes that took."""
    results = tmp_path_factory.mktemp("together")
    spec = replace(pack_of(results, project, cells(project)), validate=True)
    with killed_at_write(10**9) as count:
        worker.run(spec)
    assert len(files_of(results)) == 8, [path.read_text() for path in results.glob("trials/*/train.log")]
    return spec, results, count[0]


def test_each_loss_is_that_of_the_trial_alone(worker, project, tmp_path, together) -> None:
    """Also the validation losses of the photos that were split off."""
    spec, results, _ = together
    for name, trial in zip(cells(project), spec.trials, strict=True):
        alone = replace(pack_of(tmp_path / name, project, {name: cells(project)[name]}), validate=True)
        assert alone.trials[0].train_id == trial.train_id
        worker.run(alone)
        packed, solo = losses_of(results, trial), losses_of(tmp_path / name, trial)
        assert len(solo) == 5 and packed == pytest.approx(solo, rel=1e-4), name
        packed, solo = validation_of(results, trial), validation_of(tmp_path / name, trial)
        assert packed == pytest.approx(solo, rel=1e-4), name
        assert bool(solo) == (name in ("masked", "split")), name


def validation_of(results: Path, trial: Any) -> list[float]:
    rows = read_jsonl(trial_folder(results, trial.train_id).metrics)
    return [row["loss"] for row in rows if row["kind"] == "validation"]


@pytest.mark.parametrize("share", [0.35, 0.6, 0.85])
def test_killed_and_run_again_gives_the_same_files(worker, project, tmp_path, together, share: float) -> None:
    """The first kill is within the filling of the cache."""
    _, results, num_writes = together
    spec = replace(pack_of(tmp_path, project, cells(project)), validate=True)
    with pytest.raises(Killed), killed_at_write(int(num_writes * share)):
        worker.run(spec)
    worker.run(spec)
    assert files_of(tmp_path) == files_of(results)
