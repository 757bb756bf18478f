import json
from collections import Counter
from pathlib import Path

import pytest

from sweep.data.batches import BatchPlan, num_steps, steps_per_epoch

CASES = [case for case in json.loads((Path(__file__).parents[2] / "assets/kohya/steps.json").read_text())
         if case["reg"] is None and not case["extra"] and case["max_train_epochs"] and case["train"] != "odd"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['train']}-b{case['batch']}")
def test_step_counts_are_sd_scripts(case: dict) -> None:
    num_photos, repeats = map(int, case["train"][1:].split("x"))
    all_repeats = [repeats] * num_photos
    assert steps_per_epoch(all_repeats, case["batch"]) == case["batches_per_epoch"]
    assert num_steps(all_repeats, case["batch"], case["max_train_epochs"], None) == case["total_steps"]


def test_an_epoch_shows_each_photo_its_repeats() -> None:
    plan = BatchPlan(repeats=(3, 1, 2), batch_size=4, seed=1)
    batches = [plan.photos_at(step) for step in range(plan.steps_per_epoch)]
    assert [len(batch) for batch in batches] == [4, 2]
    assert Counter(i for batch in batches for i in batch) == {0: 3, 1: 1, 2: 2}


def test_order_depends_on_seed_and_epoch_alone() -> None:
    plan = BatchPlan(repeats=(10,) * 8, batch_size=1, seed=1)
    epoch = [plan.photos_at(step) for step in range(80)]
    assert epoch == [BatchPlan(repeats=(10,) * 8, batch_size=1, seed=1).photos_at(step) for step in range(80)]
    assert epoch != [plan.photos_at(step) for step in range(80, 160)]
    assert epoch != [BatchPlan(repeats=(10,) * 8, batch_size=1, seed=2).photos_at(step) for step in range(80)]


def test_max_steps_overrides_epochs() -> None:
    assert num_steps([10] * 14, 1, 12, 500) == 500
