"""The scalar rewards neither an untrained nor an overfitted LoRA."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweep.config import compose
from sweep.evaluation.usefulness import usefulness
from tests.unit.evaluation.evaluation_examples import SCORING

W = SCORING.weights
unit = st.floats(0, 1)


def test_underfit_example_of_scores_md():
    """A LoRA that does next to nothing: its arithmetic mean is .78, its usefulness .32."""
    likeness, adherence, diversity, memorisation = 0.1, 1.0, 1.0, 0.0
    assert (likeness + adherence + diversity + 1 - memorisation) / 4 == pytest.approx(0.78, abs=0.006)
    assert usefulness(likeness, adherence, diversity, memorisation, 0, W) == pytest.approx(0.32, abs=0.005)


def test_good_beats_overfit_beats_underfit():
    good = usefulness(0.85, 0.9, 0.9, 0.05, 0, W)
    overfit = usefulness(0.95, 0.5, 0.5, 0.15, 0, W)
    underfit = usefulness(0.1, 1.0, 1.0, 0.0, 0, W)
    assert good > 0.8 > 0.6 > overfit > underfit


@given(unit, unit, unit, unit, unit, unit)
def test_more_of_what_is_wanted_is_never_worse(likeness, adherence, diversity, memorisation, bleed, step):
    at = usefulness(likeness, adherence, diversity, memorisation, bleed, W)
    assert 0 <= at <= 1
    assert usefulness(likeness + step, adherence, diversity, memorisation, bleed, W) >= at
    assert usefulness(likeness, adherence + step, diversity, memorisation, bleed, W) >= at
    assert usefulness(likeness, adherence, diversity + step, memorisation, bleed, W) >= at
    assert usefulness(likeness, adherence, diversity, min(memorisation + step, 1), bleed, W) <= at
    assert usefulness(likeness, adherence, diversity, memorisation, min(bleed + step, 1), W) <= at


def test_full_memorisation_is_useless_and_full_bleed_costs_a_fifth():
    assert usefulness(1, 1, 1, 1, 0, W) == 0
    assert usefulness(1, 1, 1, 0, 1, W) == pytest.approx(0.8)


@pytest.mark.parametrize("scoring", ["pocket", "person", "animal", "object", "style"])
def test_it_never_pays_to_learn_less_of_the_subject(scoring):
    """Without class images bleed grows with likeness, here in proportion until all men are the subject."""
    weights = compose([f"scoring={scoring}"]).scoring.weights
    for bleed_per_likeness in (1.0, 1.35, 2.0):
        likeness = [i / 100 for i in range(1, 101)]
        useful = [usefulness(one, 1, 1, 0, min(bleed_per_likeness * one, 1), weights) for one in likeness]
        assert useful == sorted(useful)


@given(unit)
def test_without_diversity_the_other_two_share_its_weight(value):
    assert usefulness(value, value, None, 0, 0, W) == pytest.approx(usefulness(value, value, value, 0, 0, W))
