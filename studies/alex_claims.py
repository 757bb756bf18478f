"""What the seeds claim about training, decided on the pocket base: confirmed, contradicted or undecided.

Each claim is one number per trial (or pair of trials of one person and seed) that is positive if the claim holds. The
subject is the random effect: a person's value is the mean over the seeds, the interval is 90 % by t over people.

    confirmed     the whole interval lies above 0
    contradicted  the whole interval lies below `worth`, the smallest difference that a user would care about
    undecided     neither; or fewer than three people can be measured

A sure but tiny advantage (above 0, below `worth`) counts as contradicted: worth the trouble is what was claimed. Claims
that something makes no difference ("pointless") are read the other way round.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from studies.alex_arms import ARMS, HOODIE_SHARE, Arms, Value
from studies.phenomena import Finding, finding
from sweep.evaluation.verdict import INVALID
from sweep.files import write_json, write_text
from sweep.record.provenance import commit

CONFIRMED, CONTRADICTED, UNDECIDED = "confirmed", "contradicted", "undecided"
WORTH = 0.05  # of usefulness, likeness and adherence, whose unit is the way from the base to real photos
WORTH_SHARE = 0.1  # of a share of images
LEVELS = ("likeness", "adherence", "diversity", "memo_rate", "bleed", "usefulness")

EPOCH = 560  # steps of "long": 14 photos x 40 repeats
IN_RANGE, BELOW, ABOVE = (3, 4, 5, 6), (1, 2), (7, 8, 9, 10, 11, 12)  # its epochs of 1500 to 3500 steps, and the others

@dataclass(frozen=True, slots=True, kw_only=True)
class Test:
    """One number that is positive if the claim holds."""

    what: str
    of: Callable[[Arms, str, int], Value]  # of a person and a seed
    worth: float = WORTH


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a seed says. It is confirmed if all its tests are, contradicted if one of them is."""

    says: str
    source: str
    tests: tuple[Test, ...]
    denies: bool = False  # it says that something makes no difference: the tests are of the difference


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A claim's answer, and what its tests found."""

    says: str
    source: str
    outcome: str
    findings: tuple[Finding, ...]


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


def _epochs(name: str, some: Sequence[int], others: Sequence[int], measure: str = "usefulness") -> Test:
    """Mean over some epochs of the long training less that over others."""
    def of(arms: Arms, person: str, seed: int) -> Value:
        means = []
        for epochs in (some, others):
            values = [arms.value("long", person, seed, measure, epoch * EPOCH) for epoch in epochs]
            if missing := [why for value, why in values if value is None]:
                return None, missing[0]
            means.append(statistics.fmean(value for value, _ in values if value is not None))
        return means[0] - means[1], ""

    return Test(what=f"{measure} of long: {name}", of=of)


def _judged(arm: str, verdicts: Sequence[str]) -> Test:
    """How far more than half of the last files get one of these verdicts."""
    def of(arms: Arms, person: str, seed: int) -> Value:
        verdict = arms.verdict(arm, person, seed)
        return (None, "no verdict") if verdict is None or verdict == INVALID else (float(verdict in verdicts) - 0.5, "")

    return Test(what=f"share of {arm} that is {' or '.join(verdicts)} - 0.5", of=of, worth=0.0)


CLAIMS = (
    Claim(says="alpha 1 at dim 128 gives no likeness", source="diary, LoRA4",
          tests=(_beyond("alpha-1", "likeness", 0.25, -1), _minus("long", "alpha-1", "likeness"))),
    Claim(says="6720 steps at batch size 1 overtrain", source="diary, LoRA3",
          tests=(_epochs("1680 steps - 6720", (3,), (12,)),
                 _judged("long", ("overtrained", "mildly overfit", "memorised", "low variety")))),
    Claim(says="dim 8, alpha 1 at 50 repeats copies the photos", source="diary, LoRA8",
          tests=(_beyond("dim-8", "memo_rate", 0.25, +1),)),
    Claim(says="captions keep clothes apart from the subject", source="diary and seeds/001",
          tests=(_minus("hoodie-uncaptioned", "hoodie-captioned", HOODIE_SHARE, WORTH_SHARE),)),
    Claim(says="more repeats than epochs is better", source="seeds/001",
          tests=(_minus("tutorial", "more-epochs", "usefulness"),)),
    Claim(says="polynomial is the best scheduler", source="seeds/001",
          tests=(_minus("tutorial", "cosine", "usefulness"), _minus("tutorial", "constant", "usefulness"))),
    Claim(says="DAdaptation underfits", source="seeds/001", tests=(_minus("tutorial", "dadaptation", "likeness"),)),
    Claim(says="AdaFactor underfits", source="seeds/001", tests=(_minus("tutorial", "adafactor", "likeness"),)),
    Claim(says="1500 to 3500 steps are best", source="diary",
          tests=(_epochs("1680 to 3360 steps - 560 to 1120", IN_RANGE, BELOW),
                 _epochs("1680 to 3360 steps - 3920 to 6720", IN_RANGE, ABOVE))),
    Claim(says="regularisation images are pointless", source="seeds/002", denies=True,
          tests=(_minus("regularised", "tutorial", "usefulness"),)),
)


def decide(claim: Claim, findings: Sequence[Finding]) -> str:
    """The claim's answer from its tests' intervals."""
    each = [_decide(found, test.worth) for found, test in zip(findings, claim.tests, strict=True)]
    answer = CONTRADICTED if CONTRADICTED in each else CONFIRMED if set(each) == {CONFIRMED} else UNDECIDED
    return {CONFIRMED: CONTRADICTED, CONTRADICTED: CONFIRMED}.get(answer, answer) if claim.denies else answer


def _decide(found: Finding, worth: float) -> str:
    if found.low is None or found.high is None:
        return UNDECIDED
    if found.high < worth:
        return CONTRADICTED
    return CONFIRMED if found.low > 0 else UNDECIDED


def outcomes(arms: Arms) -> list[Outcome]:
    """All claims."""
    answers = []
    for claim in CLAIMS:
        found = [_finding(arms, test, claim.says) for test in claim.tests]
        answers.append(Outcome(says=claim.says, source=claim.source, outcome=decide(claim, found),
                               findings=tuple(found)))
    return answers


def _finding(arms: Arms, test: Test, says: str) -> Finding:
    return finding(test.what, says, [(person, *test.of(arms, person, seed))
                                     for person in arms.people for seed in arms.seeds])


def write_claims(arms: Arms, out: Path) -> None:
    """claims.json with every person's value, claims.md as a table."""
    answers = outcomes(arms)
    levels = {arm: {measure: _level(arms, arm, measure) for measure in LEVELS} for arm in arms.files}
    tree: dict[str, Any] = {
        "command": f"python -m studies.alex claims --people {' '.join(arms.people)} "
                   f"--seeds {' '.join(map(str, arms.seeds))}",
        "commit": commit(), "people": arms.people, "seeds": list(arms.seeds),
        "interval": "90 %, t over people, seeds averaged", "worth": {"scores": WORTH, "shares": WORTH_SHARE},
        "claims": [asdict(replace(a, findings=tuple(_rounded(f) for f in a.findings))) for a in answers],
        "arms": {arm: {measure: asdict(_rounded(f)) for measure, f in found.items()} for arm, found in levels.items()}}
    write_json(out / "claims.json", tree)
    write_text(out / "claims.md", "\n".join(_page(tree, arms, answers, levels)) + "\n")
    print("\n".join(f"{a.outcome:>13}  {a.says}" for a in answers))


def _level(arms: Arms, arm: str, measure: str) -> Finding:
    return finding(arm, measure, [(person, *arms.value(arm, person, seed, measure))
                                  for person in arms.people for seed in arms.seeds])


def _page(tree: Mapping[str, Any], arms: Arms, answers: Sequence[Outcome],
          levels: Mapping[str, Mapping[str, Finding]]) -> list[str]:
    lines = ["# What the seeds claim, on the pocket base", "", f"    {tree['command']}", "",
             f"{len(arms.people)} held-out men x {len(arms.seeds)} seeds. A difference is positive if the claim "
             "holds; its 90 % interval is by t over people. Confirmed: all of it above 0. Contradicted: all of it "
             f"below what is worth naming ({WORTH:g} of a score, {WORTH_SHARE:g} of a share of images, 0 against a "
             "verdict's threshold). A miniature: what holds here need not hold on SD 1.5.", "",
             "| claim | said by | answer | tested by | difference | people |", "|---|---|---|---|---|---|"]
    for answer in answers:
        for i, f in enumerate(answer.findings):
            first = (answer.says, answer.source, answer.outcome) if i == 0 else ("", "", "")
            lines.append(f"| {' | '.join(first)} | {f.setting} | {_cell(f)} | {len(f.per_person)} |")
    lines += ["", "## The trainings, last file at strength 1", "",
              f"| training | {' | '.join(LEVELS)} | verdicts | made |", "|---" * (len(LEVELS) + 3) + "|"]
    for arm, found in levels.items():
        made = arms.files[arm]
        verdicts = ", ".join(f"{n} {word}" for word, n in Counter(arms.verdicts(arm)).most_common())
        lines.append(f"| {arm} | {' | '.join(_cell(found[measure]) for measure in LEVELS)} | {verdicts} | "
                     f"{made['date']}, {made['commit']} |")
    eight = [_cell(_finding(arms, _minus("8-bit", "tutorial", measure), "")) for measure in ("likeness", "usefulness")]
    lines += ["", "All train with AdamW in 32 bits where no optimizer is asked about. What the seeds' own 8 bits "
              f"change in the tutorial's recipe: likeness {eight[0]}, usefulness {eight[1]}."]
    missing = [arm for arm in ARMS if arm not in arms.files]
    lines += ["", f"Not trained yet: {', '.join(missing)}."] if missing else []
    hows = dict.fromkeys(made["hardware"] for made in arms.files.values())
    lines += ["", f"Trained on: {'; '.join(hows)}." if hows else ""]
    out = [f"- {f.setting}: person {who} is left out: {why}" for a in answers for f in a.findings
           for who, why in f.left_out.items()]
    return [*lines, *(["", "## Left out", "", *dict.fromkeys(out)] if out else [])]


def _cell(f: Finding) -> str:
    if not f.per_person:
        return "not known"
    return f"{f.mean:.2f}" + ("" if f.low is None else f" ({f.low:.2f} to {f.high:.2f})")


def _rounded(f: Finding) -> Finding:
    def short(value: float | None) -> float | None:
        return None if value is None or value != value else round(value, 3)

    return replace(f, mean=short(f.mean), low=short(f.low), high=short(f.high),  # type: ignore[arg-type]
                   per_person={who: round(value, 3) for who, value in f.per_person.items()})
