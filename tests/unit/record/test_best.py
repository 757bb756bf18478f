from dataclasses import replace

from record_examples import result, score

from sweep.limits import breach, excess
from sweep.record.best import best_results, choices_of, limits_words, on_front
from sweep.trial import FAILED


def test_clear_winner_has_no_ties() -> None:
    good, poor = result(1, (0.8, 0.75, 0.85)), result(2, (0.4, 0.35, 0.45))
    assert best_results([poor, good]) == (good, [])


def test_a_difference_inside_its_interval_is_a_tie() -> None:
    a, b, c = result(1, (0.7, 0.6, 0.8)), result(2, (0.65, 0.55, 0.75)), result(3, (0.3, 0.2, 0.4))
    assert best_results([a, b, c]) == (a, [b])


def test_trials_that_swing_together_over_the_prompts_are_told_apart() -> None:
    """Their intervals overlap; on every prompt the one is better by as much."""
    a, b = result(1, (0.75, 0.55, 0.95), pattern=3), result(2, (0.60, 0.40, 0.80), pattern=3)
    assert best_results([b, a]) == (a, [])
    assert choices_of([b, a]) == ["", "best"]


def test_a_noisy_high_mean_does_not_lead_but_ties() -> None:
    noisy, sure = result(1, (0.72, 0.3, 1.0)), result(2, (0.7, 0.68, 0.72))
    assert best_results([noisy, sure]) == (sure, [noisy])


def test_failed_and_invalid_trials_are_never_chosen() -> None:
    assert best_results([result(1, status=FAILED), result(2, None), result(3, is_scored=False)]) == (None, [])


def test_scores_of_other_anchors_are_not_compared() -> None:
    ours = [result(1, (0.5, 0.4, 0.6)), result(2, (0.2, 0.1, 0.3))]
    other = result(3, (0.9, 0.88, 0.92), scoring_id="s2")
    assert best_results([other, *ours]) == (ours[0], [])


def test_the_front_is_of_all_axes_and_of_compared_trials_alone() -> None:
    trials = [result(1, (0.5, 0.4, 0.6), likeness=0.9, adherence=0.5, memorisation=0.3),
              result(2, (0.5, 0.4, 0.6), likeness=0.8, adherence=0.5, memorisation=0.0),  # copies less than the first
              result(3, (0.5, 0.4, 0.6), likeness=0.7, adherence=0.4, memorisation=0.0),
              result(4, None), result(5, (0.9, 0.8, 1.0), scoring_id="s2")]
    assert [r.trial.number for r in on_front(trials)] == [1, 2]


def test_the_file_is_named_among_trials_within_the_limits_where_there_are_some() -> None:
    best, second = result(1, (0.9, 0.88, 0.92)), result(2, (0.5, 0.4, 0.6))
    best = replace(best, breach="memorisation 0.62 with search.max_memorisation=0.5")
    assert best_results([best, second]) == (second, []) and choices_of([best, second]) == ["", "best"]
    assert limits_words([best, second]).startswith("Left out, as it breaks a limit: trial 1, memorisation 0.62 with")
    poor = replace(second, breach="memorisation 0.70 with search.max_memorisation=0.5")
    assert best_results([best, poor])[0] == best and limits_words([best, poor]).startswith("Every trial breaks a limit")
    assert limits_words([second]) == ""


def test_what_breaks_a_limit() -> None:
    measured = score((0.8, 0.7, 0.9), memorisation=0.62, diversity=0.4)
    assert breach({"max_memorisation": 0.62, "min_diversity": 0.4}, measured) == ""
    assert breach({"max_memorisation": 0.5, "min_diversity": 0.5}, measured) == (
        "memorisation 0.62 with search.max_memorisation=0.5 and diversity 0.40 with search.min_diversity=0.5")
    assert excess({"max_memorisation": 0.5}, {"memorisation": None}) == {}, "what can't be known breaks nothing"
