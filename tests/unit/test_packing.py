from dataclasses import replace

from sweep.packing import bank_order, can_share, places, plan_packs
from sweep.trial import Trial


def trial(number: int, *, dim: int = 8, base: str = "pocket", optimizer: str = "adamw", batch: int = 1,
          network: str = "lora", clip_skip: int = 1) -> Trial:
    config = {"base_model": {"name": base}, "mixed_precision": "no", "clip_skip": clip_skip, "max_token_length": 75,
              "network_dim": dim, "network": {"name": network, "preset": "full"}, "conv_dim": None, "unet_lr": 1e-4,
              "text_encoder_lr": 0.0, "optimizer": {"name": optimizer}, "train_batch_size": batch}
    return Trial(number=number, train_id=f"t{number}", settings={}, config=config, num_steps=10)


def numbers(packs: list[list[Trial]]) -> list[list[int]]:
    return [[t.number for t in pack] for pack in packs]


def test_equal_ranks_stand_together() -> None:
    trials = [trial(1, dim=8), trial(2, dim=32), trial(3, dim=8, optimizer="adamw8bit"), trial(4, dim=8)]
    assert [one.number for one in sorted(trials, key=bank_order)] == [1, 4, 3, 2]
    assert numbers(plan_packs(trials)) == [[1, 2, 3, 4]], "who starts first is the conductor's choice"


def test_equal_networks_stand_together() -> None:
    trials = [trial(1), trial(2, network="lokr"), trial(3), trial(4, dim=100), trial(5, network="lokr")]
    assert [one.number for one in sorted(trials, key=bank_order)] == [2, 5, 1, 3, 4]


def test_other_bases_are_other_packs() -> None:
    trials = [trial(1), trial(2, base="sd15"), trial(3)]
    assert sorted(numbers(plan_packs(trials))) == [[1, 3], [2]]


def test_other_readings_of_a_caption_are_other_packs() -> None:
    trials = [trial(1), trial(2, clip_skip=2), trial(3)]
    assert sorted(numbers(plan_packs(trials))) == [[1, 3], [2]]


def test_other_methods_are_other_packs() -> None:
    """A trial of whole weights takes a base's memory; one of an older version trains a LoRA."""
    def of(number: int, **method: object) -> Trial:
        one = trial(number)
        return replace(one, config={**one.config, "method": method})

    trials = [trial(1), of(2, name="dreambooth"), of(3, name="lora"), of(4, name="textual_inversion", num_vectors=2),
              of(5, name="textual_inversion", num_vectors=4), of(6, name="textual_inversion", num_vectors=2)]
    assert sorted(numbers(plan_packs(trials))) == [[1, 3], [2], [4, 5, 6]]
    assert [one.number for one in sorted(trials[3:], key=bank_order)] == [4, 6, 5], "of one structure side by side"


def test_one_worker_gets_one_pack_whose_trials_wait_for_a_place() -> None:
    nine = [trial(i) for i in range(1, 10)]
    assert numbers(plan_packs(nine)) == [[*range(1, 10)]]
    assert [places(nine, most) for most in (8, 9, 16, 4, 1, None)] == [5, 9, 9, 3, 1, None]


def test_places_are_kept_full_where_trials_end_at_different_times() -> None:
    assert places([trial(1), replace(trial(2), num_steps=20), trial(3)], 2) == 2


def test_workers_get_as_many_steps_each() -> None:
    lengths = [60, 10, 10, 20, 10, 10]
    trials = [replace(trial(i), num_steps=steps) for i, steps in enumerate(lengths, start=1)]
    packs = plan_packs(trials, num_workers=2)
    assert [sum(one.num_steps for one in pack) for pack in packs] == [60, 60]
    assert [len(pack) for pack in plan_packs(trials[:2], num_workers=3)] == [1, 1], "a worker too many gets nothing"


def test_workers_get_as_much_work_each_and_equal_ranks_stay_together() -> None:
    """The steps of a rank of 128 cost more than twice those of 4: even numbers of trials would not end together."""
    dims = (4, 8, 16, 32, 64, 128)
    trials = [trial(number, dim=dim) for number, dim in enumerate([*dims, *dims], start=1)]
    packs = plan_packs(trials, num_workers=2)
    assert [sorted(one.config["network_dim"] for one in pack) for pack in packs] == [
        [4, 4, 8, 8, 16, 16, 32], [32, 64, 64, 128, 128]]


def test_scoring_is_work_that_knows_no_rank() -> None:
    """Of a grid with as many trials of 4, of 32 and of 128, one worker had 8 to score and the other 16."""
    trials = [replace(trial(number, dim=dim), num_steps=1200) for number, dim in enumerate([4, 32, 128] * 8, start=1)]
    six = {one.train_id: 6 for one in trials}
    assert sorted(map(len, plan_packs(trials, num_workers=2))) == [8, 16]
    assert sorted(map(len, plan_packs(trials, num_workers=2, num_scored=six))) == [10, 14]


def test_no_worker_stays_without_a_trial() -> None:
    trials = [replace(trial(i), num_steps=steps) for i, steps in enumerate([1, 100, 1], start=1)]
    assert sorted(map(len, plan_packs(trials, num_workers=3))) == [1, 1, 1]


def test_what_trained_together_stays_together() -> None:
    trials = [trial(i) for i in range(1, 7)]
    packs = numbers(plan_packs(trials, earlier=[["t5", "t2", "t99"]]))
    assert packs == [[1, 3, 4, 6], [5, 2]], "in its own order: a resume repeats it"


def test_a_trial_that_several_earlier_packs_name_is_run_once() -> None:
    """After 1 left, the logs of 2 and 3 say {2, 3}; 1's still says {1, 2, 3}."""
    trials = [trial(i) for i in range(1, 4)]
    earlier = [["t2", "t3"], ["t1", "t2", "t3"], ["t3"]]
    assert numbers(plan_packs(trials, earlier)) == [[1, 2, 3]]


def test_who_can_share_a_pass() -> None:
    assert can_share(trial(1), trial(2, dim=64, optimizer="prodigy", batch=4))
    assert not can_share(trial(1), trial(2, clip_skip=2)) and not can_share(trial(1), trial(2, base="sd15"))
