"""The scoring config: complete, checked, and known by what it would draw and by what it would say."""

from dataclasses import replace

import pytest

from sweep.data.folder import read_dataset
from sweep.errors import ConfigError, ScoringError
from sweep.evaluation.cells import cells_of
from sweep.evaluation.keys import dataset_key, drawing_id, measuring_id, photos_key, reference_photos, scoring_id
from sweep.evaluation.settings import STAGES, ScoringConfig, check_fits
from sweep.schema import build
from tests.conftest import dataset_config
from tests.unit.evaluation.evaluation_examples import SCORING, TREE

BACKENDS = {"face": "a", "prompt": "b", "perceptual": "c"}


def changed(**changes):
    return build(ScoringConfig, {**TREE, **changes}, "scoring")


def test_the_shipped_set_screens_eight_refines_on_sixteen_and_confirms_on_sixteen_of_which_eight_chose_nothing():
    stages = {stage: set(SCORING.prompts_of(stage)) for stage in STAGES}
    assert {stage: len(prompts) for stage, prompts in stages.items()} == {"screen": 8, "refine": 16, "confirm": 16}
    assert stages["screen"] < stages["refine"] and not stages["screen"] & stages["confirm"]
    assert len(stages["confirm"] - stages["refine"]) == 8
    for attribute in ("hair", "clothes", "glasses"):
        assert any(attribute in SCORING.prompts[i].probes for i in SCORING.prompts_of("screen"))


def test_thresholds_change_the_score_but_not_what_is_drawn():
    other = changed(thresholds={**TREE["thresholds"], "underfit_likeness": 0.5})
    assert scoring_id(other, "base", 64, BACKENDS, "photos") != scoring_id(SCORING, "base", 64, BACKENDS, "photos")
    assert measuring_id(other, "base", 64, BACKENDS) == measuring_id(SCORING, "base", 64, BACKENDS)


@pytest.mark.parametrize("change", [
    {"sampler": {**TREE["sampler"], "num_steps": 21}},
    {"prompts": TREE["prompts"][:-1]},
    {"face_confidence": 0.6},
])
def test_what_is_drawn_or_measured_changes_both_keys(change):
    other = changed(**change)
    assert scoring_id(other, "base", 64, BACKENDS, "photos") != scoring_id(SCORING, "base", 64, BACKENDS, "photos")
    assert measuring_id(other, "base", 64, BACKENDS) != measuring_id(SCORING, "base", 64, BACKENDS)


def test_how_prompts_are_read_changes_what_is_drawn():
    keys = {measuring_id(SCORING, "base", 64, BACKENDS, *reading) for reading in ((1, 75), (2, 75), (1, 150), (2, 150))}
    assert len(keys) == 4


def test_how_the_base_is_rounded_changes_what_is_drawn_and_not_what_may_be_compared():
    halves = measuring_id(SCORING, "base", 64, BACKENDS, precision="torch.bfloat16")
    assert halves != measuring_id(SCORING, "base", 64, BACKENDS)
    assert drawing_id(SCORING.sampler, "base", 64) != drawing_id(SCORING.sampler, "base", 64,
                                                                 precision="torch.bfloat16")


@pytest.mark.parametrize(("change", "words"), [
    ({"choice": {**TREE["choice"], "strengths": []}}, "leaves nothing to choose"),
    ({"attributes": {**TREE["attributes"], "hair": {**TREE["attributes"]["hair"], "natural": "ginger"}}},
     "'ginger' is none of its values"),
    ({"prompts": [{**prompt, "probes": {}} for prompt in TREE["prompts"]]}, "no prompt with probes"),
    ({"weights": {**TREE["weights"], "likeness": 1.0}}, "must sum to 1"),
    ({"weights": {**TREE["weights"], "likeness": 0.0, "adherence": 0.0, "diversity": 1.0}}, "can't both be 0"),
    ({"thresholds": {**TREE["thresholds"], "good_adherence": 0.5}}, "overtrained_adherence=0.6 is above"),
])
def test_what_could_only_fail_after_drawing_is_refused_before(change, words):
    with pytest.raises(ScoringError, match=words):
        changed(**change)


def test_base_backends_and_photos_are_part_of_the_key():
    key = scoring_id(SCORING, "base", 64, BACKENDS, "photos")
    assert key != scoring_id(SCORING, "other base", 64, BACKENDS, "photos")
    assert key != scoring_id(SCORING, "base", 64, {**BACKENDS, "face": "x"}, "photos")
    assert key != scoring_id(SCORING, "base", 64, BACKENDS, "other photos")
    assert key != scoring_id(SCORING, "base", 96, BACKENDS, "photos")
    assert key == scoring_id(changed(batch_size=7), "base", 64, dict(reversed(BACKENDS.items())), "photos")


def pocket_subject(**changes):
    words = {"trigger": None, "class_noun": None, "repeats": None}
    changed_words = {name: changes.pop(name) for name in list(changes) if name in words}
    return read_dataset(dataset_config(**{"num_images": 14, **changes}), **{**words, **changed_words})


def test_with_held_out_photos_trials_on_other_training_photos_may_be_compared():
    few = pocket_subject()
    for more in (pocket_subject(num_images=25), pocket_subject(captions=False), pocket_subject(repeats=40)):
        assert dataset_key(more) == dataset_key(few)
    assert photos_key(pocket_subject(num_images=25)) != photos_key(few), "copies are looked for among other photos"
    assert photos_key(pocket_subject(repeats=40)) == photos_key(few)
    assert dataset_key(pocket_subject(class_noun="person")) != dataset_key(few)
    assert dataset_key(pocket_subject(trigger="sks")) != dataset_key(few)


def test_what_is_measured_against_is_part_of_the_key(tmp_path):
    subject = pocket_subject()
    alone = replace(subject, holdout=())
    sets = [subject, replace(subject, holdout=subject.holdout[:5]), alone, replace(alone, photos=alone.photos[:5])]
    assert len({dataset_key(dataset) for dataset in sets}) == 4
    moved = tuple(tmp_path / path.name for path in subject.holdout)
    for old, new in zip(subject.holdout, moved, strict=True):
        new.write_bytes(old.read_bytes())
    elsewhere = replace(subject, holdout=moved)
    assert dataset_key(elsewhere) == dataset_key(subject), "by content, not by place"
    moved[0].write_bytes(moved[1].read_bytes())
    assert dataset_key(elsewhere) != dataset_key(subject)


def test_too_few_held_out_photos_are_refused():
    subject = pocket_subject()
    assert reference_photos(subject) == subject.holdout
    assert reference_photos(replace(subject, holdout=())) == tuple(photo.path for photo in subject.photos)
    with pytest.raises(ScoringError, match=r"holds 2 photos.*at least 3.*leave dataset\.holdout_dir out"):
        dataset_key(replace(subject, holdout=subject.holdout[:2]))


@pytest.mark.parametrize(("change", "message"), [
    ({"prompts": [{**TREE["prompts"][0], "text": "photo of a man"}]}, "lacks {subject}"),
    ({"prompts": [{**TREE["prompts"][0], "probes": {"hair": "purple"}}]}, "asks for hair = 'purple'"),
    ({"class_prompts": ["photo of a man"] * 3}, r"class_prompts\[0\] .* lacks {subject}"),
    ({"class_prompts": []}, "confirm.num_class = 1, but scoring.class_prompts has 0 prompts"),
    ({"prompts": [{**TREE["prompts"][0], "probes": {"shoes": "red"}}]}, "probes 'shoes'"),
    ({"prompts": TREE["prompts"][:2]}, "at least 3"),
    ({"prompts": [{**p, "face": False} for p in TREE["prompts"]]}, "likeness can't be measured"),
])
def test_a_prompt_set_that_cannot_work_is_refused(change, message):
    with pytest.raises(ScoringError, match=message):
        changed(**change)


def test_a_typo_is_refused_with_the_near_match():
    with pytest.raises(ConfigError, match='Did you mean "strengths"'):
        changed(choice={**{k: v for k, v in TREE["choice"].items() if k != "strengths"}, "strenghts": [1.0]})


def test_the_pocket_scoring_refuses_real_bases():
    check_fits(SCORING, "pocket")
    with pytest.raises(ScoringError, match="Use scoring=person"):
        check_fits(SCORING, "sd15")


def test_cells_hold_the_trigger_for_a_lora_and_the_class_noun_for_the_base(subject_dataset):
    cells = cells_of(SCORING, "confirm", subject_dataset)
    varied = [cell.index for cell in cells if cell.kind == "prompt" and cell.seed == SCORING.confirm.first_seed + 1]
    assert len(cells) == 16 + 5 + 4 + 3 + 4 and len(set(varied)) == 5
    assert len({cell.key for cell in cells}) == len(cells)
    for cell in cells:
        assert ("alexq man" in cell.text) == (cell.kind != "class")
        assert "alexq" not in cell.class_text and "a man" in cell.class_text
    captions = [cell.text for cell in cells if cell.kind == "caption"]
    assert set(captions) <= {photo.caption for photo in subject_dataset.photos}
    seeds = {stage: {cell.seed for cell in cells_of(SCORING, stage, subject_dataset)} for stage in STAGES}
    assert not seeds["confirm"] & seeds["refine"], "the result is reported on seeds that played no part in the choice"
