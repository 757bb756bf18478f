"""Likeness by framing: what fails from afar is said, what only differs by chance is not."""

import json

import pytest

from sweep.errors import ConfigError, ScoringError
from sweep.evaluation.keys import measuring_id, scoring_id
from sweep.evaluation.score import judge
from sweep.evaluation.settings import ScoringConfig
from sweep.framings import framing_words
from sweep.schema import build
from sweep.trial import Score
from tests.unit.evaluation.evaluation_examples import CEILING, FLOOR, SCORING, TREE, anchors, images, real_photos

HALF = FLOOR + (CEILING - FLOOR) / 2
FAR = {i for i, prompt in enumerate(SCORING.prompts) if prompt.framing == "portrait"}


def score_of(judgement) -> Score:
    return Score(score_id="a", scoring_id="s", file="a", file_sha256="", epoch=1, step=1, strength=1.0, stage="confirm",
                 num_images=8, axes=judgement.axes, details=judgement.details, verdict=judgement.verdict,
                 notes=judgement.notes, elapsed_s=0, replicates={})


def reframed(**framings) -> ScoringConfig:
    """The shipped prompts with other framings, by index; None takes one away."""
    prompts = [{**prompt, "framing": framings.get(f"p{i}", prompt.get("framing"))}
               for i, prompt in enumerate(TREE["prompts"])]
    return build(ScoringConfig, {**TREE, "prompts": prompts}, "scoring")


def test_a_face_that_fails_in_portraits_is_said_with_its_figures():
    judged = judge(images("confirm", lambda i: HALF if i in FAR else CEILING, 0.9), anchors(), SCORING, "confirm")
    assert judged.details["likeness_portrait"] == pytest.approx(0.5, abs=0.05)
    assert judged.details["likeness_close_up"] == pytest.approx(1, abs=0.05)
    [note] = [note for note in judged.notes if "less like the subject" in note]
    assert "in portrait pictures: likeness 0.5" in note and "elsewhere 1.0" in note
    words = framing_words(score_of(judged))
    assert words.startswith("likeness by framing: close-up 1.0") and ", portrait 0.5" in words
    json.dumps(judged.details, allow_nan=False)


def test_equal_likeness_and_a_difference_within_the_noise_are_no_failure():
    for face in (lambda _: CEILING, lambda i: CEILING if i % 3 else HALF):
        judged = judge(images("confirm", face, 0.9), anchors(), SCORING, "confirm")
        assert "likeness_portrait_low" in judged.details
        assert not [note for note in judged.notes if "less like the subject" in note]


def test_what_does_not_count_for_likeness_is_told_by_its_framing_all_the_same():
    """The sunglasses prompt taken for a wide one: its likeness is known, the axis is as it was."""
    index = next(i for i, prompt in enumerate(TREE["prompts"]) if not prompt["face"])
    wide = reframed(**{f"p{index}": "far away"})
    measured = images("screen", lambda i: FLOOR if i == index else CEILING, 0.9)
    plain, judged = (judge(measured, anchors(), scoring, "screen") for scoring in (SCORING, wide))
    assert judged.details["likeness_far_away"] == pytest.approx(0, abs=0.1)
    assert judged.details["likeness_far_away_low"] is None, "one prompt has no interval"
    assert judged.axes == plain.axes and "likeness_far_away" not in plain.details


def test_one_framing_alone_or_an_invalid_likeness_tells_nothing():
    alike = reframed(**{f"p{i}": "portrait" for i in range(len(TREE["prompts"]))})
    judged = [judge(images("confirm", lambda _: CEILING, 0.9), anchors(), alike, "confirm"),
              judge(images("confirm", lambda _: CEILING, 0.9), anchors(real=real_photos(num_faces=0)), SCORING,
                    "confirm")]
    assert not [name for each in judged for name in each.details if name.startswith("likeness_portrait")]


def test_framings_alter_no_key_and_are_checked():
    """Scores that were stored before prompts had framings stay comparable: no figure depends on them."""
    bare = build(ScoringConfig, {**TREE, "prompts": [{k: v for k, v in prompt.items() if k != "framing"}
                                                     for prompt in TREE["prompts"]]}, "scoring")
    assert bare.prompts[0].framing is None and SCORING.prompts[0].framing == "close-up"
    assert scoring_id(bare, "b", 64, {}, "p") == scoring_id(SCORING, "b", 64, {}, "p")
    assert measuring_id(bare, "b", 64, {}) == measuring_id(SCORING, "b", 64, {})
    with pytest.raises((ConfigError, ScoringError), match=r'prompts\[0\].framing = .closeup. .*mean "close-up"'):
        reframed(p0="closeup")
