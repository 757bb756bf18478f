"""The study of the choice: what counts as found, and what it cost."""

import dataclasses

import pytest

from studies.choice import grid_scoring, num_images_of, outcome
from studies.image_pool import shipped
from sweep.errors import ScoringError
from sweep.evaluation.cells import cells_of
from sweep.trial import Answer, Estimate, Score, Trial
from tests.conftest import dataset_config

TRIAL = Trial(number=1, train_id="a", settings={"network_dim": 8}, config={}, num_steps=10)


def score(file, strength, value, *, stage="screen", num_images=32):
    axis = Estimate(value=value, low=None if value is None else value - 0.05,
                    high=None if value is None else value + 0.05, raw=value, n=16)
    return Score(score_id=f"{file}{strength}{stage}", scoring_id="s", file=file, file_sha256=file, epoch=0, step=1,
                 strength=strength, stage=stage, num_images=num_images, axes={"usefulness": axis}, details={},
                 replicates={str(p): (value or 0) + 0.01 * (-1) ** p for p in range(16)}, verdict="good", notes=(),
                 elapsed_s=1.0)


def answer(file, strength):
    return Answer(file=file, epoch=0, step=1, strength=strength, score=score(file, strength, 0.9, stage="confirm"),
                  reason="")


def test_found_is_what_the_grid_puts_inside_the_interval_of_its_best():
    grid = [score("a", 1.0, 0.70), score("a", 0.6, 0.67), score("b", 1.0, 0.60), score("b", 0.6, None)]
    near = outcome(TRIAL, answer("a", 0.6), grid, 30)
    assert near.is_within and near.best == "step 1 at 1" and near.best_low == pytest.approx(0.65)
    assert near.share == 30 / 128
    far = outcome(TRIAL, answer("b", 1.0), grid, 30)
    assert not far.is_within and far.chosen_usefulness == 0.60
    with pytest.raises(ScoringError, match="b at 0.6 has no valid usefulness"):
        outcome(TRIAL, answer("b", 0.6), grid, 30)


def test_an_image_that_several_rounds_use_counts_once():
    drawn = [score("a", 1.0, 0.5, num_images=8), score("a", 1.0, 0.5, stage="refine", num_images=16),
             score("b", 1.0, 0.5, num_images=8), score("b", 0.6, 0.5, stage="refine", num_images=8),
             score("a", 1.0, 0.5, stage="confirm", num_images=29)]
    assert num_images_of(drawn) == 16 + 8 + 8 + 29


def test_the_grid_judges_on_noise_that_played_no_part_in_the_choice():
    from sweep.data.folder import read_dataset

    dataset = read_dataset(dataset_config(num_images=6), trigger=None, class_noun=None, repeats=None)
    scoring, grid = shipped(), grid_scoring(shipped(), 2)
    chosen = {cell.key for stage in ("screen", "refine", "confirm") for cell in cells_of(scoring, stage, dataset)}
    judged = cells_of(grid, "screen", dataset)
    assert len(judged) == 32 and not chosen & {cell.key for cell in judged}
    assert dataclasses.replace(grid, screen=scoring.screen) == scoring
