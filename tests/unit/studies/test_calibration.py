"""The calibration study on few prompts; the study itself says more, with more."""

import pytest
import torch

from studies import calibration
from studies.planted import COPIES, asked_for, person, strangers, swapped, truth, words_of
from sweep.pocket.world import ATTRIBUTES

IDENTITY = 31


@pytest.fixture(scope="module")
def subject(base, tmp_path_factory):
    scoring = calibration.study_scoring(prompts="screen", num_seeds=1)
    return truth(base, scoring, IDENTITY, tmp_path_factory.mktemp("calibration"))


def test_what_a_prompt_says_is_shown(subject) -> None:
    shots = asked_for(subject.cells, person(IDENTITY, len(subject.cells)), seed=0)
    for row, cell in enumerate(subject.cells):
        said = words_of(cell.class_text)
        assert said and all(ATTRIBUTES[name][int(getattr(shots, name)[row])] == value for name, value in said.items())
    other = swapped(shots, seed=1)
    assert not (other.hair_colour == shots.hair_colour).any() and not (other.scene == shots.scene).any()
    assert torch.equal(other.pose, shots.pose)


@pytest.fixture(scope="module")
def hooded(base, tmp_path_factory):
    scoring = calibration.study_scoring(prompts="screen", num_seeds=1)
    return truth(base, scoring, IDENTITY, tmp_path_factory.mktemp("hooded"), clothes=calibration.COMMON_CLOTHES)


@pytest.mark.parametrize("case", ["swap", "stranger", "place", "mixture", "adherence", "copies", "burn"])
def test_scores_say_what_is_true(subject, case: str) -> None:
    others = strangers(IDENTITY, 6)
    found = {"swap": lambda: calibration.swap_case(subject),
             "stranger": lambda: calibration.stranger_case(subject, others),
             "place": lambda: calibration.place_case(subject, others),
             "mixture": lambda: calibration.mixture_case(subject, others[:1]),
             "adherence": lambda: calibration.adherence_case(subject),
             "copies": lambda: calibration.copies_case(subject, COPIES),
             "burn": lambda: calibration.burn_case(subject)}[case]()
    assert found.holds, found


def test_what_the_autoencoder_loses_is_told_from_what_the_recogniser_loses(subject) -> None:
    recogniser, both = (calibration.swap_case(subject, ("framing",), undrawn=undrawn).measured
                        for undrawn in (True, False))
    assert recogniser[0] - recogniser[1] < (both[0] - both[1]) / 2


def test_clothes_that_leak_are_ranked(hooded) -> None:
    found = calibration.leak_case(hooded)
    assert found.holds, found


def test_variety_falls_with_repetition(base, tmp_path) -> None:
    subject = truth(base, calibration.study_scoring(prompts="screen", num_seeds=2), IDENTITY, tmp_path)
    found = calibration.diversity_case(subject)
    assert found.holds, found
