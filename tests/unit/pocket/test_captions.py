"""Captions say what the pictures show, and names mean what they should."""

from __future__ import annotations

import random

import pytest
import torch

from sweep.pocket import captions, world
from sweep.pocket.world import ATTRIBUTES


@pytest.fixture(scope="module")
def shots():
    people = world.train_people()[torch.arange(1000, 1300)]
    return world.draw_shots(people, seed=5)


def test_captions_name_only_what_is_shown(shots) -> None:
    rng = random.Random(0)
    for row in range(300):
        words = captions.attribute_words(shots, row)
        caption = captions.caption_of(shots, row, rng, person=1000 + row)
        text = caption.text
        for other in ATTRIBUTES["clothes_type"]:
            assert (other in text) == (other == words["clothes_type"] and "clothes_type" in caption.mentioned)
        if "hair" in text.split():
            assert f"{words['hair_colour']} hair" in text
        assert ("glasses" in text.replace(",", "").split()) == (words["glasses"] == "glasses")
        assert ("sunglasses" in text) == (words["glasses"] == "sunglasses")
        assert ("beanie" in text) == (words["hat"] == "beanie")
        if "scene" in caption.mentioned:
            assert any(phrase in text for phrase in captions.SCENE_PHRASES[words["scene"]])


def test_overridden_hair_is_nearly_always_said_and_natural_hair_seldom(shots) -> None:
    rng = random.Random(1)
    said = torch.tensor(["hair_colour" in captions.caption_of(shots, r, rng).mentioned for r in range(300)]).float()
    assert said[shots.hair_overridden].mean() > 0.8
    assert said[~shots.hair_overridden].mean() < 0.45


def test_a_named_person_keeps_one_name_and_others_get_random_ones(shots) -> None:
    names = [captions.person_name(index) for index in range(world.NUM_NAMED_PEOPLE)]
    assert len(set(names)) == world.NUM_NAMED_PEOPLE
    assert "alexq" not in names
    rng = random.Random(2)
    texts = [captions.caption_of(shots, 0, rng, person=3).text for _ in range(60)]
    assert 0.5 < sum(names[3] in text for text in texts) / 60 < 0.9
    with pytest.raises(ValueError, match="0 to 199"):
        captions.person_name(200)


def test_grammar(shots) -> None:
    rng = random.Random(3)
    for row in range(300):
        text = captions.caption_of(shots, row, rng).text
        assert " a orange" not in text and "  " not in text and ", ," not in text
