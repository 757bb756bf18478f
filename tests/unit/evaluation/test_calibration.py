"""Thresholds fitted to a person's words: planted ones come back, few words change nothing, noise is not followed."""

import dataclasses
import random

import pytest

from sweep.evaluation import calibration
from sweep.evaluation.calibration import MIN_JUDGEMENTS, Named, Preferred, calibrate, fit
from sweep.evaluation.spoken import named_epoch, named_verdict
from sweep.evaluation.verdict import VERDICTS, Point, verdict
from tests.unit.evaluation.evaluation_examples import SCORING

DEFAULTS = SCORING.thresholds
PLANTED = dataclasses.replace(DEFAULTS, good_adherence=0.65, underfit_likeness=0.45, overfit_likeness=0.4,
                              very_good_likeness=0.6, overtrained_adherence=0.4)


def file_of(rng: random.Random) -> Point:
    """A file as sweeps make them: what it gains in likeness it loses in adherence."""
    likeness = rng.uniform(0.1, 1.0)
    return Point(likeness=likeness, adherence=min(1.1, 1.25 - 0.7 * likeness + rng.gauss(0, 0.15)), diversity=0.9,
                 memorisation=0.0)


def said_of(num: int, thresholds=PLANTED, seed: int = 0) -> list[Named]:
    rng = random.Random(seed)
    points = [file_of(rng) for _ in range(num)]
    return [Named(point, verdict(point, thresholds), frozenset({f"{seed}-{i}"})) for i, point in enumerate(points)]


def test_planted_thresholds_are_recovered():
    notes = said_of(120)
    found = fit(notes, DEFAULTS)
    for name in ("good_adherence", "very_good_likeness", "underfit_likeness", "overtrained_adherence"):
        assert getattr(found, name) == pytest.approx(getattr(PLANTED, name), abs=0.06), name
    unseen = said_of(500, seed=1)
    assert sum(note.agrees(found) for note in unseen) > 0.9 * 500
    assert sum(note.agrees(DEFAULTS) for note in unseen) < 0.7 * 500
    untouched = {"memorised_rate", "overfit_hair", "bleeds", "leaks", "very_good_leak", "good_memorisation"}
    assert all(getattr(found, name) == getattr(DEFAULTS, name) for name in untouched), "nothing was said about these"


def test_the_agreement_with_one_left_out_is_that_of_words_not_seen():
    found = calibrate(said_of(40), DEFAULTS)
    assert not found.why_default and found.num == 40
    assert found.default_agreement < found.left_out <= 40
    unseen = said_of(500, seed=2)
    share = sum(note.agrees(found.thresholds) for note in unseen) / 500
    assert found.left_out / 40 == pytest.approx(share, abs=0.15)


def test_below_fifteen_the_defaults_stay():
    few = calibrate(said_of(MIN_JUDGEMENTS - 1), DEFAULTS)
    assert few.thresholds == DEFAULTS and few.left_out is None
    assert few.why_default == "uncalibrated: 14 different files or pairs were judged, and fitting takes 15"
    assert calibrate(said_of(MIN_JUDGEMENTS), DEFAULTS).left_out is not None


def test_what_is_said_again_of_the_same_files_is_no_news():
    [note] = said_of(1)
    again = calibrate([note] * 20, DEFAULTS)
    assert again.left_out is None and again.why_default.startswith("uncalibrated: 1 different files or pairs")
    point = Point(likeness=0.7, adherence=0.95, diversity=0.9, memorisation=0.0)
    agreed = [Named(dataclasses.replace(point, likeness=0.9 + 0.005 * i), "very good", frozenset({str(i)}))
              for i in range(15)]
    odd = Named(point, "underfit", frozenset({"odd"}))
    found = calibrate(agreed + [odd] * 10, DEFAULTS)
    assert (found.default_agreement, found.left_out, found.num) == (15, 15, 25)
    assert found.thresholds == DEFAULTS, "nothing but the file itself speaks for moving them"


def test_who_is_asked_about_a_file_has_seen_no_pair_with_it(monkeypatch):
    """Six files, every two of them rated: fifteen pairs, of which each shares a file with eight others."""
    rng = random.Random(5)
    points = [file_of(rng) for _ in range(6)]
    pairs = [Preferred(points[i], points[j], "likeness", frozenset({str(i), str(j)})) for i in range(6)
             for j in range(i)]
    fitted_on = []
    monkeypatch.setattr(calibration, "fit", lambda judgements, defaults: fitted_on.append(judgements) or defaults)
    calibrate(pairs, DEFAULTS)
    assert [len(rest) for rest in fitted_on[:15]] == [6] * 15
    for asked, rest in zip(pairs, fitted_on, strict=False):
        assert not any(asked.about & judgement.about for judgement in rest)


def test_a_threshold_is_judged_as_it_is_written():
    """Between .4501 and .4504 lies .45025, which three digits turn into .45: both are above it."""
    near = [Named(Point(likeness=likeness, adherence=0.95, diversity=0.9, memorisation=0.0), words,
                  frozenset({f"{words} {i}"}))
            for likeness, words in ((0.4501, "underfit"), (0.4504, "good")) for i in range(3)]
    assert fit(near, DEFAULTS) == DEFAULTS


def test_words_at_random_leave_the_defaults():
    rng = random.Random(3)
    noise = [Named(file_of(rng), rng.choice(VERDICTS[1:]), frozenset({f"noise {i}"})) for i in range(30)]
    agreeing = said_of(30, DEFAULTS, seed=3)
    assert calibrate(agreeing, DEFAULTS).thresholds == DEFAULTS
    assert "at least as often" in calibrate(agreeing + noise, DEFAULTS).why_default


def test_rated_pairs_alone_move_a_threshold_to_where_people_see_a_difference():
    rng = random.Random(4)
    pairs = []
    for i in range(60):
        one, other = sorted((rng.uniform(0.62, 1.0) for _ in range(2)), reverse=True)
        points = [Point(likeness=value, adherence=0.9, diversity=0.9, memorisation=0.0) for value in (one, other)]
        pairs.append(Preferred(*points, "likeness", frozenset({f"{i} a", f"{i} b"}), is_same=not other < 0.9 <= one))
    found = calibrate(pairs, DEFAULTS)
    assert found.thresholds.very_good_likeness == pytest.approx(0.9, abs=0.03)
    assert found.left_out > found.default_agreement


@pytest.mark.parametrize(("note", "said"), [
    ("overtrained", "overtrained"),
    ("Good, the best of the week although the hair looks fried at CFG 12", "good"),
    ("very good", "very good"),
    ("looks overfitted", "overtrained"),
    ("a bit overtrained", "mildly overfit"),
    ("doesn't look like me at all", "does not look like the subject"),
    ("trash; it is broken", "broken"),
    ("epoch 7: underfit", "underfit"),
    ("not good", None),
    ("good likeness but memorized the clothes", "memorised"),
    ("the hair is good but it is underfit", None),
    ("used for the exhibition", None),
    ("very good, perfect hair", "very good"),
    ("no longer underfit: good", "good"),
    ("not the best one but good", "good"),
    ("neither overtrained nor really underfit, good", "good"),
    ("no likeness, overtrained too", "does not look like the subject"),
])
def test_a_verdict_is_found_in_words(note, said):
    assert named_verdict(note) == said


@pytest.mark.parametrize("note", [
    "not yet overtrained", "isn't overtrained", "isn’t overtrained", "isnt overtrained", "doesn't look overtrained",
    "not really good", "not a good one", "far from good", "not what I would call good", "hardly good",
    "never memorised anything", "no memorised photos", "not overtrained or underfit", "neither memorised nor broken",
    "no longer overtrained", "less overtrained than epoch 3",
    "perfect hair", "very good likeness", "excellent prompt adherence"])
def test_a_verdict_that_is_denied_or_said_of_a_part_is_not_taken_for_one(note):
    assert named_verdict(note) is None


def test_a_note_may_be_about_one_epoch():
    assert named_epoch("Epoch 12, overtrained") == 12
    assert named_epoch("better than epoch 3") is None
