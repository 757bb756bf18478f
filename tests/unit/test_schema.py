from dataclasses import dataclass
from typing import Any

import pytest

from sweep.errors import ConfigError
from sweep.schema import bounds, build, family, flat, one_of, to_tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Red:
    name: str
    depth: float = bounds(above=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blue:
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    dim: int = bounds(1, 128)
    rate: float = bounds(0, 1)
    betas: tuple[float, float] = bounds(0, 1)
    precision: str = one_of("no", "bf16")
    steps: int | None = bounds(1)
    flag: bool
    colour: Any = family({"red": Red, "blue": Blue})


GOOD = {"dim": 8, "rate": 1e-4, "betas": [0.9, 0.99], "precision": "no", "steps": None, "flag": True,
        "colour": {"name": "red", "depth": 2}}


def test_a_good_tree_comes_back() -> None:
    built = build(Example, GOOD)
    assert built.colour == Red(name="red", depth=2.0)
    assert build(Example, to_tree(built)) == built


def test_numbers_that_yaml_reads_as_words() -> None:
    assert build(Example, {**GOOD, "rate": "1e-4"}).rate == 1e-4


@pytest.mark.parametrize(("change", "message"), [
    ({"dmi": 8}, r'Unknown key "dmi"\. Did you mean "dim"\?'),
    ({"dim": 0}, "dim = 0 must be at least 1 and at most 128"),
    ({"dim": 129}, "at most 128"),
    ({"dim": "abc"}, "dim = 'abc' must be a whole number"),
    ({"dim": 8.5}, "must be a whole number"),
    ({"dim": float("inf")}, "must be a whole number"),
    ({"dim": True}, "must be a whole number"),
    ({"rate": float("nan")}, "must be a finite number"),
    ({"betas": [0.9]}, "must have 2 values"),
    ({"betas": [0.9, 1.5]}, r"betas\[1\] = 1.5 must be at least 0 and at most 1"),
    ({"betas": "ab"}, "must be a list"),
    ({"precision": "fp61"}, "precision = 'fp61' is not one of: no, bf16"),
    ({"steps": 0}, "steps = 0 must be at least 1"),
    ({"flag": "yes"}, "flag = 'yes' must be true or false"),
    ({"colour": {"name": "rde"}}, r'colour.name = \'rde\' is unknown\. Did you mean "red"\? Known: blue, red'),
    ({"colour": {"name": "red", "depth": 0}}, "colour.depth = 0 must be greater than 0"),
    ({"colour": {"name": "blue", "depth": 1}}, 'Unknown key "colour.depth"'),
])
def test_what_is_wrong_is_said(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(Example, {**GOOD, **change})


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ConfigError, match="Missing: dim"):
        build(Example, {k: v for k, v in GOOD.items() if k != "dim"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    text: str
    size: str | None = one_of("small", "large", default=None)


def test_an_item_may_leave_out_what_has_a_default() -> None:
    assert build(Item, {"text": "a"}) == Item(text="a", size=None)
    assert build(Item, {"text": "a", "size": "large"}).size == "large"
    with pytest.raises(ConfigError, match='not one of: small, large. Did you mean "large"'):
        build(Item, {"text": "a", "size": "larg"})


def test_a_tree_becomes_dotted_keys_and_loses_nothing() -> None:
    assert flat({"a": {"b": {"c": 1}}, "d": [1, 2], "e": {}}) == {"a.b.c": 1, "d": [1, 2], "e": {}}
