from sweep.packing import plan_packs
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
    assert numbers(plan_packs(trials, 8)) == [[1, 4, 3, 2]]


def test_equal_networks_stand_together() -> None:
    trials = [trial(1), trial(2, network="lokr"), trial(3), trial(4, dim=100), trial(5, network="lokr")]
    assert numbers(plan_packs(trials, 8)) == [[2, 5, 1, 3, 4]]


def test_other_bases_are_other_packs() -> None:
    trials = [trial(1), trial(2, base="sd15"), trial(3)]
    assert sorted(numbers(plan_packs(trials, 8))) == [[1, 3], [2]]


def test_other_readings_of_a_caption_are_other_packs() -> None:
    trials = [trial(1), trial(2, clip_skip=2), trial(3)]
    assert sorted(numbers(plan_packs(trials, 8))) == [[1, 3], [2]]


def test_no_worker_is_idle_while_trials_wait() -> None:
    trials = [trial(i) for i in range(1, 8)]
    assert [len(pack) for pack in plan_packs(trials[:3], 8, num_workers=2)] == [1, 2]
    assert [len(pack) for pack in plan_packs(trials, 8, num_workers=2)] == [3, 4]
    assert [len(pack) for pack in plan_packs(trials[:1], 8, num_workers=2)] == [1]
    interrupted = [["t1", "t2", "t3"]]
    assert numbers(plan_packs(trials[:3], 8, interrupted, num_workers=2)) == [[1, 2, 3]], "a resume repeats its packs"


def test_packs_are_even() -> None:
    assert [len(pack) for pack in plan_packs([trial(i) for i in range(1, 10)], 8)] == [4, 5]


def test_what_trained_together_stays_together() -> None:
    trials = [trial(i) for i in range(1, 7)]
    packs = numbers(plan_packs(trials, 3, earlier=[["t2", "t5", "t99"]]))
    assert [2, 5] in packs
    assert sorted(n for pack in packs for n in pack) == [1, 2, 3, 4, 5, 6]


def test_a_trial_that_several_earlier_packs_name_is_run_once() -> None:
    """After 1 left, the logs of 2 and 3 say {2, 3}; 1's still says {1, 2, 3}."""
    trials = [trial(i) for i in range(1, 4)]
    earlier = [["t2", "t3"], ["t1", "t2", "t3"], ["t3"]]
    assert numbers(plan_packs(trials, 8, earlier)) == [[1, 2, 3]]


def test_an_earlier_pack_that_was_too_large_is_split() -> None:
    trials = [trial(i) for i in range(1, 4)]
    assert numbers(plan_packs(trials, 1, earlier=[["t1", "t2", "t3"]])) == [[1], [2], [3]]
