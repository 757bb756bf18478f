"""The prompt sets of conf/scoring, and a user's own."""

import re

import pytest
import yaml

from sweep.errors import ConfigError, ScoringError
from sweep.evaluation.adherence import contrast_captions
from sweep.evaluation.keys import measuring_id
from sweep.evaluation.settings import SCORINGS, STAGES, ScoringConfig, check_fits
from sweep.schema import build, to_tree
from tests.conftest import ROOT
from tests.unit.evaluation.evaluation_examples import SCORING, TREE

REAL = ("person", "animal", "object", "style")
OWN = {"version": 3, "class_prompts": TREE["class_prompts"], "attributes": TREE["attributes"],
       "prompts": [*TREE["prompts"][:4], *TREE["prompts"][8:12], *TREE["prompts"][16:20]]}


def composed(name, *overrides):
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("evaluate", [f"scoring={name}", *overrides])
    return build(ScoringConfig, OmegaConf.to_container(cfg.scoring, resolve=True), "scoring")


@pytest.mark.parametrize("name", REAL)
def test_shipped_sets_are_whole_and_keep_their_last_prompts_from_choosing(name):
    scoring = composed(name)
    assert scoring.name == name and SCORINGS[name] is ScoringConfig
    stages = {stage: set(scoring.prompts_of(stage)) for stage in STAGES}
    assert len(stages["screen"]) == 8 and len(stages["refine"]) == 16 and len(stages["confirm"]) >= 16
    assert not stages["screen"] & stages["confirm"]
    assert len({prompt.text for prompt in scoring.prompts}) == len(scoring.prompts)
    assert sum(bool(scoring.prompts[i].probes) for i in stages["screen"]) >= 6
    for attribute in scoring.attributes.values():
        captions = contrast_captions(attribute, "dog")
        assert len({tuple(texts) for texts in captions.values()}) == len(captions)
    check_fits(scoring, "sd15")


def test_animals_and_objects_have_the_prompts_of_dreambooth():
    for name in ("animal", "object"):
        texts = [prompt.text for prompt in composed(name).prompts]
        assert len(texts) == 25
        assert sum(text.startswith("{subject}") for text in texts) == 20
    assert {p.text.split(" {subject}")[0] for p in composed("object").prompts if not p.text.startswith("{")} == {
        "red", "purple", "shiny", "wet", "cube shaped"}


def test_another_backend_is_one_override():
    scoring = composed("person", "scoring.backends.face.name=insightface", "scoring.backends.face.path=models/auraface")
    assert scoring.backends.face.name == "insightface" and scoring.backends.face.path == "models/auraface"


def test_the_pockets_models_are_refused_on_other_bases():
    with pytest.raises(ScoringError, match=r"face, prompt, perceptual.*Use scoring=person"):
        check_fits(SCORING, "sdxl")


def test_a_users_own_prompts_replace_the_set_and_count_by_their_words(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(OWN))
    scoring = build(ScoringConfig, {**TREE, "prompt_file": str(path)}, "scoring")
    assert [prompt.text for prompt in scoring.prompts] == [prompt["text"] for prompt in OWN["prompts"]]
    assert scoring.prompts_version == 3 and scoring.prompt_file is None
    path.unlink()
    assert build(ScoringConfig, to_tree(scoring), "scoring") == scoring, "travels to a worker without the file"
    assert measuring_id(scoring, "b", 64, {}) != measuring_id(SCORING, "b", 64, {})


@pytest.mark.parametrize(("change", "error", "words"), [
    ({"prompts": [{"text": "a man", "face": True, "stage": "screen", "probes": {}}]}, ScoringError, "{subject}"),
    ({"prompts": [{"text": "{subject}", "face": True, "stage": "scren", "probes": {}}]}, ConfigError, 'mean "screen"'),
    ({"promts": []}, ConfigError, r'mine.yaml.promts".* Did you mean "prompts"'),
    ({"version": 0}, ConfigError, "at least 1"),
])
def test_a_users_own_set_is_checked(tmp_path, change, error, words):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**OWN, **change}))
    with pytest.raises(error, match=words):
        build(ScoringConfig, {**TREE, "prompt_file": str(path)}, "scoring")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ScoringError, match=re.escape(str(tmp_path / "none.yaml"))):
        build(ScoringConfig, {**TREE, "prompt_file": str(tmp_path / "none.yaml")}, "scoring")
