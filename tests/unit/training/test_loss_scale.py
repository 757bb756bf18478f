from sweep.training.loss_scale import FIRST, GOOD_STEPS_TO_GROW, HIGHEST, LOWEST, LossScale


def test_it_halves_on_overflow_and_doubles_after_a_long_good_row() -> None:
    scale = LossScale()
    assert scale.value == FIRST == 65536
    scale.note_overflow()
    assert scale.value == 32768
    for _ in range(GOOD_STEPS_TO_GROW - 1):
        scale.note_good()
    assert scale.value == 32768
    scale.note_good()
    assert (scale.value, scale.num_good) == (65536, 0)


def test_an_overflow_begins_the_row_again() -> None:
    scale = LossScale(num_good=GOOD_STEPS_TO_GROW - 1)
    scale.note_overflow()
    scale.note_good()
    assert (scale.value, scale.num_good) == (FIRST / 2, 1)


def test_it_stays_a_power_of_two_within_its_range() -> None:
    scale = LossScale(value=HIGHEST, num_good=GOOD_STEPS_TO_GROW - 1)
    scale.note_good()
    assert scale.value == HIGHEST
    num_halvings = 0
    while not scale.is_exhausted:
        scale.note_overflow()
        num_halvings += 1
    assert scale.value == LOWEST / 2 and num_halvings == 35
