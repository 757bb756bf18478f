"""Captions say what the pictures show, and names mean what they should."""

from __future__ import annotations

import random
import re

import pytest
import torch

from sweep.pocket import captions, world
from sweep.pocket.world import ATTRIBUTES


@pytest.fixture(scope="module")
def shots():
    people = world.train_people()[torch.arange(1000, 1300)]
    return world.draw_shots(people, seed=5)


PHRASES = {
    "scene": captions.SCENE_PHRASES,
    "expression": captions.EXPRESSION_PHRASES,
    "framing": captions.FRAMING_PHRASES,
    **{name: {value: (value,) for value in ATTRIBUTES[name]} for name in ("clothes_type", "glasses", "hat", "sex")},
}


def _said(text: str) -> dict[str, set[str]]:
    """Which values of each attribute a caption says, found without the code that wrote it."""
    said = {
        name: {value for value, phrases in table.items()
               if any(re.search(rf"(?<![\w-]){re.escape(phrase)}(?![\w-])", text) for phrase in phrases)}
        for name, table in PHRASES.items()
    }  # fmt: skip
    said["style"] = {value for value, heads in captions.STYLE_PHRASES.items() if text.startswith(heads)}
    said["hair_colour"] = set(re.findall(r"(\w+) hair\b", text))
    said["clothes_colour"] = set(re.findall(rf"(\w+) (?:{'|'.join(ATTRIBUTES['clothes_type'])})", text))
    return said


def test_captions_name_what_is_shown_and_nothing_else(shots) -> None:
    rng = random.Random(0)
    times_said = dict.fromkeys(ATTRIBUTES, 0)
    for row in range(300):
        words = captions.attribute_words(shots, row)
        caption = captions.caption_of(shots, row, rng, person=1000 + row)
        said = _said(caption.text)
        assert said.keys() == ATTRIBUTES.keys()
        for name, values in said.items():
            is_named = name in caption.mentioned and words[name] != "none"
            assert values == ({words[name]} if is_named else set()), (name, caption.text)
            times_said[name] += len(values)
    assert min(times_said.values()) > 50


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
