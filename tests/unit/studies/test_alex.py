"""The rules that answer the claims, and the count of agreement, on data whose answer is known."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from studies import alex_arms, alex_best
from studies.alex import ELEVEN, OUT, PEOPLE, SEEDS, main, number_of
from studies.alex_arms import ARMS, SCORING, arm_arguments, kept_of, read_arms
from studies.alex_best import (
    BASES,
    FRESH,
    NUM_CLASS_PROMPTS,
    NUM_PROMPTS,
    SEARCH,
    Contest,
    Drawn,
    Rival,
    _page,
    fresh,
    search_arguments,
    search_name,
    sentence_of,
    write_best,
)
from studies.alex_claims import (
    CLAIMS,
    CONFIRMED,
    CONTRADICTED,
    HOLDS,
    NO_DIFFERENCE,
    OTHERWISE,
    UNDECIDED,
    UNSURE,
    Test,
    decide,
    judge,
    outcomes,
)
from studies.alex_words import NEARLY, NO, NOT_COUNTED, SAID, UNKNOWN, YES, agreement, blind, count_sentence, least_bad
from studies.image_pool import pool_prompts
from studies.phenomena import finding
from sweep.command_line import CONF_DIR
from sweep.comparison import Interval
from sweep.evaluation.verdict import VERDICTS
from sweep.files import write_json
from sweep.search.starts import read_starts
from sweep.trial import AXES, Estimate, Score
from tests.conftest import ROOT
from tests.unit.test_config import loaded

Test.__test__ = False  # type: ignore[attr-defined]  # a claim's, not pytest's
SCORE = Score(score_id="s", scoring_id="i", file="f", file_sha256="h", epoch=12, step=6720, strength=1.0,
              stage="screen", num_images=20, axes={}, details={}, replicates={}, verdict="good", notes=(),
              elapsed_s=0.0)


def score(verdict: str, usefulness: float | None = 0.5, margin: float = 0.0, notes: tuple[str, ...] = (),
          **details: float) -> Score:
    bounds = (None, None) if usefulness is None else (usefulness - margin, usefulness + margin)
    estimate = Estimate(value=usefulness, low=bounds[0], high=bounds[1], raw=usefulness, n=16)
    return replace(SCORE, verdict=verdict, axes=dict.fromkeys(AXES, estimate), notes=notes, details=details)


def test_every_verdict_that_is_waited_for_exists() -> None:
    assert [said.number for said in SAID] == list(range(1, 12))
    assert {verdict for said in SAID for verdict in (*said.exact, *said.near, *said.not_one_of)} <= set(VERDICTS)


@pytest.mark.parametrize(("number", "verdict", "expected"), [
    (4, "does not look like the subject", YES), (4, "does not look like the subject + bleeds into the class", YES),
    (4, "underfit", NEARLY), (4, "very good", NO), (4, "invalid", UNKNOWN), (1, "memorised", NO),
    (1, "underfit", NEARLY), (8, "memorised", YES), (8, "partly copied", NEARLY), (8, "good", NO),
    (11, "good", NOT_COUNTED)])
def test_agreement(number: int, verdict: str, expected: str) -> None:
    assert agreement(SAID[number - 1], {number: score(verdict)}) == expected


def test_one_kept_its_clothes_apart_only_where_that_can_be_seen() -> None:
    assert agreement(SAID[0], {1: score("underfit", leak=0.1)}) == YES
    sticks = score("underfit", leak=0.4, notes=("memorised the clothes or the background",))
    assert agreement(SAID[0], {1: sticks}) == NO


def test_eight_gives_its_photos_back_on_the_bare_trigger() -> None:
    assert agreement(SAID[7], {8: score("underfit", memo_rate_bare=0.5)}) == YES
    assert agreement(SAID[7], {8: score("underfit", memo_rate_bare=0.125)}) == NO


def test_six_is_compared_with_five() -> None:
    said = SAID[5]
    assert agreement(said, {5: score("good", 0.4, 0.02), 6: score("good", 0.5, 0.02)}) == YES
    assert agreement(said, {5: score("good", 0.4, 0.1), 6: score("good", 0.5, 0.1)}) == NEARLY
    assert agreement(said, {5: score("good", 0.5), 6: score("good", 0.4)}) == NO
    assert agreement(said, {5: None, 6: score("good")}) == UNKNOWN
    assert agreement(SAID[2], {}) == UNKNOWN


def test_what_is_not_known_is_no_agreement() -> None:
    sentence = count_sentence([YES, YES, NEARLY, NO, UNKNOWN, NOT_COUNTED], [YES, NEARLY, NEARLY, NO], [1, 5, 9, 10])
    assert "Of the 5 trainings" in sentence and "same of 2, nearly the same of 1, something else of 1" in sentence
    assert "always answers \"does not look like the subject\" says the same of 1 and nearly the same of 2." in sentence
    assert "1 can't be judged" in sentence and "2 are among our four" in sentence


def test_whoever_always_answers_the_same_is_counted_by_the_same_rules() -> None:
    """LoRA1's clothes can't be seen, so that "has not memorised them" is no more than nearly said by any verdict; what
    is measured (copies, usefulness) says nothing to who does not look."""
    scores = {n: score("good", 0.5 + n / 100, memo_rate_bare=1.0) for n in range(1, 12)}
    hows = dict(zip([said.number for said in SAID if said.number != 6], blind(scores), strict=True))
    assert {n for n, how in hows.items() if how == YES} == {2, 4, 5, 9, 10}
    assert {n for n, how in hows.items() if how == NEARLY} == {1, 7} and hows[8] == NO


def test_without_a_sweep_nothing_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="There is no sweep in"):
        main(["eleven", "--report-only", "--results", str(tmp_path)])
    assert not list(tmp_path.rglob("words.md"))


def test_the_least_bad_are_the_most_useful_that_are_known() -> None:
    scores = {n: score("good", n / 20) for n in range(1, 12)} | {11: score("invalid", None), 3: None}
    assert least_bad(scores) == [10, 9, 8, 7]


def found(*values: float):
    return finding("a difference", "a claim", [(str(i), value, "") for i, value in enumerate(values)])


@pytest.mark.parametrize(("values", "worth", "says"), [
    ((0.20, 0.22, 0.18, 0.21, 0.19), 0.05, HOLDS), ((-0.20, -0.22, -0.18, -0.21, -0.19), 0.05, OTHERWISE),
    ((0.01, 0.02, 0.01, 0.02, 0.01), 0.05, NO_DIFFERENCE), ((-0.01, 0.02, -0.01, 0.02, 0.01), 0.05, NO_DIFFERENCE),
    ((0.01, 0.02, 0.01, 0.02, 0.01), 0.0, HOLDS),  # beyond a threshold is beyond it
    ((0.03, 0.02, 0.08, 0.01, 0.1), 0.05, HOLDS),  # surely above 0, perhaps worth it
    ((-0.06, 0.02, -0.06, 0.02, 0.01), 0.05, UNSURE),  # surely no gain worth it, perhaps a loss
    ((0.3, -0.1, 0.4, -0.2, 0.2), 0.05, UNSURE), ((0.2, 0.22, 0.18, 0.21), 0.05, UNSURE)])  # a person is missing
def test_a_test_says_what_its_interval_does(values: tuple[float, ...], worth: float, says: str) -> None:
    assert judge(found(*values), Test(what="", of=lambda *_: (None, ""), worth=worth), 5) == says


@pytest.mark.parametrize(("counts", "says"), [(True, UNSURE), (False, NO_DIFFERENCE)])
def test_the_same_verdict_of_all_trainings_has_no_interval(counts: bool, says: str) -> None:
    assert judge(found(0.0, 0.0, 0.0, 0.0, 0.0), Test(what="", of=lambda *_: (None, ""), counts=counts), 5) == says


@pytest.mark.parametrize(("said", "answer", "denied"), [
    ([HOLDS, HOLDS], CONFIRMED, CONTRADICTED), ([HOLDS, OTHERWISE], CONTRADICTED, CONTRADICTED),
    ([HOLDS, NO_DIFFERENCE], CONTRADICTED, CONTRADICTED), ([HOLDS, UNSURE], UNDECIDED, CONTRADICTED),
    ([OTHERWISE, OTHERWISE], CONTRADICTED, CONFIRMED), ([NO_DIFFERENCE], CONTRADICTED, CONFIRMED),
    ([UNSURE], UNDECIDED, UNDECIDED), ([NO_DIFFERENCE, UNSURE], CONTRADICTED, UNDECIDED)])
def test_all_tests_confirm_and_one_contradicts(said: list[str], answer: str, denied: str) -> None:
    assert decide(said) == answer
    assert decide(said, denies=True) == denied


class FakeArms:
    """Known values: an arm's measure is what `table` says plus the person's own level, which pairs cancel."""

    people, seeds = ("31", "92", "3", "8", "84"), (1, 2)

    def __init__(self, **table: float):
        self.table = table

    def verdict(self, arm: str, person: str, seed: int) -> str | None:
        return None

    def value(self, arm: str, person: str, seed: int, measure: str):
        if f"{arm}.{measure}" not in self.table:
            return None, f"{arm} was not trained"
        level = {"31": 0.1, "92": -0.1, "3": 0.2, "8": 0.0, "84": 0.05}[person]
        return self.table[f"{arm}.{measure}"] + level + 0.001 * seed, ""


def test_pairs_cancel_the_persons_own_level_and_gaps_are_named() -> None:
    known = {"tutorial.likeness": 0.5, "dadaptation.likeness": 0.2, "tutorial.usefulness": 0.6,
             "regularised.usefulness": 0.6}
    table = {key.replace("_", "-"): value for key, value in known.items()}
    answers = {answer.claim.says: answer for answer in outcomes(FakeArms(**table))}  # type: ignore[arg-type]
    assert answers["DAdaptation underfits"].outcome == CONFIRMED
    assert answers["DAdaptation underfits"].findings[0].mean == pytest.approx(0.3)
    assert answers["regularisation images are pointless"].outcome == CONFIRMED
    missing = answers["AdaFactor underfits"]
    assert missing.outcome == UNDECIDED and len(missing.missing) == 10
    assert missing.missing[1] == "likeness: tutorial - adafactor: person 31, seed 2: adafactor was not trained"


@pytest.mark.parametrize(("control", "answer"), [(0.6, CONTRADICTED), (0.2, UNDECIDED)])
def test_a_measure_that_can_not_tell_decides_nothing(control: float, answer: str) -> None:
    arms = FakeArms(**{"dim-8.memo_rate_bare": -0.2, "copying.memo_rate_bare": control})
    [copies] = [outcome for outcome in outcomes(arms) if outcome.claim.control]  # type: ignore[arg-type]
    assert copies.outcome == answer


def test_arms_are_commands_that_a_user_would_type() -> None:
    from sweep.config import RunConfig

    for arm in ARMS:
        folders, *others = arm_arguments(arm, Path("w"), PEOPLE, SEEDS, [])
        assert folders.startswith("dataset.dir=w/people/31/") and folders.count(",") == 4
        config: RunConfig = loaded(*(part for part in others if not part.startswith(("dataset.holdout_dir", "seed="))))
        assert config.train.base_model.name == "pocket" and config.sweep.name == arm
    steps = [loaded(*ARMS[f"{n}-steps"][1:]).train.max_train_epochs * 14 * 40 for n in (1120, 2240, 6720)]
    assert steps == [1120, 2240, 6720]
    eleven = loaded("experiment=alex/alex_lora1", *ELEVEN[1:])
    assert eleven.sweep.name == "alex" and eleven.note.startswith("Alex_LoRA1: ")
    assert number_of("alex/alex_lora11") == 11


def arm_on_disk(folder: Path, arm: str, people: tuple[int, ...], seeds: tuple[int, ...],
                extra: tuple[str, ...] = ()) -> None:
    """Its arm's file, as `keep` writes it."""
    runs = {f"{person} {seed}": {"status": "done", "num_steps": 1875, "train_id": "t", "figures": {
        "verdict": "good", "likeness": 0.5, "usefulness": "likeness is not known: no face"}}
        for person in people for seed in seeds}
    write_json(alex_arms._file_of(folder, arm), {
        "asked": alex_arms._asked(arm, people, seeds, extra), "date": "2026-11-22", "hardware": "here", "commit": "c",
        "runs": runs})


def test_an_arm_says_why_it_does_not_know(tmp_path) -> None:
    arm_on_disk(tmp_path, "tutorial", (31, 92), (1, 2))
    arms = read_arms(tmp_path, (31, 92), (1, 2))
    assert arms.value("tutorial", "31", 2, "likeness") == (0.5, "")
    assert arms.value("tutorial", "31", 2, "usefulness") == (None, "likeness is not known: no face")
    assert arms.value("tutorial", "31", 2, "bleed") == (None, "not measured")
    assert arms.value("constant", "31", 2, "likeness") == (None, "constant was not trained")
    arms.files["tutorial"]["runs"]["31 2"] |= {"status": "diverged", "figures": {}}
    assert arms.value("tutorial", "31", 2, "likeness") == (None, "tutorial is diverged before its last step")
    assert arms.verdicts("tutorial") == ["good"] * 3 and arms.verdicts("constant") == []


def test_an_arm_of_others_is_trained_again(tmp_path, monkeypatch) -> None:
    arm_on_disk(tmp_path, "tutorial", (31, 92), (1, 2))
    assert kept_of(tmp_path, "tutorial", (92, 31), (2, 1)) is not None
    assert kept_of(tmp_path, "tutorial", (31, 92), (1,)) is None
    assert kept_of(tmp_path, "tutorial", (31, 92), (1, 2), ["max_train_steps=20"]) is None  # a try-out is no result
    before = alex_arms._recipe("tutorial", ())
    monkeypatch.setattr(alex_arms, "MEASURED_AS", "otherwise")
    assert alex_arms._recipe("tutorial", ()) != before
    assert kept_of(tmp_path, "tutorial", (31, 92), (1, 2)) is None
    monkeypatch.undo()
    monkeypatch.setitem(ARMS, "tutorial", (*ARMS["tutorial"], "network_dim=64"))  # type: ignore[arg-type]
    assert kept_of(tmp_path, "tutorial", (31, 92), (1, 2)) is None


def test_the_committed_figures_are_those_of_todays_recipes_and_scoring() -> None:
    """A default that changes would leave them behind: a night to train again, or to be told why not."""
    committed = sorted(path.stem for path in (ROOT / OUT / "arms").glob("*.json"))
    assert committed
    assert [arm for arm in committed if kept_of(ROOT / OUT, arm, PEOPLE, SEEDS) is None] == []


def test_what_is_kept_is_not_trained_again(tmp_path, monkeypatch, capsys) -> None:
    arm_on_disk(tmp_path, "tutorial", (31, 92, 3), (1,))
    trained = []
    monkeypatch.setattr("studies.alex.train", lambda arm, *_: trained.append(arm))
    monkeypatch.setattr("studies.alex.keep", lambda arm, work, out, people, seeds, extra: arm_on_disk(
        out, arm, tuple(people), tuple(seeds)))
    main(["claims", "--people", "31", "92", "3", "--seeds", "1", "--arms", "tutorial", "dadaptation",
          "--out", str(tmp_path)])
    assert trained == ["dadaptation"]
    page = (tmp_path / "claims.md").read_text()
    assert "DAdaptation underfits" in page and "Not trained yet: cosine" in page and "3 good" in page
    assert "contradicted  DAdaptation" in capsys.readouterr().out  # equal likeness


@pytest.mark.parametrize("arguments", [
    ["claims", "--people", "31"], ["claims", "--seeds", "3"], ["claims", "--max-steps", "20"],
    ["claims", "--max-steps", "20", "--results", "x", "--out", "results/alex"], ["best", "--arms", "tutorial"],
    ["eleven", "--people", "31"]])
def test_what_would_overwrite_the_night_or_be_ignored_is_refused(arguments: list[str], monkeypatch) -> None:
    monkeypatch.setattr("studies.alex.train", lambda *_: pytest.fail("trains"))
    with pytest.raises(SystemExit, match="2"):
        main(arguments)


def test_a_failed_training_is_tried_again_and_no_arm_is_kept_without_it(tmp_path, monkeypatch) -> None:
    def result(seed: int, status: str) -> SimpleNamespace:
        config = {"seed": seed, "dataset": {"dir": "w/people/31/photos/train"}}
        return SimpleNamespace(trial=SimpleNamespace(config=config, num_steps=20, train_id=f"t{seed}"), status=status,
                               scores=())

    of = {1: result(1, "diverged"), 2: result(2, "failed")}
    monkeypatch.setattr(alex_arms, "read_record", lambda _: SimpleNamespace(results=tuple(of.values())))
    with pytest.raises(RuntimeError, match="person and seed 31 2 failed"):
        alex_arms.keep("tutorial", tmp_path, tmp_path, (31,), (1, 2))
    assert kept_of(tmp_path, "tutorial", (31,), (1, 2)) is None
    alex_arms.keep("tutorial", tmp_path, tmp_path, (31,), (1,))
    arms = read_arms(tmp_path, (31,), (1,))
    assert arms.value("tutorial", "31", 1, "likeness") == (None, "tutorial is diverged before its last step")


def test_a_share_of_verdicts_is_counted_in_pairs(tmp_path) -> None:
    for arm in ("2240-steps", "6720-steps"):
        arm_on_disk(tmp_path, arm, (31, 92, 3), (1, 2))
    arms = read_arms(tmp_path, (31, 92, 3), (1, 2))
    [claim] = [claim for claim in CLAIMS if claim.says.startswith("6720")]
    assert claim.tests[1].of(arms, "31", 1) == (0.0, "")
    arms.files["6720-steps"]["runs"]["31 1"]["figures"]["verdict"] = "overtrained + bleeds into the class"
    assert claim.tests[1].of(arms, "31", 1) == (1.0, "")
    arms.files["2240-steps"]["runs"]["31 1"]["figures"]["verdict"] = "invalid"
    assert claim.tests[1].of(arms, "31", 1) == (None, "2240-steps has no verdict")


def test_the_claims_look_at_bleed_since_usefulness_holds_it() -> None:
    scoring = loaded("base_model=pocket", *SCORING).scoring
    assert scoring.screen.num_class >= 1 and "bleed" in alex_arms.MEASURES


def rival(usefulness: float | None, lead: tuple[float, float] | None) -> Rival:
    drawn = Drawn(what="LoRA3", base="pocket_rv", num_photos=14, num_steps=6720,
                  score=None if usefulness is None else score("good", usefulness))
    return Rival(drawn=drawn, lead=None if lead is None else Interval(*lead, 16))


def test_the_searchs_lead_is_counted() -> None:
    named = (rival(0.3, (0.1, 0.2)), rival(0.4, (-0.1, 0.2)), rival(0.9, (-0.3, -0.1)), rival(None, None))
    last = tuple(rival(0.2, (0.1, 0.2)) for _ in range(4))
    contests = [Contest(base=base, settings={}, num_trials=16, num_ties=0, best=rival(0.5, None).drawn,
                        named=named[part], last=last[part])
                for base, part in zip(BASES, (slice(2), slice(2, 4)), strict=True)]
    assert sentence_of(contests) == (
        "On new prompts and noise the search's file is better than 1, not to be told from 1, worse than 1, without a "
        "rival in 1 of the 4 by the files that the sweep names, and better than 4 by the last ones at strength 1; "
        "each on its own base.")


def test_the_page_has_both_files_of_each_rival_with_the_lead_over_it() -> None:
    contest = Contest(base="pocket_rv", settings={"network_dim": 32}, num_trials=20, num_ties=0,
                      best=rival(0.5, None).drawn, named=(rival(0.45, (-0.1, 0.2)),), last=(rival(0.3, (0.1, 0.3)),
                                                                                           rival(None, None)))
    named, last = "\n".join(_page([contest], "It is.")).split("### ")[1:]
    assert named.startswith("Against the files that the sweep names") and last.startswith("Against the last files")
    assert "| +0.05 (-0.10 to +0.20): not to be told from |" in named and "| +0.20 (+0.10 to +0.30): better |" in last
    assert last.count("| LoRA3 | 14 | 6720 |") == 3, "the search's own row, and one for each rival"
    assert "network_dim 32." in "\n".join(_page([contest], "It is."))


def test_the_searches_are_commands_and_are_told_apart() -> None:
    for base in BASES:
        arguments = search_arguments(base, Path("results"), [])
        config = loaded(*(part for part in arguments if "," not in part))
        assert config.train.base_model.name == base and config.sweep.name == search_name(base)
    assert len({search_name(base) for base in BASES}) == 2 and "search.start_from=tutorial_25" in SEARCH
    page = (CONF_DIR.parent / "docs" / "alex.md").read_text(encoding="utf-8")
    said = shlex.split(page.partition("sweep.name=alex-search-pocket ")[2].partition("```")[0].replace("\\\n", " "))
    unsaid = ("sweep.", "tracker=", "launcher.")  # where it is kept and on how many cores
    typed = search_arguments("pocket", Path("results"), [])
    assert set(said) == {part for part in typed if not part.startswith(unsaid)}


def test_the_search_starts_from_the_tutorials_recipe_with_nothing_left_open() -> None:
    [point] = read_starts("tutorial_25")
    [recipe] = read_starts("tutorial")
    searched = {key for key, _, value in (part.partition("=") for part in SEARCH) if "(" in value}
    assert point == {**recipe, "dataset.num_images": loaded("experiment=tutorial").train.dataset.num_images}
    assert len(searched) == 5 and searched <= set(point)


@pytest.mark.parametrize(("lacking", "refused"), [(None, False), ("repeats=null", True)])
def test_a_search_that_asked_something_else_is_no_result(lacking, refused, tmp_path, monkeypatch) -> None:
    command = shlex.join(["python", "train.py", *(part for part in SEARCH if part != lacking)])
    record = SimpleNamespace(entry=SimpleNamespace(command=command), results=[SimpleNamespace(status="done")] * 20)
    (tmp_path / search_name("pocket")).mkdir()
    (tmp_path / search_name("pocket") / "sweep.yaml").touch()
    monkeypatch.setattr(alex_best, "read_record", lambda _: record)
    if not refused:
        assert alex_best._finished(tmp_path, "pocket") is record
        return
    with pytest.raises(ValueError, match="is another search, without repeats=null"):
        alex_best._finished(tmp_path, "pocket")


def test_half_a_search_or_half_the_eleven_are_no_result(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"The search on pocket has 0 of 20 trials"):
        write_best(tmp_path, {}, tmp_path)
    with pytest.raises(ValueError, match=r"LoRA1, LoRA2, .*LoRA11 are not trained"):
        main(["best", "--results", str(tmp_path)])


def test_the_contests_prompts_and_noise_are_new() -> None:
    scoring, shipped = fresh(), loaded().scoring
    assert len(scoring.prompts) == NUM_PROMPTS
    assert not {prompt.text for prompt in scoring.prompts} & {prompt.text for prompt in shipped.prompts}
    assert len(scoring.class_prompts) == NUM_CLASS_PROMPTS
    assert not set(scoring.class_prompts) & set(shipped.class_prompts)
    known = {prompt.text for prompt in shipped.prompts}
    drawn_before = [prompt.text for prompt in pool_prompts(72) if prompt.text not in known][:48]
    assert not {prompt.text for prompt in scoring.prompts} & set(drawn_before)
    seeds = {stage.first_seed + i for stage in (shipped.screen, shipped.refine, shipped.confirm) for i in range(64)}
    assert not seeds & set(range(FRESH.first_seed, FRESH.first_seed + FRESH.num_seeds + 1))
