"""Known images get the scores and words that they deserve; what can't be known is invalid with a reason."""

import dataclasses
import json

import numpy as np
import pytest

from sweep.comparison import ahead
from sweep.errors import ScoringError
from sweep.evaluation.score import judge
from sweep.evaluation.usefulness import exponents
from sweep.trial import AXES, Score, to_json
from tests.unit.evaluation.evaluation_examples import CEILING, FLOOR, LOOK, SCORING, anchors, images, real_photos

CONFIRMED = SCORING.prompts_of("confirm")


def judged(measured, stage="confirm", **changes):
    judgement = judge(measured, anchors(**changes), SCORING, stage)
    json.dumps({name: to_json(axis) for name, axis in judgement.axes.items()}, allow_nan=False)
    json.dumps([judgement.details, judgement.replicates], allow_nan=False)
    return judgement


def test_the_base_itself_is_at_the_floor_of_likeness_and_the_ceiling_of_adherence():
    scored = judged(images("confirm", lambda _: FLOOR, 0.9))
    assert scored.axes["likeness"].value == pytest.approx(0, abs=0.02)
    assert scored.axes["adherence"].value == pytest.approx(1)
    assert scored.axes["diversity"].value == pytest.approx(1)
    assert scored.verdict == "does not look like the subject"


def test_the_subject_in_what_was_asked_for_is_very_good():
    scored = judged(images("confirm", lambda _: CEILING, 0.9))
    assert scored.axes["likeness"].value == pytest.approx(1, abs=0.02)
    assert scored.axes["usefulness"].value > 0.95
    assert scored.verdict == "very good"
    for axis in scored.axes.values():
        assert axis.low <= axis.value <= axis.high


def test_the_subject_in_nothing_that_was_asked_for_is_overtrained_and_drifts():
    scored = judged(images("confirm", lambda _: CEILING, 0.15, natural_hair=0.8))
    assert scored.verdict == "overtrained"
    assert scored.details["drift_to_natural"] > 0.7
    assert scored.details["probe_hair"] < 0.2


def test_floor_and_ceiling_are_the_base_on_the_same_cells():
    """On other seeds the base may have drawn other faces, other clothes, another distance to the photos."""
    other = {"screen": images("screen", lambda _: 0.5, 0.3), "refine": images("refine", lambda _: 0.5, 0.3),
             "confirm": images("confirm", lambda _: FLOOR, 0.9)}
    scored = judged(images("confirm", lambda _: FLOOR, 0.9), base=other)
    assert scored.axes["likeness"].value == pytest.approx(0, abs=0.001)
    assert scored.axes["adherence"].value == pytest.approx(1, abs=0.001)
    assert scored.details["likeness_floor"] == pytest.approx(FLOOR, abs=0.01)
    assert scored.details["probe_hair"] == pytest.approx(1, abs=0.001)


def test_a_broken_image_takes_the_bases_image_of_its_cell_with_it():
    """One prompt alone has a face that the base draws like the subject's: without it the floor is the others'."""
    def face(index):
        return CEILING if index == CONFIRMED[2] else FLOOR

    base = {stage: images(stage, face, 0.9) for stage in ("screen", "refine", "confirm")}
    whole = judged(images("confirm", face, 0.9), base=base).details["likeness_floor"]
    without = judged(images("confirm", face, 0.9, broken=(CONFIRMED[2],)), base=base).details["likeness_floor"]
    assert without == pytest.approx(FLOOR, abs=0.01) and whole > without + 0.03


def test_replicates_are_usefulness_without_each_prompt():
    scored = judged(images("confirm", lambda i: CEILING if i != CONFIRMED[0] else FLOOR, 0.9))
    assert set(scored.replicates) == {str(i) for i in CONFIRMED}
    assert max(scored.replicates, key=lambda p: scored.replicates[p]) == str(CONFIRMED[0])
    invalid = judged(images("confirm", lambda _: CEILING, 0.9), real=real_photos(num_faces=0, ceiling_faces=()))
    assert invalid.replicates == {}


def test_a_face_that_is_not_found_counts_as_the_floor():
    half = judged(images("confirm", lambda i: CEILING if i % 2 else None, 0.9))
    share = np.mean([i % 2 == 1 for i in CONFIRMED if SCORING.prompts[i].face])
    assert half.axes["likeness"].value == pytest.approx(share, abs=0.05)
    assert half.details["detect_rate"] == pytest.approx(share)
    assert half.details["face_similarity_detected"] == pytest.approx(CEILING, abs=0.02)


def test_copies_are_memorised_whatever_else_is_good():
    scored = judged(images("confirm", lambda _: CEILING, 0.9, nearest=0.06))
    assert scored.axes["memorisation"].value == 1
    assert scored.axes["usefulness"].value == 0
    assert scored.verdict == "memorised"


def test_as_near_to_training_photos_as_unseen_photos_are_is_no_memorisation():
    assert judged(images("confirm", lambda _: CEILING, 0.9, nearest=1.2)).axes["memorisation"].value < 0.02


def test_burnt_images_are_overtrained():
    hot = {**LOOK, "contrast": LOOK["contrast"] * 2, "saturation": LOOK["saturation"] * 2}
    scored = judged(images("confirm", lambda _: CEILING, 0.9, look=hot))
    assert scored.details["burn"] > 1
    assert scored.verdict == "overtrained"


def test_screening_leaves_diversity_out_and_says_so():
    scored = judged(images("screen", lambda _: CEILING, 0.9), "screen")
    assert scored.axes["diversity"].value is None and "two seeds" in scored.axes["diversity"].reason
    assert scored.axes["usefulness"].value > 0.95
    assert any("diversity not measured" in note for note in scored.notes)


@pytest.mark.parametrize(("real", "words"), [
    ({"ceiling_faces": (0.09, 0.12, 0.1)}, "cannot tell your subject"),
    ({"num_faces": 2}, "found on 2 of the photos"),
    ({"num_faces": 0, "ceiling_faces": ()}, "found on 0 of the photos"),
    ({"ceiling_faces": (0.9,)}, "leaves a face on 1 of the photos"),
])
def test_likeness_without_an_anchor_is_invalid_with_its_reason(real, words):
    scored = judged(images("confirm", lambda _: CEILING, 0.9), real=real_photos(**real))
    assert scored.axes["likeness"].value is None and words in scored.axes["likeness"].reason
    assert scored.axes["usefulness"].value is None
    assert scored.verdict == "invalid" and words in scored.notes[0]


def test_a_probe_that_the_base_fails_is_dropped_for_all():
    failing = {stage: images(stage, lambda _: FLOOR, 0.12) for stage in ("screen", "refine", "confirm")}
    scored = judged(images("confirm", lambda _: CEILING, 0.9), base=failing)
    assert scored.details["probe_clothes"] is None
    assert any("dropped the clothes probes" in note for note in scored.notes)


def test_broken_images_make_the_file_invalid_above_five_percent():
    few = judged(images("confirm", lambda _: CEILING, 0.9))
    many = judged(images("confirm", lambda _: CEILING, 0.9, broken=(CONFIRMED[2],)))
    assert few.verdict == "very good"
    assert many.verdict == "invalid" and "6% of the images are broken" in many.notes[0]
    every = judged(images("confirm", lambda _: CEILING, 0.9, broken=tuple(CONFIRMED)))
    assert every.verdict == "invalid" and all(every.axes[axis].value is None for axis in AXES)


def test_anchors_of_another_scoring_are_refused():
    with pytest.raises(ScoringError, match="another prompt set, sampler, backend or base"):
        dataclasses.replace(anchors(), scoring_key="old").check_key("new")


def test_clothes_of_the_training_photos_are_a_leak_and_lower_usefulness():
    scored = judged(images("confirm", lambda _: CEILING, 0.9, context=0.78))
    assert scored.details["leak"] == pytest.approx(0.7, abs=0.02)
    assert scored.axes["memorisation"].value == pytest.approx(0.7, abs=0.02)
    assert "memorised the clothes or the background" in scored.notes
    clean = judged(images("confirm", lambda _: CEILING, 0.9))
    assert clean.details["leak"] == pytest.approx(0, abs=0.02)
    assert clean.axes["usefulness"].value > scored.axes["usefulness"].value + 0.5


def test_photos_without_anything_in_common_cannot_leak_and_it_is_said():
    nothing_shared = real_photos(trained_context=(0.5, 0.51))
    scored = judged(images("confirm", lambda _: CEILING, 0.9, context=0.78), real=nothing_shared)
    assert scored.details["leak"] is None and scored.details["leak_low"] is None
    assert any("leak of clothes and background not measured" in note for note in scored.notes)
    assert scored.verdict == "very good"


def test_a_class_that_looks_like_the_subject_bleeds():
    scored = judged(images("confirm", lambda _: CEILING, 0.9, class_face=0.6))
    assert scored.details["bleed"] == pytest.approx(0.5 / 0.8, abs=0.02)
    assert scored.details["bleed_low"] < scored.details["bleed"] < scored.details["bleed_high"]
    assert "bleeds into the class" in scored.notes and scored.verdict == "good"
    clean = judged(images("confirm", lambda _: CEILING, 0.9))
    assert clean.axes["usefulness"].value * (1 - SCORING.weights.bleed * scored.details["bleed"]) == pytest.approx(
        scored.axes["usefulness"].value)


def test_a_subject_that_its_trigger_alone_does_not_draw_is_told():
    """Described it is the subject; for the bare trigger a stranger comes, as for the base."""
    strangers = (FLOOR + 0.02, FLOOR + 0.04, FLOOR + 0.02, None)
    scored = judged(images("confirm", lambda _: CEILING, 0.9, bare_faces=strangers))
    assert scored.details["likeness_bare"] == pytest.approx(0.02 / 0.8, abs=0.001)
    assert scored.details["likeness_bare_low"] < 0.02 < scored.details["likeness_bare_high"] < 0.1
    [note] = [note for note in scored.notes if "does not answer to its trigger alone" in note]
    assert "likeness 0.02 (0.00 to 0.05) there, 1.00 on the prompts; put it into a sentence" in note


@pytest.mark.parametrize(("face", "bare_faces"), [
    (CEILING, (CEILING, CEILING - 0.02, CEILING - 0.1, CEILING)),  # it answers
    (CEILING, (FLOOR, CEILING, FLOOR, FLOOR)),                     # may be
    (CEILING, (FLOOR, FLOOR)),                                     # two images: no interval
    (FLOOR, (FLOOR,) * 4)])                                        # nowhere the subject: the verdict says so
def test_nothing_is_said_of_the_trigger_where_it_is_not_sure(face, bare_faces):
    scored = judged(images("confirm", lambda _: face, 0.9, bare_faces=bare_faces))
    assert "likeness_bare" in scored.details and not any("its trigger alone" in note for note in scored.notes)


def test_a_stage_that_draws_no_bare_trigger_says_nothing_of_it():
    assert "likeness_bare" not in judged(images("screen", lambda _: CEILING, 0.9), "screen").details


def test_a_stage_without_class_prompts_says_that_bleed_is_not_known():
    scored = judged(images("screen", lambda _: CEILING, 0.9), "screen")
    assert "bleed" not in scored.details and any("bleed into the class not measured" in n for n in scored.notes)


def test_usefulness_of_a_file_that_copies_is_as_unsure_as_its_rate_of_copies():
    drawn = images("refine", lambda _: 0.7, 0.9)
    some = tuple(dataclasses.replace(m, nearest=0.01) if i < 5 else m for i, m in enumerate(drawn.images))
    axes = judge(dataclasses.replace(drawn, images=some), anchors(), SCORING, "refine").axes
    clean = judge(drawn, anchors(), SCORING, "refine").axes["usefulness"]
    assert axes["memorisation"].value == 1.0 and axes["usefulness"].value == 0.0
    assert axes["memorisation"].low < 0.7, "5 copies of 16 images may come from one in eight"
    assert 0.3 * clean.value < axes["usefulness"].high < clean.value


def copying(num, stage="refine"):
    """Of 16 images so many are copies; mostly none comes near a photo."""
    drawn = images(stage, lambda _: 0.7, 0.9, nearest=1.7)  # further than unseen photos, which balances the copies
    return dataclasses.replace(drawn, images=tuple(dataclasses.replace(m, nearest=0.01) if i < num else m
                                                   for i, m in enumerate(drawn.images)))


def scored_as(judgement):
    return Score(score_id="x", scoring_id="s", file="a", file_sha256="0", epoch=1, step=1, strength=1.0, stage="refine",
                 num_images=16, axes=judgement.axes, details={}, replicates=judgement.replicates, verdict="", notes=(),
                 elapsed_s=0, margins=judgement.margins)


def test_a_few_copies_decide_nothing_between_two_files():
    """M is 1 from 4 copies of 16 on, and leaving a prompt out never changes that; 5 may come from one in eight."""
    copies = scored_as(judge(copying(5), anchors(), SCORING, "refine"))
    clean = scored_as(judge(images("refine", lambda _: 0.7, 0.9), anchors(), SCORING, "refine"))
    assert copies.margins[0] == 0 < copies.margins[1] and clean.margins == pytest.approx((0, 0), abs=1e-6)
    lead = ahead([(clean, copies)])
    value = clean.axes["usefulness"].value
    assert lead.low < value - copies.axes["usefulness"].high + 0.02, "as far as its interval says"
    assert lead.high == pytest.approx(value + ahead([(clean, clean)]).high, abs=0.05)


def test_whether_a_file_copies_is_unsure_by_the_number_of_images():
    some = judge(copying(5), anchors(), SCORING, "refine")
    assert some.verdict == "memorised" and any("may also be" in note for note in some.notes)
    for stage in ("screen", "refine"):
        clean = judge(images(stage, lambda _: 0.7, 0.9), anchors(), SCORING, stage)
        assert not any("may also be" in note and "memorised" in note for note in clean.notes)
    most = judge(copying(14), anchors(), SCORING, "refine")
    assert most.verdict == "memorised" and not any("may also be" in note for note in most.notes)


@pytest.mark.parametrize("context", [0.846, 0.85, 0.854])
def test_the_interval_of_memorisation_holds_it_also_where_a_leak_is_only_just_measured(context):
    """Decided anew without each prompt, the leak came and went with the prompts, and M lay outside its own interval."""
    base = {stage: images(stage, lambda _: FLOOR, 0.9, context=context) for stage in ("screen", "refine", "confirm")}
    axis = judged(images("confirm", lambda _: CEILING, 0.9, context=0.88), base=base).axes["memorisation"]
    assert axis.low is None or axis.low <= axis.value <= axis.high


def test_a_class_without_the_bases_faces_is_measured_from_its_other_prompts():
    base = {stage: images(stage, lambda _: FLOOR, 0.9) for stage in ("screen", "refine", "confirm")}
    faceless = [dataclasses.replace(m, face=None) if m.kind == "class" else m for m in base["confirm"].images]
    base["confirm"] = dataclasses.replace(base["confirm"], images=tuple(faceless))
    scored = judged(images("confirm", lambda _: CEILING, 0.9, class_face=CEILING), base=base)
    assert scored.details["bleed"] == pytest.approx(1, abs=0.05)
    nobody = {stage: dataclasses.replace(one, images=tuple(dataclasses.replace(m, face=FLOOR if i < 2 else None)
                                                           for i, m in enumerate(one.images)))
              for stage, one in base.items()}
    assert judged(images("confirm", lambda _: CEILING, 0.9), base=nobody).details["bleed"] is not None


def test_why_bleed_is_not_known_is_said():
    near = judged(images("confirm", lambda _: CEILING, 0.9),
                  base={stage: images(stage, lambda _: FLOOR, 0.9, class_face=CEILING)
                        for stage in ("screen", "refine", "confirm")})
    assert "bleed" not in near.details
    assert any("as like the subject as its photos" in note for note in near.notes)


def test_where_clip_tells_nothing_adherence_is_that_of_the_probes_and_it_is_said():
    same = real_photos(clip=dict.fromkeys(range(len(SCORING.prompts)), 0.2 + 0.5 * 0.9 - 0.01))
    scored = judged(images("confirm", lambda _: CEILING, 0.9), real=same)
    assert scored.details["clip_retained"] is None and any("of the probes alone" in note for note in scored.notes)


def test_a_base_whose_seeds_are_one_image_measures_no_diversity():
    base = {stage: dataclasses.replace(images(stage, lambda _: FLOOR, 0.9), variety=dict.fromkeys(range(50), 0.0))
            for stage in ("screen", "refine", "confirm")}
    axis = judged(images("confirm", lambda _: CEILING, 0.9), base=base).axes["diversity"]
    assert axis.value is None and "different images" in axis.reason


def test_a_ceiling_of_few_photos_makes_usefulness_unsure_also_above_it():
    """Likeness of 1.06 (.79 to 1.33): c clips what is above 1, but not what the interval reaches below it."""
    few = real_photos(ceiling_faces=(0.7, 0.9, 1.1))
    at, above = (judged(images("confirm", lambda _, face=face: face, 0.9), real=few) for face in (CEILING, 0.95))
    assert above.axes["likeness"].value > 1 > above.axes["likeness"].low
    assert at.axes["usefulness"].low < above.axes["usefulness"].low < 0.95


def test_where_diversity_is_not_measured_the_others_share_its_weight_in_the_error_too():
    assert exponents(SCORING.weights, is_varied=False) == pytest.approx({"likeness": 0.5 / 0.85,
                                                                         "adherence": 0.35 / 0.85})
    assert sum(exponents(SCORING.weights, is_varied=True).values()) == pytest.approx(1)


def test_bleed_that_may_only_be_more_makes_usefulness_only_less():
    drawn = images("confirm", lambda _: CEILING, 0.9)
    swinging = tuple(dataclasses.replace(m, face=FLOOR + 0.3 * (-1) ** m.index) if m.kind == "class" else m
                     for m in drawn.images)
    margins = judged(dataclasses.replace(drawn, images=swinging)).margins
    assert margins[0] > 0.01 and margins[1] < 0.001
