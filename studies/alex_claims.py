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
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from studies.phenomena import Finding, HoodieWatcher, finding, measured, person_of, score_at, subject_of
from sweep.files import read_json, stable_hash, write_json, write_text
from sweep.pocket import WEIGHTS_DIR
from sweep.record.facts import read_record
from sweep.record.provenance import commit, hardware
from sweep.trial import TrialResult, trial_folder

CONFIRMED, CONTRADICTED, UNDECIDED = "confirmed", "contradicted", "undecided"
WORTH = 0.05  # of usefulness, likeness and adherence, whose unit is the way from the base to real photos
WORTH_SHARE = 0.1  # of a share of images

# sweep's name -> photos, what it trains. All on the pocket base, so that nothing differs but what a claim is about.
ARMS: Mapping[str, tuple[str, ...]] = {
    "long": ("photos", "experiment=alex/alex_lora3"),
    "alpha-1": ("photos", "experiment=alex/alex_lora4", "save_every_n_epochs=12"),
    "dim-8": ("photos", "experiment=alex/alex_lora8", "save_every_n_epochs=12"),
    "tutorial": ("photos", "experiment=tutorial", "save_every_n_epochs=5"),
    "cosine": ("photos", "experiment=scheduler/cosine_with_restarts", "save_every_n_epochs=5"),
    "constant": ("photos", "experiment=scheduler/constant", "save_every_n_epochs=5"),
    "dadaptation": ("photos", "experiment=adaptive/dadaptation", "save_every_n_epochs=5"),
    "adafactor": ("photos", "experiment=adaptive/adafactor", "save_every_n_epochs=5"),
    "more-epochs": ("photos", "experiment=tutorial", "repeats=5", "max_train_epochs=15", "save_every_n_epochs=15"),
    "regularised": ("photos", "experiment=tutorial", "dataset.generate_reg=375", "save_every_n_epochs=5"),
    "hoodie-captioned": ("hoodie", "experiment=captions/with", "save_every_n_epochs=5"),
    "hoodie-uncaptioned": ("hoodie", "experiment=captions/without", "save_every_n_epochs=5"),
}
EPOCH = 560  # steps of "long": 14 photos x 40 repeats
IN_RANGE, BELOW, ABOVE = (3, 4, 5, 6), (1, 2), (7, 8, 9, 10, 11, 12)  # its epochs of 1500 to 3500 steps, and the others

Value = tuple[float | None, str]
"""Or None, and why there is none."""


class Trials:
    """What the arms have left behind, by arm, person and seed."""

    def __init__(self, work: Path, people: Sequence[int], seeds: Sequence[int]):
        self.work, self.people, self.seeds = work, [str(person) for person in people], list(seeds)
        self._results = {(arm, person_of(result.trial), int(result.trial.config["seed"])): result
                         for arm in ARMS for result in _results_of(work / arm)}
        self._watcher: HoodieWatcher | None = None

    def value(self, arm: str, person: str, seed: int, measure: str, step: int | None = None) -> Value:
        """A measure of the checkpoint at this step; None = the last one."""
        result = self._results.get((arm, person, seed))
        if result is None:
            return None, f"{arm} was not trained"
        step = result.trial.num_steps if step is None else step
        if measure == "hoodie_share":
            return self._hoodie_share(result, step)
        return measured(score_at(result, step), measure)

    def _hoodie_share(self, result: TrialResult, step: int) -> Value:
        trial, score = result.trial, score_at(result, step)
        if score is None:
            return None, "no checkpoint at this step"
        folder = trial_folder(self.work, trial.train_id)
        known = folder.root / "hoodie_share.json"  # drawn once
        if not known.exists() or read_json(known)["file"] != score.file_sha256:
            self._watcher = self._watcher or HoodieWatcher()
            subject = subject_of(Path(str(trial.config["dataset"]["dir"])).parent)
            write_json(known, {"file": score.file_sha256,
                               "share": self._watcher.share(folder.checkpoints / score.file, subject)})
        return float(read_json(known)["share"]), ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Test:
    """One number that is positive if the claim holds."""

    what: str
    of: Callable[[Trials, str, int], Value]  # of a person and a seed
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
    def of(trials: Trials, person: str, seed: int) -> Value:
        (a, why_a), (b, why_b) = (trials.value(arm, person, seed, measure) for arm in (one, other))
        return (None, why_a or why_b) if a is None or b is None else (a - b, "")

    return Test(what=f"{measure}: {one} - {other}", of=of, worth=worth)


def _beyond(arm: str, measure: str, limit: float, sign: int) -> Test:
    """How far the last file lies beyond a verdict's threshold."""
    def of(trials: Trials, person: str, seed: int) -> Value:
        value, why = trials.value(arm, person, seed, measure)
        return (None, why) if value is None else (sign * (value - limit), "")

    sides = f"{measure} of {arm} - {limit:g}" if sign > 0 else f"{limit:g} - {measure} of {arm}"
    return Test(what=sides, of=of, worth=0.0)


def _epochs(name: str, some: Sequence[int], others: Sequence[int], measure: str = "usefulness") -> Test:
    """Mean over some epochs of the long training less that over others."""
    def of(trials: Trials, person: str, seed: int) -> Value:
        means = []
        for epochs in (some, others):
            values = [trials.value("long", person, seed, measure, epoch * EPOCH) for epoch in epochs]
            if missing := [why for value, why in values if value is None]:
                return None, missing[0]
            means.append(statistics.fmean(value for value, _ in values if value is not None))
        return means[0] - means[1], ""

    return Test(what=f"{measure} of long: {name}", of=of)


CLAIMS = (
    Claim(says="alpha 1 at dim 128 gives no likeness", source="diary, LoRA4",
          tests=(_beyond("alpha-1", "likeness", 0.25, -1), _minus("long", "alpha-1", "likeness"))),
    Claim(says="6720 steps at batch size 1 overtrain", source="diary, LoRA3",
          tests=(_epochs("1680 steps - 6720", (3,), (12,)),)),
    Claim(says="dim 8, alpha 1 at 50 repeats copies the photos", source="diary, LoRA8",
          tests=(_beyond("dim-8", "memo_rate", 0.25, +1),)),
    Claim(says="captions keep clothes apart from the subject", source="diary and seeds/001",
          tests=(_minus("hoodie-uncaptioned", "hoodie-captioned", "hoodie_share", WORTH_SHARE),)),
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


def outcomes(trials: Trials) -> list[Outcome]:
    """All claims."""
    answers = []
    for claim in CLAIMS:
        found = [finding(test.what, claim.says, [(person, *test.of(trials, person, seed))
                                                 for person in trials.people for seed in trials.seeds])
                 for test in claim.tests]
        answers.append(Outcome(says=claim.says, source=claim.source, outcome=decide(claim, found),
                               findings=tuple(found)))
    return answers


def write_claims(work: Path, out: Path, people: Sequence[int], seeds: Sequence[int]) -> None:
    """claims.json with every person's value, claims.md as a table."""
    trials = Trials(work, people, seeds)
    answers = outcomes(trials)
    levels = {arm: {measure: finding(arm, measure, [(person, *trials.value(arm, person, seed, measure))
                                                    for person in trials.people for seed in trials.seeds])
                    for measure in ("likeness", "adherence", "diversity", "memo_rate", "usefulness")} for arm in ARMS}
    tree: dict[str, Any] = {
        "command": f"python -m studies.alex claims --people {' '.join(map(str, people))} "
                   f"--seeds {' '.join(map(str, seeds))}",
        "date": time.strftime("%Y-%m-%d", time.gmtime()), "hardware": hardware(), "commit": commit(),
        "weights": stable_hash(read_json(WEIGHTS_DIR / "weights.json")), "people": list(people), "seeds": list(seeds),
        "interval": "90 %, t over people, seeds averaged", "worth": {"scores": WORTH, "shares": WORTH_SHARE},
        "claims": [asdict(replace(a, findings=tuple(_rounded(f) for f in a.findings))) for a in answers],
        "arms": {arm: {measure: asdict(_rounded(f)) for measure, f in found.items()} for arm, found in levels.items()}}
    write_json(out / "claims.json", tree)
    write_text(out / "claims.md", "\n".join(_page(tree, answers, levels)) + "\n")
    print("\n".join(f"{a.outcome:>13}  {a.says}" for a in answers))


def _page(tree: Mapping[str, Any], answers: Sequence[Outcome],
          levels: Mapping[str, Mapping[str, Finding]]) -> list[str]:
    lines = ["# What the seeds claim, on the pocket base", "",
             f"`{tree['command']}` on {tree['hardware']}, {tree['date']}, commit {tree['commit']}.", "",
             f"{len(tree['people'])} held-out men x {len(tree['seeds'])} seeds. A difference is positive if the claim "
             "holds; its 90 % interval is by t over people. Confirmed: all of it above 0. Contradicted: all of it "
             f"below what is worth naming ({WORTH:g} of a score, {WORTH_SHARE:g} of a share of images, 0 against a "
             "verdict's threshold). A miniature: what holds here need not hold on SD 1.5.", "",
             "| claim | said by | answer | tested by | difference | people |", "|---|---|---|---|---|---|"]
    for answer in answers:
        for i, f in enumerate(answer.findings):
            first = (answer.says, answer.source, answer.outcome) if i == 0 else ("", "", "")
            lines.append(f"| {' | '.join(first)} | {f.setting} | {_cell(f)} | {len(f.per_person)} |")
    measures = list(next(iter(levels.values())))
    lines += ["", "## The trainings, last file at strength 1", "", f"| training | {' | '.join(measures)} |",
              "|---" * (len(measures) + 1) + "|"]
    lines += [f"| {arm} | {' | '.join(_cell(found[measure]) for measure in measures)} |"
              for arm, found in levels.items()]
    out = [f"- {f.setting}: person {who} is left out: {why}" for a in answers for f in a.findings
           for who, why in f.left_out.items()]
    return [*lines, *(["", "## Left out", "", *dict.fromkeys(out)] if out else [])]


def _results_of(sweep_dir: Path) -> Sequence[TrialResult]:
    return read_record(sweep_dir).results if (sweep_dir / "sweep.yaml").exists() else ()


def _cell(f: Finding) -> str:
    if not f.per_person:
        return "not known"
    return f"{f.mean:.2f}" + ("" if f.low is None else f" ({f.low:.2f} to {f.high:.2f})")


def _rounded(f: Finding) -> Finding:
    def short(value: float | None) -> float | None:
        return None if value is None or value != value else round(value, 3)

    return replace(f, mean=short(f.mean), low=short(f.low), high=short(f.high),  # type: ignore[arg-type]
                   per_person={who: round(value, 3) for who, value in f.per_person.items()})
