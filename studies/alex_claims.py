"""What the seeds claim about training, decided on the pocket base: confirmed, contradicted or undecided.

Each test is one number per trial (or pair of trials of one person and seed) that is positive if the claim holds. The
subject is the random effect: a person's value is the mean over the seeds, the interval is 90 % by t over people.

    no difference worth naming: the whole interval lies within `worth` of 0, the least that a user would care about
    holds: the whole interval lies above 0
    the other way: the whole interval lies below 0
    not sure: none of these, a person is missing, or all trainings got the same verdict

A claim is confirmed if all its tests hold, contradicted if one shows no difference or the other way. Of a claim that
something is pointless the tests ask whether it helps: contradicted if it does, confirmed if it surely does not. Where a
control does not hold, the measure can't tell, and the claim is undecided.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from studies.alex_arms import ARMS, HOODIE_SHARE, Arms, Value
from studies.alex_words import BARE_COPIES, COPIES_LIMIT, MEMORISED, OVERFIT, OVERTRAINED
from studies.phenomena import Finding, finding
from sweep.evaluation.verdict import INVALID
from sweep.files import write_json, write_text
from sweep.record.provenance import commit

CONFIRMED, CONTRADICTED, UNDECIDED = "confirmed", "contradicted", "undecided"
HOLDS, NO_DIFFERENCE, OTHERWISE, UNSURE = "holds", "no difference worth naming", "the other way", "not sure"
WORTH = 0.05  # of usefulness, likeness and adherence, whose unit is the way from the base to real photos
WORTH_SHARE = 0.1  # of a share of images or of trainings
LEVELS = ("likeness", "adherence", "diversity", "memo_rate", BARE_COPIES, "bleed", "usefulness")


@dataclass(frozen=True, slots=True, kw_only=True)
class Test:
    """One number that is positive if the claim holds (of one that denies: if there is a difference after all).

    worth: the smallest difference worth naming, 0 where a verdict's threshold is compared with.
    counts: trainings, yes or no. Where all agree, t knows of no spread, but ten trainings say little about a tenth.
    """

    what: str
    of: Callable[[Arms, str, int], Value]  # of a person and a seed
    worth: float = WORTH
    counts: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a seed says. denies: that something is of use. control: must hold, or else the tests' measure can't tell."""

    says: str
    source: str
    tests: tuple[Test, ...]
    denies: bool = False
    control: Test | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A claim's answer, what its tests (and last its control) found and said, and which trainings are missing, why."""

    claim: Claim
    outcome: str
    findings: tuple[Finding, ...]
    said: tuple[str, ...]
    missing: tuple[str, ...]


def _minus(one: str, other: str, measure: str, worth: float = WORTH) -> Test:
    """One arm less the other, of the same person and seed."""
    def of(arms: Arms, person: str, seed: int) -> Value:
        (a, why_a), (b, why_b) = (arms.value(arm, person, seed, measure) for arm in (one, other))
        return (None, why_a or why_b) if a is None or b is None else (a - b, "")

    return Test(what=f"{measure}: {one} - {other}", of=of, worth=worth)


def _beyond(arm: str, measure: str, limit: float, sign: int) -> Test:
    """How far the last file lies beyond a verdict's threshold."""
    def of(arms: Arms, person: str, seed: int) -> Value:
        value, why = arms.value(arm, person, seed, measure)
        return (None, why) if value is None else (sign * (value - limit), "")

    sides = f"{measure} of {arm} - {limit:g}" if sign > 0 else f"{limit:g} - {measure} of {arm}"
    return Test(what=sides, of=of, worth=0.0)


def _more_often(one: str, other: str, verdicts: Sequence[str]) -> Test:
    """How much oftener the last files of one arm than of the other get one of these verdicts."""
    def of(arms: Arms, person: str, seed: int) -> Value:
        of_each = [arms.verdict(arm, person, seed) for arm in (one, other)]
        unknown = [arm for arm, verdict in zip((one, other), of_each, strict=True) if verdict in (None, INVALID)]
        if unknown:
            return None, f"{unknown[0]} has no verdict"
        a, b = (float(verdict in verdicts) for verdict in of_each)
        return a - b, ""

    return Test(what=f"share that is {' or '.join(verdicts)}: {one} - {other}", of=of, worth=WORTH_SHARE, counts=True)


CLAIMS = (
    Claim(says="alpha 1 at dim 128 gives no likeness", source="diary, LoRA4",
          tests=(_beyond("alpha-1", "likeness", 0.25, -1), _minus("6720-steps", "alpha-1", "likeness"))),
    Claim(says="6720 steps at batch size 1 overtrain", source="diary, LoRA3",
          tests=(_minus("2240-steps", "6720-steps", "usefulness"),
                 _more_often("6720-steps", "2240-steps", (OVERTRAINED, OVERFIT, MEMORISED)))),
    Claim(says="dim 8, alpha 1 at 50 repeats copies the photos", source="diary, LoRA8",
          tests=(_beyond("dim-8", BARE_COPIES, COPIES_LIMIT, +1),),
          control=_beyond("copying", BARE_COPIES, COPIES_LIMIT, +1)),
    Claim(says="captions keep clothes apart from the subject", source="diary and seeds/001",
          tests=(_minus("hoodie-uncaptioned", "hoodie-captioned", HOODIE_SHARE, WORTH_SHARE),)),
    Claim(says="more repeats than epochs is better, at as many steps", source="seeds/001",
          tests=(_minus("tutorial", "more-epochs", "usefulness"),)),
    Claim(says="polynomial is the best scheduler", source="seeds/001",
          tests=(_minus("tutorial", "cosine", "usefulness"), _minus("tutorial", "constant", "usefulness"))),
    Claim(says="DAdaptation underfits", source="seeds/001", tests=(_minus("tutorial", "dadaptation", "likeness"),)),
    Claim(says="AdaFactor underfits", source="seeds/001", tests=(_minus("tutorial", "adafactor", "likeness"),)),
    Claim(says="1500 to 3500 steps are best", source="diary",
          tests=(_minus("2240-steps", "1120-steps", "usefulness"), _minus("2240-steps", "6720-steps", "usefulness"))),
    Claim(says="regularisation images are pointless", source="seeds/002", denies=True,
          tests=(_minus("regularised", "tutorial", "usefulness"),)),
)


def judge(found: Finding, test: Test, num_people: int) -> str:
    """What a test's interval says."""
    worth = test.worth
    if found.low is None or found.high is None or len(found.per_person) < num_people:
        return UNSURE
    if test.counts and found.low == found.high:
        return UNSURE
    if -worth < found.low and found.high < worth:
        return NO_DIFFERENCE
    return HOLDS if found.low > 0 else OTHERWISE if found.high < 0 else UNSURE


def decide(said: Sequence[str], *, denies: bool = False) -> str:
    """The claim's answer from what its tests say."""
    if denies:
        return (CONTRADICTED if HOLDS in said else
                CONFIRMED if set(said) <= {NO_DIFFERENCE, OTHERWISE} else UNDECIDED)
    if {NO_DIFFERENCE, OTHERWISE} & set(said):
        return CONTRADICTED
    return CONFIRMED if set(said) == {HOLDS} else UNDECIDED


def outcomes(arms: Arms) -> list[Outcome]:
    """All claims."""
    return [_outcome(arms, claim) for claim in CLAIMS]


def _outcome(arms: Arms, claim: Claim) -> Outcome:
    tests = [*claim.tests, *([claim.control] if claim.control else [])]
    values = [[(person, seed, *test.of(arms, person, seed)) for person in arms.people for seed in arms.seeds]
              for test in tests]
    found = [finding(test.what, claim.says, [(person, value, why) for person, _, value, why in each])
             for test, each in zip(tests, values, strict=True)]
    said = [judge(f, test, len(arms.people)) for f, test in zip(found, tests, strict=True)]
    can_tell = claim.control is None or said[-1] == HOLDS
    missing = [f"{test.what}: person {person}, seed {seed}: {why}" for test, each in zip(tests, values, strict=True)
               for person, seed, value, why in each if value is None]
    return Outcome(claim=claim, findings=tuple(found), said=tuple(said), missing=tuple(missing),
                   outcome=decide(said[:len(claim.tests)], denies=claim.denies) if can_tell else UNDECIDED)


def write_claims(arms: Arms, out: Path) -> None:
    """claims.json with every person's value, claims.md as a table."""
    answers = outcomes(arms)
    levels = {arm: {measure: _level(arms, arm, measure) for measure in LEVELS} for arm in arms.files}
    tree: dict[str, Any] = {
        "command": f"python -m studies.alex claims --people {' '.join(arms.people)} "
                   f"--seeds {' '.join(map(str, arms.seeds))}",
        "commit": commit(), "people": arms.people, "seeds": list(arms.seeds),
        "interval": "90 %, t over people, seeds averaged", "worth": {"scores": WORTH, "shares": WORTH_SHARE},
        "claims": [{"says": a.claim.says, "source": a.claim.source, "outcome": a.outcome, "said": a.said,
                    "findings": [asdict(_rounded(f)) for f in a.findings], "missing": a.missing} for a in answers],
        "arms": {arm: {measure: asdict(_rounded(f)) for measure, f in found.items()} for arm, found in levels.items()}}
    write_json(out / "claims.json", tree)
    write_text(out / "claims.md", "\n".join(_page(tree, arms, answers, levels)) + "\n")
    print("\n".join(f"{a.outcome:>13}  {a.claim.says}" for a in answers))


def _level(arms: Arms, arm: str, measure: str) -> Finding:
    return finding(arm, measure, [(person, *arms.value(arm, person, seed, measure))
                                  for person in arms.people for seed in arms.seeds])


def _page(tree: Mapping[str, Any], arms: Arms, answers: Sequence[Outcome],
          levels: Mapping[str, Mapping[str, Finding]]) -> list[str]:
    lines = ["# What the seeds claim, on the pocket base", "", f"    {tree['command']}", "",
             f"{len(arms.people)} held-out men x {len(arms.seeds)} seeds. A difference is positive if the claim holds "
             "(of the pointless: if it is of use); its 90 % interval is by t over people. Confirmed: all tests hold, "
             "which is to say that the whole interval lies above 0. Contradicted: one shows the other way, all below "
             f"0, or no difference worth naming, all within {WORTH:g} of a score or {WORTH_SHARE:g} of a share. A "
             "miniature: what holds here need not hold on SD 1.5.", "",
             "| claim | said by | answer | tested by | difference | which says |", "|---|---|---|---|---|---|"]
    for answer in answers:
        claim = answer.claim
        for i, (f, said) in enumerate(zip(answer.findings, answer.said, strict=True)):
            first = (claim.says, claim.source, f"**{answer.outcome}**") if i == 0 else ("", "", "")
            what = f.setting if i < len(claim.tests) else f"control: {f.setting}"
            lines.append(f"| {' | '.join(first)} | {what} | {_cell(f)} | {said} |")
    lines += ["", "## The trainings, last file at strength 1", "",
              f"| training | {' | '.join(LEVELS)} | verdicts | made |", "|---" * (len(LEVELS) + 3) + "|"]
    for arm, found in levels.items():
        made = arms.files[arm]
        verdicts = ", ".join(f"{n} {word}" for word, n in Counter(arms.verdicts(arm)).most_common())
        lines.append(f"| {arm} | {' | '.join(_cell(found[measure]) for measure in LEVELS)} | {verdicts} | "
                     f"{made['date']}, {made['commit']} |")
    eight = [_cell(_difference(arms, _minus("8-bit", "tutorial", measure))) for measure in ("likeness", "usefulness")]
    lines += ["", "All train with AdamW in 32 bits where no optimizer is asked about. What the seeds' own 8 bits "
              f"change in the tutorial's recipe: likeness {eight[0]}, usefulness {eight[1]}."]
    missing = [arm for arm in ARMS if arm not in arms.files]
    lines += ["", f"Not trained yet: {', '.join(missing)}."] if missing else []
    hows = dict.fromkeys(made["hardware"] for made in arms.files.values())
    lines += ["", f"Trained on: {'; '.join(hows)}." if hows else ""]
    out = [f"- {line}" for answer in answers for line in answer.missing]
    return [*lines, *(["", "## Left out", "", "A claim with a person missing is undecided.", "", *dict.fromkeys(out)]
                      if out and not missing else [])]


def _difference(arms: Arms, test: Test) -> Finding:
    return finding(test.what, "", [(person, *test.of(arms, person, seed))
                                   for person in arms.people for seed in arms.seeds])


def _cell(f: Finding) -> str:
    if not f.per_person:
        return "not known"
    return f"{f.mean:.2f}" + ("" if f.low is None else f" ({f.low:.2f} to {f.high:.2f})")


def _rounded(f: Finding) -> Finding:
    def short(value: float | None) -> float | None:
        return None if value is None or value != value else round(value, 3)

    return replace(f, mean=short(f.mean), low=short(f.low), high=short(f.high),  # type: ignore[arg-type]
                   per_person={who: round(value, 3) for who, value in f.per_person.items()})
