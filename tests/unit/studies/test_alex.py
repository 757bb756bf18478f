"""The rules that answer the claims, and the count of agreement, on data whose answer is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from studies import alex_arms
from studies.alex import ELEVEN, PEOPLE, SEEDS, main, number_of
from studies.alex_arms import ARMS, COMMON, arm_command, kept_of, read_arms
from studies.alex_best import FRESH, SEARCH, SEARCH_NAME, Drawn, sentence_of
from studies.alex_claims import CLAIMS, CONFIRMED, CONTRADICTED, UNDECIDED, Claim, Test, decide, outcomes
from studies.alex_words import NEARLY, NO, NOT_COUNTED, SAID, UNKNOWN, YES, agreement, count_sentence, least_bad
from studies.phenomena import finding
from sweep.comparison import Interval
from sweep.evaluation.verdict import VERDICTS
from sweep.files import write_json
from sweep.trial import AXES, Estimate, Score
from tests.unit.test_config import loaded

Test.__test__ = False  # type: ignore[attr-defined]  # a claim's, not pytest's
SCORE = Score(score_id="s", scoring_id="i", file="f", file_sha256="h", epoch=12, step=6720, strength=1.0,
              stage="screen", num_images=20, axes={}, details={}, replicates={}, verdict="good", notes=(),
              elapsed_s=0.0)


def score(verdict: str, usefulness: float | None = 0.5) -> Score:
    estimate = Estimate(value=usefulness, low=usefulness, high=usefulness, raw=usefulness, n=16)
    return replace(SCORE, verdict=verdict, axes=dict.fromkeys(AXES, estimate))


def test_every_verdict_that_is_waited_for_exists() -> None:
    assert [said.number for said in SAID] == list(range(1, 12))
    assert {verdict for said in SAID for verdict in (*said.exact, *said.near, *said.not_one_of)} <= set(VERDICTS)


@pytest.mark.parametrize(("number", "verdict", "expected"), [
    (4, "does not look like the subject", YES), (4, "does not look like the subject + bleeds into the class", YES),
    (4, "underfit", NEARLY), (4, "very good", NO), (4, "invalid", UNKNOWN), (1, "memorised", NO), (1, "underfit", YES),
    (8, "memorised", YES), (8, "partly copied", NEARLY), (8, "good", NO), (11, "good", NOT_COUNTED)])
def test_agreement(number: int, verdict: str, expected: str) -> None:
    assert agreement(SAID[number - 1], {number: score(verdict)}) == expected


def test_six_is_compared_with_five() -> None:
    said = SAID[5]
    assert agreement(said, {5: score("good", 0.4), 6: score("good", 0.5)}) == YES
    assert agreement(said, {5: score("good", 0.5), 6: score("good", 0.4)}) == NO
    assert agreement(said, {5: None, 6: score("good")}) == UNKNOWN
    assert agreement(SAID[2], {}) == UNKNOWN


def test_what_is_not_known_is_no_agreement() -> None:
    sentence = count_sentence([YES, YES, NEARLY, NO, UNKNOWN, NOT_COUNTED], [1, 5, 9, 10])
    assert "Of the 5 trainings" in sentence and "same of 2, nearly the same of 1, something else of 1" in sentence
    assert "always answers \"does not look like the subject\" says the same of 6." in sentence
    assert "1 can't be judged" in sentence and "2 are among our four" in sentence


def test_the_least_bad_are_the_most_useful_that_are_known() -> None:
    scores = {n: score("good", n / 20) for n in range(1, 12)} | {11: score("invalid", None), 3: None}
    assert least_bad(scores) == [10, 9, 8, 7]


CLAIM = CLAIMS[4]  # one test of usefulness, worth .05


@pytest.mark.parametrize(("values", "answer"), [
    ([0.20, 0.22, 0.18, 0.21, 0.19], CONFIRMED), ([-0.20, -0.22, -0.18, -0.21, -0.19], CONTRADICTED),
    ([0.01, 0.02, 0.01, 0.02, 0.01], CONTRADICTED),  # sure, and not worth it
    ([0.3, -0.1, 0.4, -0.2, 0.2], UNDECIDED), ([0.2, 0.2], UNDECIDED)])
def test_a_claim_is_decided_by_its_interval(values: list[float], answer: str) -> None:
    found = finding("a difference", CLAIM.says, [(str(i), value, "") for i, value in enumerate(values)])
    assert decide(CLAIM, [found]) == answer
    denied = {CONFIRMED: CONTRADICTED, CONTRADICTED: CONFIRMED}.get(answer, answer)
    assert decide(replace(CLAIM, denies=True), [found]) == denied


def test_all_tests_confirm_and_one_contradicts() -> None:
    def found(value: float):
        return finding("d", "c", [(str(i), value + i / 1000, "") for i in range(5)])

    claim: Claim = CLAIMS[5]  # polynomial against two others
    assert decide(claim, [found(0.2), found(0.2)]) == CONFIRMED
    assert decide(claim, [found(0.2), found(-0.2)]) == CONTRADICTED
    unsure = finding("d", "c", [(str(i), 0.3 * (-1) ** i + 0.1, "") for i in range(5)])
    assert decide(claim, [found(0.2), unsure]) == UNDECIDED


class FakeArms:
    """Known values: an arm's measure is what `table` says plus the person's own level, which pairs cancel."""

    people, seeds = ("31", "92", "3", "8", "84"), (1, 2)

    def __init__(self, **table: float):
        self.table = table

    def verdict(self, arm: str, person: str, seed: int) -> str | None:
        return None

    def value(self, arm: str, person: str, seed: int, measure: str, step: int | None = None):
        if f"{arm}.{measure}" not in self.table:
            return None, f"{arm} was not trained"
        level = {"31": 0.1, "92": -0.1, "3": 0.2, "8": 0.0, "84": 0.05}[person]
        return self.table[f"{arm}.{measure}"] + level + 0.001 * seed, ""


def test_pairs_cancel_the_persons_own_level_and_gaps_are_named() -> None:
    known = {"tutorial.likeness": 0.5, "dadaptation.likeness": 0.2, "tutorial.usefulness": 0.6,
             "regularised.usefulness": 0.6}
    table = {key.replace("_", "-"): value for key, value in known.items()}
    answers = {answer.says: answer for answer in outcomes(FakeArms(**table))}  # type: ignore[arg-type]
    assert answers["DAdaptation underfits"].outcome == CONFIRMED
    assert answers["DAdaptation underfits"].findings[0].mean == pytest.approx(0.3)
    assert answers["regularisation images are pointless"].outcome == CONFIRMED
    missing = answers["AdaFactor underfits"]
    assert missing.outcome == UNDECIDED and missing.findings[0].left_out["31"] == "adafactor was not trained"


def test_arms_are_commands_that_a_user_would_type() -> None:
    from sweep.config import RunConfig

    for arm in ARMS:
        command = arm_command(arm, Path("w"), PEOPLE, SEEDS, [])
        assert command[3].startswith("dataset.dir=w/people/31/") and command[3].count(",") == 4
        config: RunConfig = loaded(*(part for part in command[5:] if not part.startswith("dataset.holdout_dir")))
        assert config.train.base_model.name == "pocket"
    eleven = loaded("experiment=alex/alex_lora1", *ELEVEN[1:])
    assert eleven.sweep.name == "alex" and eleven.note.startswith("Alex_LoRA1: ")
    assert number_of("alex/alex_lora11") == 11


def sweep_on_disk(folder: Path, arm: str, people: tuple[int, ...], seeds: tuple[int, ...]) -> None:
    """Its arm's file, as `keep` writes it."""
    runs = {f"{person} {seed}": {"num_steps": 1875, "checkpoints": {
        "375": {"verdict": "underfit", "likeness": 0.2},
        "1875": {"verdict": "good", "likeness": 0.5, "usefulness": "likeness is not known: no face"}}}
        for person in people for seed in seeds}
    write_json(alex_arms._file_of(folder, arm), {
        "asked": alex_arms._asked(arm, people, seeds), "date": "2026-11-22", "hardware": "here", "commit": "c",
        "runs": runs})


def test_an_arm_is_read_by_step_and_says_why_it_does_not_know(tmp_path) -> None:
    sweep_on_disk(tmp_path, "tutorial", (31, 92), (1, 2))
    arms = read_arms(tmp_path, (31, 92), (1, 2))
    assert arms.value("tutorial", "31", 2, "likeness") == (0.5, "")
    assert arms.value("tutorial", "31", 2, "likeness", 375) == (0.2, "")
    assert arms.value("tutorial", "31", 2, "likeness", 400) == (None, "no checkpoint at this step")
    assert arms.value("tutorial", "31", 2, "usefulness") == (None, "likeness is not known: no face")
    assert arms.value("tutorial", "31", 2, "bleed") == (None, "not measured")
    assert arms.value("constant", "31", 2, "likeness") == (None, "constant was not trained")
    assert arms.verdicts("tutorial") == ["good"] * 4 and arms.verdicts("constant") == []


def test_an_arm_of_others_is_trained_again(tmp_path, monkeypatch) -> None:
    sweep_on_disk(tmp_path, "tutorial", (31, 92), (1, 2))
    assert kept_of(tmp_path, "tutorial", (31, 92), (1, 2)) is not None
    assert kept_of(tmp_path, "tutorial", (31, 92), (1,)) is None
    monkeypatch.setitem(ARMS, "tutorial", (*ARMS["tutorial"], "network_dim=64"))  # type: ignore[arg-type]
    assert kept_of(tmp_path, "tutorial", (31, 92), (1, 2)) is None


def test_what_is_kept_is_not_trained_again(tmp_path, monkeypatch, capsys) -> None:
    sweep_on_disk(tmp_path, "tutorial", (31, 92, 3), (1,))
    trained = []
    monkeypatch.setattr("studies.alex.train", lambda arm, *_: trained.append(arm))
    monkeypatch.setattr("studies.alex.keep", lambda arm, work, out, people, seeds: sweep_on_disk(
        out, arm, people, seeds))
    main(["claims", "--people", "31", "92", "3", "--seeds", "1", "--arms", "tutorial", "dadaptation",
          "--out", str(tmp_path)])
    assert trained == ["dadaptation"]
    page = (tmp_path / "claims.md").read_text()
    assert "DAdaptation underfits" in page and "Not trained yet: cosine" in page and "3 good" in page
    assert "confirmed  DAdaptation" not in capsys.readouterr().out


def test_a_share_of_verdicts_is_counted_over_people(tmp_path) -> None:
    sweep_on_disk(tmp_path, "long", (31, 92, 3), (1, 2))
    arms = read_arms(tmp_path, (31, 92, 3), (1, 2))
    [claim] = [claim for claim in CLAIMS if claim.says.startswith("6720")]
    assert claim.tests[1].of(arms, "31", 1) == (-0.5, "")
    arms.files["long"]["runs"]["31 1"]["checkpoints"]["1875"]["verdict"] = "overtrained + bleeds into the class"
    assert claim.tests[1].of(arms, "31", 1) == (0.5, "")
    assert claim.tests[1].of(arms, "8", 1) == (None, "no verdict")


def test_the_claims_look_at_bleed_since_usefulness_holds_it() -> None:
    scoring = loaded("base_model=pocket", *(part for part in COMMON if part.startswith("scoring."))).scoring
    assert scoring.screen.num_class >= 1 and "bleed" in alex_arms.MEASURES


def rival(usefulness: float | None, lead: tuple[float, float] | None):
    drawn = Drawn(what="LoRA3", base="pocket_rv", score=None if usefulness is None else score("good", usefulness))
    return drawn, None if lead is None else Interval(*lead, 16)


def test_the_searchs_lead_is_counted() -> None:
    rivals, leads = zip(rival(0.3, (0.1, 0.2)), rival(0.4, (-0.1, 0.2)), rival(0.9, (-0.3, -0.1)), rival(None, None),
                        strict=True)
    assert sentence_of(rivals, leads) == ("On fresh noise the search's file is better than 1, not to be told from 1, "
                                          "worse than 1, without a rival in 1 of the 4.")


def test_the_search_is_a_command_and_its_noise_is_fresh() -> None:
    from sweep.config import RunConfig

    config: RunConfig = loaded(*(part for part in SEARCH if "(" not in part and ",false" not in part))
    assert config.train.base_model.name == "pocket" and config.sweep.name == SEARCH_NAME
    shipped = loaded().scoring
    seeds = {stage.first_seed + i for stage in (shipped.screen, shipped.refine, shipped.confirm) for i in range(64)}
    assert not seeds & set(range(FRESH.first_seed, FRESH.first_seed + FRESH.num_seeds + 1))
