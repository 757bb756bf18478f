"""Every point of the score space has exactly one verdict, and it is the one of the table in scores.md."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweep.evaluation.verdict import FIELD_OF, VERDICTS, Point, additions, possible_verdicts, verdict
from tests.unit.evaluation.evaluation_examples import SCORING

T = SCORING.thresholds
near = st.one_of(st.floats(-0.5, 1.5), st.sampled_from([0.1, 0.15, 0.25, 0.4, 0.5, 0.6, 0.7, 0.8]))
points = st.builds(Point, likeness=near, adherence=near, diversity=st.one_of(st.none(), near),
                   memorisation=st.floats(0, 1), bleed=st.floats(0, 1), is_burnt=st.booleans(),
                   detect_rate=st.floats(0, 1), memo_rate=st.floats(0, 1), memo_gap_low=st.floats(-1, 0.5),
                   hair=st.one_of(st.none(), near), drift=st.one_of(st.none(), st.floats(-1, 1)),
                   leak=near)


def by_the_table(p: Point) -> list[str]:
    """The table written a second time, each row with the negation of those above it left to the caller."""
    varied = p.diversity is None or p.diversity >= 0.7
    rows = {
        "memorised": p.memo_rate > 0.25 or p.memo_gap_low > 0,
        "does not look like the subject":
            (p.likeness < 0.25 or p.detect_rate < 0.5) and p.adherence >= 0.6 and not p.is_burnt,
        "broken": p.likeness < 0.4 and (p.adherence < 0.6 or p.is_burnt),
        "overtrained": p.adherence < 0.6 or (p.diversity is not None and p.diversity < 0.5) or p.is_burnt,
        "mildly overfit": p.likeness >= 0.5 and (p.adherence < 0.8 or (
            p.hair is not None and p.drift is not None and p.hair < 0.6 and p.drift > 0.15)),
        "underfit": p.likeness < 0.6,
        "very good": p.adherence >= 0.8 and p.likeness >= 0.8 and varied and p.memorisation <= 0.1
                     and p.leak < 0.2 and p.bleed < 0.15,
        "good": p.adherence >= 0.8 and varied and p.memorisation <= 0.1,
        "partly copied": p.memorisation > 0.1,
        "low variety": not varied,
    }
    return [name for name, matches in rows.items() if matches]


@settings(max_examples=1500)
@given(points)
def test_every_point_has_the_tables_first_match(point):
    matching = by_the_table(point)
    assert matching, "the table leaves no point without a row"
    assert verdict(point, T) == matching[0]
    assert verdict(point, T) in VERDICTS


GOOD = {"likeness": 0.85, "adherence": 0.9, "diversity": 0.9, "memorisation": 0.0}


@pytest.mark.parametrize(("change", "words"), [
    ({}, "very good"),
    ({"likeness": 0.7}, "good"),
    ({"likeness": 0.55, "adherence": 0.95}, "underfit"),
    ({"likeness": 0.1, "adherence": 1.0}, "does not look like the subject"),
    ({"adherence": 0.3}, "overtrained"),
    ({"adherence": 0.7}, "mildly overfit"),
    ({"hair": 0.3, "drift": 0.4}, "mildly overfit"),
    ({"likeness": 0.3, "adherence": 0.3}, "broken"),
    ({"memo_rate": 0.4}, "memorised"),
    ({"is_burnt": True}, "overtrained"),
    ({"diversity": 0.6}, "low variety"),
    ({"memorisation": 0.2, "diversity": 0.6}, "partly copied"),
    ({"bleed": 0.2}, "good"),
    ({"leak": 0.25}, "good"),
])
def test_words_of_typical_files(change, words):
    assert verdict(Point(**{**GOOD, **change}), T) == words


def test_unsure_near_a_bound_and_sure_far_from_it():
    point = Point(**{**GOOD, "likeness": 0.78})
    assert possible_verdicts(point, {"likeness": (0.70, 0.86)}, T) == ["very good", "good"]
    assert possible_verdicts(point, {"likeness": (0.77, 0.79)}, T) == ["good"]


def test_what_is_added_is_said_only_when_the_interval_is_above_the_bound():
    point = Point(**GOOD, bleed=0.4, leak=0.4)
    assert additions(point, {"bleed": (0.31, 0.5), "leak": (0.1, 0.7)}, T) == ["bleeds into the class"]
    assert len(additions(point, {}, T)) == 2


def test_every_verdict_inside_the_intervals_is_found_also_between_their_ends():
    """From .2 to .9 likeness passes "does not look like the subject", underfit and good; the ends are only two."""
    point = Point(**{**GOOD, "likeness": 0.62})
    assert possible_verdicts(point, {"likeness": (0.2, 0.9)}, T) == [
        "does not look like the subject", "underfit", "very good", "good"]
    assert possible_verdicts(point, {"is_burnt": (False, True)}, T) == ["overtrained", "good"]
    assert possible_verdicts(point, {"memo_rate": (0.16, 0.52)}, T) == ["memorised", "good"]


def test_each_threshold_of_the_rules_is_that_of_one_field():
    names = {field.name for field in dataclasses.fields(T)}
    assert set(FIELD_OF) == names - {"bleeds", "leaks"}


def test_thresholds_of_ones_own_leave_no_varied_file_called_of_low_variety():
    strict = dataclasses.replace(T, overfit_likeness=0.75)
    assert verdict(Point(likeness=0.65, adherence=0.7, diversity=1.0, memorisation=0.0), strict) == "mildly overfit"
    assert verdict(Point(likeness=0.65, adherence=0.7, diversity=0.6, memorisation=0.0), strict) == "low variety"
