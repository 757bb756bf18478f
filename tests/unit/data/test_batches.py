import json
from collections import Counter
from pathlib import Path

import pytest
import torch

from sweep.data.batches import BatchPlan, TrainData
from sweep.data.folder import Photo
from sweep.data.selection import matched
from tests.conftest import dataset_config

CASES = json.loads((Path(__file__).parents[2] / "assets/kohya/steps.json").read_text())
# "odd" has photos of shapes that the file does not say
SQUARE = [case for case in CASES if case["train"] != "odd" and case["max_train_epochs"]]


def photos(folder: str) -> list[Photo]:
    """"t14x10": 14 photos with 10 repeats; "r100": 100 with 1."""
    count, _, repeats = folder[1:].partition("x")
    return [Photo(path=Path(f"{i:04d}.png"), caption="", repeats=int(repeats or 1), subset=folder, sha256=str(i),
                  size=(512, 512)) for i in range(int(count))]


@pytest.mark.parametrize("case", SQUARE, ids=lambda case: "-".join(map(str, [case["train"], case["reg"],
                                                                             case["batch"], *case["extra"]])))
def test_step_counts_are_sd_scripts(case: dict) -> None:
    train = photos(case["train"])
    reg = matched(photos(case["reg"]) if case["reg"] else [], sum(photo.repeats for photo in train))
    assert len(reg) == case["reg_images_registered"]
    assert {str(k): v for k, v in Counter(photo.repeats for photo in reg).items()} == case["reg_repeats_hist"]
    if reg:
        assert [reg[0].path.name, reg[-1].path.name] == case["reg_first_last"]
    plan = BatchPlan(tuple(photo.repeats for photo in [*train, *reg]), case["batch"], 1,
                     case["gradient_accumulation_steps"])
    assert plan.batches_per_epoch == case["batches_per_epoch"]
    assert plan.num_steps(case["max_train_epochs"], None) == case["total_steps"]
    sizes = Counter(len(plan.photos_at(batch)) for batch in range(plan.batches_per_epoch))
    assert {str(k): v for k, v in sizes.items()} == case["batch_size_hist"]


def test_accumulation_counts_updates() -> None:
    plan = BatchPlan((40,) * 15, 1, 1, accumulation=4)
    assert plan.num_steps(2, None) == 300


def test_updates_hold_every_batch_once_and_never_cross_an_epochs_end() -> None:
    plan = BatchPlan((3, 4), 1, 1, accumulation=3)  # 7 batches: 3 + 3 + 1
    updates = [list(plan.batches_at(step)) for step in range(6)]
    assert updates == [[0, 1, 2], [3, 4, 5], [6], [7, 8, 9], [10, 11, 12], [13]]


def test_accumulation_changes_no_batch() -> None:
    alone, added_up = BatchPlan((5,) * 3, 2, 1), BatchPlan((5,) * 3, 2, 1, accumulation=4)
    assert [alone.photos_at(i) for i in range(16)] == [added_up.photos_at(i) for i in range(16)]


def test_an_epoch_shows_each_photo_its_repeats() -> None:
    plan = BatchPlan(repeats=(3, 1, 2), batch_size=4, seed=1)
    batches = [plan.photos_at(batch) for batch in range(plan.batches_per_epoch)]
    assert [len(batch) for batch in batches] == [4, 2]
    assert Counter(i for batch in batches for i in batch) == {0: 3, 1: 1, 2: 2}


def test_batches_are_of_one_bucket_and_buckets_are_mixed() -> None:
    buckets = (0, 1, 0, 2, 1, 0, 0)
    plan = BatchPlan((10,) * 7, 4, seed=3, buckets=buckets)
    batches = [plan.photos_at(batch) for batch in range(plan.batches_per_epoch)]
    assert len(batches) == 10 + 5 + 3  # 40, 20 and 10 photos in fours
    assert all(len({buckets[i] for i in batch}) == 1 for batch in batches)
    assert Counter(i for batch in batches for i in batch) == dict.fromkeys(range(7), 10)
    order = [buckets[batch[0]] for batch in batches]
    assert order != sorted(order)


ODD = [case for case in CASES if case["train"] == "odd"]
UNTIL_A_STEP = [case for case in CASES if not case["max_train_epochs"] and case["extra"]]


@pytest.mark.parametrize("case", ODD, ids=lambda case: "-".join(map(str, [case["batch"], *case["extra"]])))
def test_step_counts_with_buckets_are_sd_scripts(case: dict) -> None:
    """Seven photos of 10 repeats; with buckets six shapes, of which one has two photos."""
    buckets = (0, 1, 2, 3, 4, 5, 5) if "--enable_bucket" in case["extra"] else ()
    plan = BatchPlan((10,) * 7, case["batch"], 1, buckets=buckets)
    assert plan.batches_per_epoch == case["batches_per_epoch"]
    assert plan.num_steps(case["max_train_epochs"], None) == case["total_steps"]
    sizes = Counter(len(plan.photos_at(batch)) for batch in range(plan.batches_per_epoch))
    assert {str(k): v for k, v in sizes.items()} == case["batch_size_hist"]


@pytest.mark.parametrize("case", UNTIL_A_STEP, ids=lambda case: case["extra"][0])
def test_a_number_of_steps_ends_within_sd_scripts_epoch(case: dict) -> None:
    repeats = tuple(photo.repeats for photo in photos(case["train"]))
    plan = BatchPlan(repeats, case["batch"], 1, case["gradient_accumulation_steps"])
    steps = plan.num_steps(1, int(case["extra"][0].split("=")[1]))
    assert steps == case["total_steps"]
    assert (steps - 1) // plan.steps_per_epoch + 1 == case["num_epochs"]


def test_order_depends_on_seed_and_epoch_alone() -> None:
    plan = BatchPlan(repeats=(10,) * 8, batch_size=1, seed=1)
    epoch = [plan.photos_at(batch) for batch in range(80)]
    assert epoch == [BatchPlan(repeats=(10,) * 8, batch_size=1, seed=1).photos_at(batch) for batch in range(80)]
    assert epoch != [plan.photos_at(batch) for batch in range(80, 160)]
    assert epoch != [BatchPlan(repeats=(10,) * 8, batch_size=1, seed=2).photos_at(batch) for batch in range(80)]


def test_max_steps_overrides_epochs() -> None:
    assert BatchPlan((10,) * 14, 1, 1).num_steps(12, 500) == 500


def data(**changes) -> TrainData:
    moments = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 8, 2, 2)
    values = {"moments_NMHW": moments, "captions": ("a, b, c", "d, e, f"), "plan": BatchPlan((4, 4), 2, 1)}
    return TrainData(**{**values, **changes})


def test_one_view_of_a_photo_is_drawn_per_row() -> None:
    drawn = data(views=((0, 1), (2, 3)))
    batches = [drawn.batches_at(step)[0] for step in range(40)]
    seen = Counter(int(row[0, 0, 0]) for batch in batches for row in batch.moments_BMHW)
    assert all(10 <= seen[view] <= 30 for view in range(4))
    again = [data(views=((0, 1), (2, 3))).batches_at(step)[0] for step in reversed(range(40))]
    assert all(torch.equal(a.moments_BMHW, b.moments_BMHW) for a, b in zip(batches, reversed(again), strict=True))


def test_captions_are_a_function_of_seed_and_batch() -> None:
    config = dataset_config(shuffle_caption=True)
    whole = [data(drawing=config).batches_at(step)[0].captions for step in range(12)]
    resumed = [data(drawing=config).batches_at(step)[0].captions for step in range(6, 12)]
    assert whole[6:] == resumed
    assert len({caption for row in whole for caption in row}) > 6
    other = data(drawing=config, plan=BatchPlan((4, 4), 2, 2))
    assert whole != [other.batches_at(step)[0].captions for step in range(12)]


def test_every_second_epoch_has_no_captions() -> None:
    drawn = data(drawing=dataset_config(caption_dropout_every_n_epochs=2))
    empty = [set(drawn.batches_at(step)[0].captions) == {""} for step in range(16)]
    assert empty == [False] * 4 + [True] * 4 + [False] * 4 + [True] * 4


def test_rows_bring_their_weights() -> None:
    batch = data(loss_weights=(1.0, 0.5), plan=BatchPlan((1, 1), 2, 1)).batches_at(0)[0]
    assert sorted(batch.loss_weights_B.tolist()) == [0.5, 1.0]
    assert data().batches_at(0)[0].loss_weights_B.tolist() == [1.0, 1.0]
    assert data().batches_at(0)[0].masks_B1HW is None
