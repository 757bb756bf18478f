"""The file that is named, and the sentence that says why."""

import math

from sweep.evaluation.choice import are_tied, best_of, cautious, reason
from sweep.trial import Estimate, Score


def score(epoch, usefulness, half_width=0.1, verdict="good", strength=1.0, file=None):
    estimate = Estimate(value=None, low=None, high=None, raw=None, n=8, reason="no faces")
    if usefulness is not None:
        estimate = Estimate(value=usefulness, low=usefulness - half_width, high=usefulness + half_width, raw=usefulness,
                            n=8)
    return Score(score_id=f"{epoch}{strength}", scoring_id="s", file=file or f"a-{epoch:06d}.safetensors",
                 file_sha256="0", epoch=epoch, step=epoch * 100, strength=strength, stage="screen", num_images=8,
                 axes={"usefulness": estimate}, details={}, verdict=verdict, notes=(), elapsed_s=0)


def replicates(center, spread):
    return {p: center + spread * (-1) ** p for p in range(8)}


def test_a_lucky_wide_score_does_not_beat_a_sure_one():
    assert best_of([score(1, 0.62, 0.4), score(2, 0.60, 0.02)]) == [1]
    assert cautious(score(1, None).axes["usefulness"]) == -math.inf


def test_paired_differences_tell_apart_what_intervals_do_not():
    """Both vary a lot over the prompts, but together."""
    a, b = score(1, 0.60, 0.2), score(2, 0.50, 0.2)
    assert not are_tied(a, replicates(0.60, 0.03), b, replicates(0.50, 0.03))
    assert are_tied(a, replicates(0.60, 0.03), b, replicates(0.50, -0.03))


def test_the_sentence_names_ties_and_where_it_goes_wrong():
    scores = [score(1, 0.2, verdict="underfit"), *(score(e, 0.6) for e in (2, 3, 4)),
              score(5, 0.3, verdict="overtrained"), score(6, 0.2, verdict="memorised")]
    reps = [replicates(s.axes["usefulness"].value, 0.001) for s in scores]
    text = reason(score(3, 0.61, strength=0.8), scores, reps, tied_strengths=[0.8], is_confirmed=True)
    assert text == "epoch 3 at 0.8; epochs 2 to 4 cannot be told apart; from epoch 5 on: overtrained"


def test_without_fresh_seeds_the_sentence_says_so():
    scores = [score(1, 0.2), score(2, 0.6)]
    reps = [replicates(s.axes["usefulness"].value, 0.001) for s in scores]
    text = reason(score(2, 0.6), scores, reps, tied_strengths=[1.0, 0.8], is_confirmed=False)
    assert text == ("epoch 2 at 1; strengths 0.8, 1 cannot be told apart; chosen and measured on the same images, so "
                    "its score is optimistic")


def test_files_of_several_trainings_go_by_name():
    scores = [score(1, 0.6, file="x.safetensors"), score(1, 0.6, file="y.safetensors")]
    reps = [replicates(0.6, 0.001)] * 2
    text = reason(scores[0], scores, reps, tied_strengths=[1.0], is_confirmed=True)
    assert text == "x at 1; x and y cannot be told apart"


def test_nothing_valid_is_said():
    text = reason(score(2, None), [score(1, None), score(2, None)], [{}, {}], tied_strengths=[], is_confirmed=True)
    assert "epoch 2 at 1, the last one: no file can be preferred" in text
