"""What may be said of a setting, of a front, and of the photos that attract images."""

import dataclasses
import random

import pytest

from sweep.claims import BETTER, TIE, UNKNOWN, WORSE, compare_settings
from sweep.errors import ScoringError
from sweep.evaluation.copy_report import ranking
from sweep.pareto import pareto_front
from sweep.trial import AXES, Estimate, Score
from tests.unit.evaluation.evaluation_examples import images


def score(usefulness, prompts=None, scoring_id="s", **axes):
    values = {**dict.fromkeys(AXES, usefulness), **axes}
    estimates = {name: Estimate(value=value, low=None, high=None, raw=value, n=8) for name, value in values.items()}
    return Score(score_id="x", scoring_id=scoring_id, file="a", file_sha256="a", epoch=1, step=1, strength=1.0,
                 stage="confirm", num_images=8, axes=estimates, details={}, verdict="good", notes=(), elapsed_s=0,
                 replicates=prompts or {str(p): usefulness for p in range(16)})


def trained(rng, mean, num_seeds, seed_spread=0.06, prompt_spread=0.1):
    """Final scores of one setting: its trainings differ by their seed, and its prompts by themselves."""
    scores = []
    for _ in range(num_seeds):
        worth = rng.gauss(mean, seed_spread)
        prompts = [worth + rng.gauss(0, prompt_spread) for _ in range(16)]
        total = sum(prompts)
        scores.append(score(total / 16, {str(p): (total - x) / 15 for p, x in enumerate(prompts)}))
    return scores


@pytest.mark.parametrize("num_seeds", [2, 3, 5])
def test_settings_that_differ_by_their_seed_alone_are_tied_in_nine_of_ten_pairs(num_seeds):
    rng = random.Random(num_seeds)
    claims = [compare_settings(trained(rng, 0.6, num_seeds), trained(rng, 0.6, num_seeds), names=("a", "b"))
              for _ in range(400)]
    assert sum(claim.outcome == TIE for claim in claims) >= 0.9 * 400


def test_a_real_difference_is_found_with_enough_seeds():
    rng = random.Random(0)
    found = [compare_settings(trained(rng, 0.75, 4), trained(rng, 0.5, 4), names=("dim 32", "dim 8"))
             for _ in range(50)]
    assert sum(claim.outcome == BETTER for claim in found) >= 45
    assert "dim 32 is better than dim 8 over 4 and 4 training seeds" in found[0].words
    assert compare_settings(trained(rng, 0.2, 4), trained(rng, 0.9, 4), names=("a", "b")).outcome == WORSE


def test_one_seed_supports_no_claim_about_a_setting():
    claim = compare_settings([score(0.9)], [score(0.1), score(0.1)], names=("dim 32", "dim 8"))
    assert claim.outcome == UNKNOWN and claim.words.startswith("exploratory: dim 32 was trained with fewer than 2")


def test_a_score_without_its_prompts_supports_no_claim():
    whole, other = [score(0.9), score(0.91)], [score(0.1), score(0.11)]
    assert compare_settings(whole, other, names=("dim 32", "dim 8")).outcome == BETTER
    for kept in ({}, {"0": 0.9, "1": 0.9}):
        lacking = [whole[0], dataclasses.replace(whole[1], replicates=kept)]
        claim = compare_settings(lacking, other, names=("dim 32", "dim 8"))
        assert claim.outcome == UNKNOWN and claim.low is None and "what the prompts do is not known" in claim.words
    invalid = dataclasses.replace(score(None), replicates={})
    assert compare_settings([*whole, invalid], other, names=("dim 32", "dim 8")).num_seeds == (2, 2)
    assert compare_settings([*whole, invalid], other, names=("dim 32", "dim 8")).outcome == BETTER


def test_scores_of_two_scorings_are_never_compared():
    with pytest.raises(ScoringError, match="never compared"):
        compare_settings([score(0.9)] * 2, [score(0.1, scoring_id="t")] * 2, names=("a", "b"))
    with pytest.raises(ValueError, match="never compared"):
        pareto_front([score(0.9), score(0.1, scoring_id="t")])


def test_the_front_holds_what_nothing_beats_in_every_way():
    scores = [score(0.5, likeness=0.9, adherence=0.4, memorisation=0.1),
              score(0.5, likeness=0.4, adherence=0.9, memorisation=0.1),
              score(0.5, likeness=0.4, adherence=0.4, memorisation=0.1),  # beaten by both
              score(0.5, likeness=0.4, adherence=0.4, memorisation=0.0),  # but this one copies least
              score(None)]
    assert pareto_front(scores) == [0, 1, 3]


def test_photos_are_ranked_by_the_copies_that_they_attract():
    near = images("screen", lambda _: 0.5, 0.9, nearest=0.5).images
    from dataclasses import replace

    rows = [replace(near[0], nearest_photo=3, nearest=0.5), replace(near[1], nearest_photo=3, nearest=0.6),
            replace(near[2], nearest_photo=1, nearest=0.01), replace(near[3], nearest_photo=7, is_broken=True)]
    assert [(a.photo, a.num_nearest, a.num_copies) for a in ranking(rows, 0.125)] == [(1, 1, 1), (3, 2, 0)]
