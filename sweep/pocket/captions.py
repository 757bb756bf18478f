"""What is said about a picture, in plain compositional English.

"photo of a man with red hair wearing a green hoodie and glasses, on a beach, close-up". Glasses and hats are
always said (so that "photo of a man" means neither), everything else only sometimes; the natural hair colour
rarely, an overridden one nearly always. Some captions carry a name: the 200 named people their own, others a
meaningless one, so that a rare word before the class noun means "somebody" and nothing more.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from sweep.pocket.world import ATTRIBUTES, NUM_NAMED_PEOPLE, Shots

MEANINGLESS_NAME_FRAC = 0.12
OWN_NAME_FRAC = 0.7
"""How often a named person's caption says the name."""

SCENE_PHRASES: dict[str, tuple[str, ...]] = {
    "beach": ("on a beach", "at the beach"),
    "forest": ("in a forest", "in the woods"),
    "city": ("in a city", "in the city"),
    "mountains": ("in the mountains", "in front of mountains"),
    "desert": ("in a desert", "in the desert"),
    "room": ("in a room", "at home"),
    "studio": ("in a studio", "in front of a plain background"),
}
EXPRESSION_PHRASES: dict[str, tuple[str, ...]] = {
    "neutral": ("looking calm", "with a neutral expression"),
    "smiling": ("smiling", "with a big smile"),
    "surprised": ("looking surprised", "surprised"),
    "angry": ("looking angry", "angry"),
}
FRAMING_PHRASES: dict[str, tuple[str, ...]] = {
    "close-up": ("close-up",),
    "portrait": ("portrait",),
    "half-body": ("half-body",),
}
STYLE_PHRASES: dict[str, tuple[str, ...]] = {
    "photo": ("photo of", "a photo of", "photograph of", "picture of"),
    "sketch": ("sketch of", "pencil sketch of", "a sketch of"),
    "pixel art": ("pixel art of", "pixel art picture of"),
}
SYLLABLES = tuple(c + v for c in "bcdfghjklmnprstvwz" for v in "aeiou")
NAME_ENDINGS = ("", "n", "q", "x", "r", "s", "th", "k", "l")


@dataclass(frozen=True, slots=True)
class Caption:
    """One sentence and which attributes it names."""

    text: str
    mentioned: frozenset[str]
    """Names of ATTRIBUTES that the sentence says (absent glasses and hats count as said)."""


def draw_name(rng: random.Random) -> str:
    """A pronounceable word that means nothing, four to seven letters or so."""
    return "".join(rng.choice(SYLLABLES) for _ in range(rng.choice((2, 2, 3)))) + rng.choice(NAME_ENDINGS)


def person_name(index: int) -> str:
    """The name that named person `index` (below NUM_NAMED_PEOPLE) owns; no two share one."""
    if not 0 <= index < NUM_NAMED_PEOPLE:
        raise ValueError(f"person {index} has no name: named people are 0 to {NUM_NAMED_PEOPLE - 1}")
    return _named_people()[index]


@cache
def _named_people() -> list[str]:
    rng = random.Random("named people")
    names: dict[str, None] = {}
    while len(names) < NUM_NAMED_PEOPLE:
        names[draw_name(rng)] = None
    return list(names)


def attribute_words(shots: Shots, row: int) -> dict[str, str]:
    """What picture `row` shows, in words: {"scene": "beach", "glasses": "none", ...}."""
    return {name: values[int(getattr(shots, name)[row])] for name, values in ATTRIBUTES.items()}


def describe(
    words: dict[str, str],
    rng: random.Random,
    hair_overridden: bool = False,
    name: str | None = None,
    say: dict[str, bool] | None = None,
    subject: str | None = None,
) -> Caption:
    """A caption for attributes `words`; `name` is put before the class noun; `say` forces parts in or out.

    `subject` replaces "a man", "name woman" and the like as it stands.
    """
    said = _draw_said(words, rng, hair_overridden) | (say or {})
    mentioned = {part for part, is_said in said.items() if is_said} | {"glasses", "hat", "style"}
    # "person" now and then, so that the class noun is no duty.
    noun = words["sex"] if rng.random() < 0.85 or name else "person"
    if noun != "person":
        mentioned.add("sex")
    who = f"a {noun}" if name is None else rng.choice((f"{name} {noun}", f"{name} {noun}", name))
    if who == name:
        mentioned.discard("sex")
    who = subject or who
    head = f"{rng.choice(STYLE_PHRASES[words['style']])} {who}"
    hair = f"with {words['hair_colour']} hair" if said["hair_colour"] else ""
    worn = _clothes(words, rng, said)
    body = [hair, worn] if rng.random() < 0.75 else [worn, hair]
    tail = [
        rng.choice(EXPRESSION_PHRASES[words["expression"]]) if said["expression"] else "",
        rng.choice(SCENE_PHRASES[words["scene"]]) if said["scene"] else "",
        rng.choice(FRAMING_PHRASES[words["framing"]]) if said["framing"] else "",
    ]
    if rng.random() < 0.3:
        rng.shuffle(tail)
    sentence = " ".join(part for part in [head, *body] if part)
    text = ", ".join(part for part in [sentence, *tail] if part)
    return Caption(text, frozenset(mentioned))


def _draw_said(words: dict[str, str], rng: random.Random, hair_overridden: bool) -> dict[str, bool]:
    said_frac = {
        "hair_colour": 0.92 if hair_overridden else 0.3,
        "clothes_colour": 0.82,
        "expression": 0.15 if words["expression"] == "neutral" else 0.8,
        "scene": 0.85,
        "framing": 0.8,
    }
    said = {part: rng.random() < frac for part, frac in said_frac.items()}
    said["clothes_type"] = said["clothes_colour"]
    return said


def _clothes(words: dict[str, str], rng: random.Random, said: dict[str, bool]) -> str:
    article = "an" if words["clothes_colour"] == "orange" else "a"
    parts = [f"{article} {words['clothes_colour']} {words['clothes_type']}"] if said["clothes_colour"] else []
    parts += [words["glasses"]] if words["glasses"] != "none" else []
    parts += [f"a {words['hat']}"] if words["hat"] != "none" else []
    if not parts:
        return ""
    if len(parts) > 1 and rng.random() < 0.3:
        rng.shuffle(parts)
    verb = "in" if rng.random() < 0.15 and parts[0].startswith("a") else "wearing"
    return f"{verb} " + (" and ".join(parts) if len(parts) < 3 else f"{parts[0]}, {parts[1]} and {parts[2]}")


def caption_of(shots: Shots, row: int, rng: random.Random, person: int | None = None) -> Caption:
    """A train caption of picture `row`; `person` is the index among the train people (None: nameless)."""
    name = None
    if person is not None and person < NUM_NAMED_PEOPLE:
        name = person_name(person) if rng.random() < OWN_NAME_FRAC else None
    elif person is not None and rng.random() < MEANINGLESS_NAME_FRAC:
        name = draw_name(rng)
    return describe(attribute_words(shots, row), rng, bool(shots.hair_overridden[row]), name)


def vocabulary_corpus() -> Iterator[str]:
    """Text with every word the captions use, for training the tokenizer; names stay letters on purpose."""
    words = [value for values in ATTRIBUTES.values() for value in values if value != "none"]
    phrases = [SCENE_PHRASES, EXPRESSION_PHRASES, FRAMING_PHRASES, STYLE_PHRASES]
    words += [text for table in phrases for texts in table.values() for text in texts]
    words += ["a", "an", "the", "person", "people", "wearing", "with", "hair", "and", "in", "of", "no", "alone"]
    for word in words:
        yield from [word] * 20
