"""The file that is named, and the sentence that says why."""

from dataclasses import replace

from sweep.evaluation.choice import best_of, reason
from sweep.trial import Estimate, Score


def score(epoch, usefulness, spread=0.001, verdict="good", strength=1.0, file=None):
    """spread: of the replicates, which swing with the prompts."""
    estimate = Estimate(value=usefulness, low=None, high=None, raw=usefulness, n=8)
    return Score(score_id=f"{epoch}{strength}", scoring_id="s", file=file or f"a-{epoch:06d}.safetensors",
                 file_sha256=str(epoch), epoch=epoch, step=epoch * 100, strength=strength, stage="screen",
                 num_images=8, axes={"usefulness": estimate}, details={}, verdict=verdict, notes=(), elapsed_s=0,
                 replicates={} if usefulness is None else {str(p): usefulness + spread * (-1) ** p for p in range(8)})


def test_a_lucky_wide_score_does_not_beat_a_sure_one():
    assert best_of([score(1, 0.62, 0.04), score(2, 0.60, 0.002), score(3, None)], 3) == [1, 0, 2]


def test_the_sentence_names_ties_and_where_it_goes_wrong():
    scores = [score(1, 0.2, verdict="underfit"), *(score(e, 0.6) for e in (2, 3, 4)),
              score(5, 0.3, verdict="overtrained"), score(6, 0.2, verdict="memorised")]
    text = reason(score(3, 0.61, strength=0.8), scores, tied_arms=[score(3, 0.61, strength=0.8)], num_confirmed=1)
    assert text == "epoch 3 at 0.8; epochs 2 to 4 cannot be told apart; from epoch 5 on: overtrained"


def test_the_best_of_several_on_fresh_images_is_said_to_lean_high():
    scores = [score(1, 0.2), score(2, 0.6)]
    assert reason(score(2, 0.6), scores, tied_arms=[score(2, 0.6)], num_confirmed=3) == (
        "epoch 2 at 1; the best of 3 on fresh images, so its own figure leans a little high")


def test_files_of_several_trainings_do_not_go_too_far_one_after_the_other():
    scores = [score(1, 0.6), score(1, 0.3, verdict="overtrained", file="other.safetensors")]
    assert "overtrained" not in reason(scores[0], scores, tied_arms=scores[:1], num_confirmed=1)


def test_without_fresh_seeds_the_sentence_says_so():
    scores = [score(1, 0.2), score(2, 0.6)]
    text = reason(score(2, 0.6), scores, tied_arms=[score(2, 0.6), score(2, 0.6, strength=0.8)], num_confirmed=0)
    assert text == ("epoch 2 at 1; strengths 0.8, 1 cannot be told apart; chosen and measured on the same images, so "
                    "its score is optimistic")


def test_files_of_several_trainings_go_by_name():
    scores = [score(0, 0.6, file="x.safetensors"), score(0, 0.6, file="y.safetensors")]
    text = reason(scores[0], scores, tied_arms=scores[:1], num_confirmed=1)
    assert text == "x at 1; x and y cannot be told apart"


def test_nothing_valid_is_said():
    text = reason(score(2, None), [score(1, None), score(2, None)], tied_arms=[], num_confirmed=1)
    assert "epoch 2 at 1, the last one: no file can be preferred" in text


def test_guidance_is_named_where_it_is_not_the_samplers_own():
    less, least, own = (replace(score(2, 0.6, strength=0.8), guidance_scale=scale) for scale in (5.0, 3.0, None))
    text = reason(less, [score(1, 0.2), score(2, 0.6)], tied_arms=[less, own, least], num_confirmed=1)
    assert text == ("epoch 2 at 0.8 and guidance 5; strengths 0.8, 0.8 and guidance 3, 0.8 and guidance 5 cannot be "
                    "told apart")
