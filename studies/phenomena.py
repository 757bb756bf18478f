"""What LoRA training does on the pocket base: `python -m studies.phenomena`.

Held-out people x seeds, 14 photos each, the tutorials' rates. Six settings answer five questions:

    aligned      alpha = dim = 128: does likeness rise above the base's floor?
    alpha 1      alpha = 1 at dim 128, as many steps: does it stay at the floor?
    too fast     ten times the rate: does it keep its likeness, lose the prompt (hair), and come nearer to its photos?
                 The aligned training goes on for as many steps again beside it.
    class images images of the class, shown as often as the photos: does "a man" stay another man?
    one hoodie   all photos in the same hoodie, captioned or not, against the aligned training with its various clothes:
                 does the hoodie stick where no clothes are asked for?

Every training is an ordinary trial of an ordinary sweep, so a kill loses nothing: the same command goes on. Writes
phenomena.json and phenomena.md into results/pocket/. Intervals are 90 %, by t over people, each person's value being
the mean over the seeds: the seeds of one person are not independent of each other.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep.files import read_json, stable_hash, write_json, write_text
from sweep.pocket import WEIGHTS_DIR
from sweep.record.facts import read_record
from sweep.record.provenance import commit, hardware
from sweep.trial import Score, Trial, TrialResult, trial_folder

WORK = Path("results/phenomena")
OUT = Path("results/pocket")
# Held-out men with black hair who are not the base's average man (likeness can't be known of one who is, d' < 2).
PEOPLE = (31, 92, 3)
SEEDS = (1, 2)
NUM_STEPS = 1250
HOODIE = ("green", "hoodie")
MEASURES = ("likeness", "adherence", "probe_hair", "drift_to_natural", "memorisation", "memo_rate", "nearest_prompts",
            "nearest_unseen_photos", "diversity", "bleed", "usefulness")
PLAIN_PROMPTS = ("photo of {subject}, portrait", "photo of {subject} on a beach, portrait",
                 "photo of {subject} in a forest, portrait", "photo of {subject} in a city, half-body")

COMMON = ("network_dim=128", "unet_lr=1e-4", "text_encoder_lr=5e-5", "dataset.num_images=14",
          "save_every_n_epochs=100000", "scoring.screen.prompts=refine", "scoring.screen.num_seeds=2",
          "scoring.screen.num_class=2", "scoring.choice.strengths=[1.0]", "scoring.choice.confirm=0", "tracker=none",
          "dataset.holdout_dir=${dataset.dir}/../holdout", f"sweep.results_dir={WORK}",
          "launcher.devices=2")  # on two cores two one-thread workers outrun one of two threads
SWEEPS = {
    "aligned": ("photos", f"max_train_steps={2 * NUM_STEPS}", f"save_every_n_steps={NUM_STEPS}"),
    "ten times the rate": ("photos", "unet_lr=1e-3", "text_encoder_lr=5e-4", f"max_train_steps={NUM_STEPS}"),
    # every second step shows an image that the base drew of its class
    "class images": ("photos", "dataset.generate_reg=200", f"max_train_steps={2 * NUM_STEPS}"),
    "alpha 1": ("photos", "network_alpha=1", f"max_train_steps={NUM_STEPS}"),
    "hoodie captioned": ("hoodie", f"max_train_steps={NUM_STEPS}"),
    "hoodie uncaptioned": ("hoodie", f"max_train_steps={NUM_STEPS}", "dataset.captions=false"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One setting's mean of one measure. low, high: its 90 % interval over people; None of fewer than three.

    left_out: why people are missing in it, by person.
    """

    setting: str
    measure: str
    mean: float
    low: float | None
    high: float | None
    per_person: dict[str, float]
    left_out: dict[str, str]


def main(arguments: Sequence[str] | None = None) -> None:
    """Render, train, measure, report."""
    parser = argparse.ArgumentParser(description="What LoRA training does on the pocket base, with intervals.")
    parser.add_argument("--people", type=int, nargs="+", default=PEOPLE, help="held-out identities, 0 to 299")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="training seeds")
    parser.add_argument("--report-only", action="store_true", help="read what is there; train nothing")
    asked = parser.parse_args(arguments)
    render_people(asked.people)
    if not asked.report_only:
        for name in SWEEPS:
            subprocess.run(sweep_command(name, asked.people, asked.seeds), check=True)
    trials = {name: trials_of(name, asked.people, asked.seeds) for name in SWEEPS}
    write_report([*score_findings(trials), *hoodie_findings(trials)], verdicts(trials), asked.people, asked.seeds)


def render_people(people: Sequence[int]) -> None:
    """Each person's photos, once as they come and once with the same hoodie on all of them."""
    from sweep.pocket.subject import write_subject

    for person in people:
        for kind, clothes in (("photos", None), ("hoodie", HOODIE)):
            if not (folder_of(person, kind) / "subject.json").exists():
                write_subject(person, folder_of(person, kind), num_photos=14, clothes=clothes)


def folder_of(person: int | str, kind: str) -> Path:
    """Where a person's photos lie."""
    return WORK / "people" / str(person) / kind


def subject_of(folder: Path) -> str:
    """Trigger and class of a rendered person."""
    words = read_json(folder / "subject.json")
    return f"{words['trigger']} {words['class_noun']}"


def sweep_command(name: str, people: Sequence[int], seeds: Sequence[int]) -> list[str]:
    """What a user would type."""
    kind, *overrides = SWEEPS[name]
    folders = ",".join(str(folder_of(person, kind) / "train") for person in people)
    return [sys.executable, "train.py", "-m", f"dataset.dir={folders}", f"seed={','.join(map(str, seeds))}",
            f"sweep.name={name.replace(' ', '-')}", *COMMON, *overrides]


def trials_of(name: str, people: Sequence[int], seeds: Sequence[int]) -> list[TrialResult]:
    """The sweep's trials of these people and seeds, with its scores; it may hold others from an earlier call."""
    return [result for result in read_record(WORK / name.replace(" ", "-")).results
            if result.trial.config["seed"] in seeds and person_of(result.trial) in map(str, people)]


def person_of(trial: Trial) -> str:
    """The number of the person that it trains on."""
    return Path(str(trial.config["dataset"]["dir"])).parents[1].name


def score_at(result: TrialResult, step: int) -> Score | None:
    """The screening score of a checkpoint; None if the trial never got there."""
    return next((score for score in result.scores if score.stage == "screen" and score.step == step), None)


POINTS = {"aligned": ("aligned", NUM_STEPS), "aligned, 2500 steps": ("aligned", 2 * NUM_STEPS),
          "alpha 1": ("alpha 1", NUM_STEPS), "ten times the rate": ("ten times the rate", NUM_STEPS),
          "class images": ("class images", 2 * NUM_STEPS)}
"""What is measured of which sweep, and at which step."""
HOODIES = {"various clothes": ("aligned", NUM_STEPS), "hoodie captioned": ("hoodie captioned", NUM_STEPS),
           "hoodie uncaptioned": ("hoodie uncaptioned", NUM_STEPS)}


def verdicts(trials: Mapping[str, Sequence[TrialResult]]) -> dict[str, dict[str, int]]:
    """How many trainings got which verdict, by setting, the commonest first."""
    return {setting: dict(Counter(score.verdict for result in trials[sweep]
                                  if (score := score_at(result, step)) is not None).most_common())
            for setting, (sweep, step) in (POINTS | HOODIES).items() if setting != "various clothes"}


def score_findings(trials: Mapping[str, Sequence[TrialResult]]) -> list[Finding]:
    """Likeness, the hair probe, drift to the natural colour, copies and the distance to training photos."""
    findings: list[Finding] = []
    for setting, (sweep, step) in POINTS.items():
        scores = [(person_of(result.trial), score_at(result, step)) for result in trials[sweep]]
        for measure in MEASURES:
            findings.append(finding(setting, measure, [(person, *measured(score, measure))
                                                       for person, score in scores]))
    return [*findings, *differences(findings, "ten times the rate", "aligned"),
            *differences(findings, "class images", "aligned")]


def differences(findings: Sequence[Finding], setting: str, other: str) -> list[Finding]:
    """Of each person's values in two settings."""
    values = {(f.setting, f.measure): f.per_person for f in findings}
    return [finding(f"{setting}, minus {other}", measure,
                    [(who, value - values[other, measure][who], "") for who, value in values[setting, measure].items()
                     if who in values[other, measure]]) for measure in MEASURES]


def measured(score: Score | None, measure: str) -> tuple[float | None, str]:
    """A measure's value, or why there is none."""
    if score is None:
        return None, "no checkpoint at this step"
    if measure in score.axes:
        axis = score.axes[measure]
        return axis.value, axis.reason
    value = score.details.get(measure)
    return value, "" if value is not None else "not measured"


def hoodie_findings(trials: Mapping[str, Sequence[TrialResult]]) -> list[Finding]:
    """How often the judge sees the photos' hoodie on prompts that name no clothes: trained on it with and without
    captions, trained on various clothes, and the difference that captions make to each person."""
    shares: dict[str, list[tuple[str, float | None, str]]] = {setting: [] for setting in HOODIES}
    see = HoodieWatcher()
    for setting, (sweep, step) in HOODIES.items():
        for result in trials[sweep]:
            trial, score = result.trial, score_at(result, step)
            if score is None:
                shares[setting].append((person_of(trial), None, "no checkpoint at this step"))
                continue
            file, person = trial_folder(WORK, trial.train_id).checkpoints / score.file, person_of(trial)
            shares[setting].append((person, see.share(file, subject_of(folder_of(person, "hoodie"))), ""))
    findings = [finding(setting, "hoodie_share", values) for setting, values in shares.items()]
    captioned, uncaptioned = findings[1].per_person, findings[2].per_person
    pairs = [(person, uncaptioned[person] - captioned[person], "") for person in captioned if person in uncaptioned]
    return [*findings, finding("uncaptioned minus captioned", "hoodie_share", pairs)]


class HoodieWatcher:
    """Draws a LoRA's images on prompts without clothes and asks the pocket world's judge what they wear."""

    def __init__(self) -> None:
        from sweep.identity import base_identity
        from sweep.model.base import BaseModelConfig
        from sweep.model.loading import load_base
        from sweep.network.targets import find_targets
        from sweep.pocket.models import load_judge

        config = BaseModelConfig(name="pocket", path=None, resolution=64)
        self.base = load_base(config, base_identity(config, WORK))
        self.targets, self.judge = find_targets(self.base), load_judge()

    def share(self, file: Path, subject: str) -> float:
        """Of the images, those with HOODIE. subject: "alexq man"."""
        import yaml

        from sweep.evaluation.generate import Row, generate
        from sweep.evaluation.settings import ScoringConfig
        from sweep.network.lora_file import read_lora
        from sweep.pocket.world import ATTRIBUTES
        from sweep.schema import build

        scoring = build(ScoringConfig, yaml.safe_load(Path("conf/scoring/pocket.yaml").read_text(encoding="utf-8")))
        lora = read_lora(file, self.targets)
        rows = [Row(lora, 1.0, prompt.format(subject=subject), seed) for prompt in PLAIN_PROMPTS for seed in range(8)]
        found = self.judge.attributes(generate(self.base, self.targets, rows, scoring.sampler, resolution=64))
        colour, kind = (ATTRIBUTES[name].index(value)
                        for name, value in zip(("clothes_colour", "clothes_type"), HOODIE, strict=True))
        is_hoodie = (found["clothes_colour"].argmax(1) == colour) & (found["clothes_type"].argmax(1) == kind)
        return float(is_hoodie.float().mean())


def finding(setting: str, measure: str, values: Sequence[tuple[str, float | None, str]]) -> Finding:
    """The mean over people of each one's mean over seeds. values: (person, value or None, why None)."""
    from sweep.comparison import t_quantile

    people = dict.fromkeys(person for person, _, _ in values)
    known = {person: [v for who, v, _ in values if who == person and v is not None] for person in people}
    means = {person: statistics.fmean(of_one) for person, of_one in known.items() if of_one}
    left_out = {person: reason for person, value, reason in values if value is None}
    if not means:
        return Finding(setting, measure, math.nan, None, None, {}, left_out)
    mean = statistics.fmean(means.values())
    if len(means) < 3:
        return Finding(setting, measure, mean, None, None, means, left_out)
    half = t_quantile(len(means) - 1) * statistics.stdev(means.values()) / len(means) ** 0.5
    return Finding(setting, measure, mean, mean - half, mean + half, means, left_out)


def write_report(findings: Sequence[Finding], verdicts: Mapping[str, Mapping[str, int]], people: Sequence[int],
                 seeds: Sequence[int]) -> None:
    """phenomena.json with every person's value, phenomena.md as a table."""
    weights = json.loads((WEIGHTS_DIR / "weights.json").read_text(encoding="utf-8"))
    tree: dict[str, Any] = {
        "command": f"python -m studies.phenomena --people {' '.join(map(str, people))} "
                   f"--seeds {' '.join(map(str, seeds))}",
        "date": time.strftime("%Y-%m-%d", time.gmtime()), "hardware": hardware(), "commit": commit(),
        "weights": stable_hash(weights), "people": list(people), "seeds": list(seeds),
        "interval": "90 %, t over people", "verdicts": verdicts,
        "findings": [{"setting": f.setting, "measure": f.measure, "mean": _rounded(f.mean), "low": _rounded(f.low),
                      "high": _rounded(f.high), "left_out": f.left_out,
                      "per_person": {who: _rounded(v) for who, v in f.per_person.items()}} for f in findings]}
    write_json(OUT / "phenomena.json", tree)
    measures = list(dict.fromkeys(f.measure for f in findings))
    settings = list(dict.fromkeys(f.setting for f in findings))
    cells = {(f.setting, f.measure): _cell(f) for f in findings}
    table = [f"| setting | {' | '.join(measures)} |", "|---" * (len(measures) + 1) + "|"]
    table += [f"| {s} | {' | '.join(cells.get((s, m), '') for m in measures)} |" for s in settings]
    verdict_rows = [f"| {setting} | {', '.join(f'{n} {word}' for word, n in counts.items())} |\n"
                    for setting, counts in verdicts.items()]
    reasons = [f"- {f.setting}, {f.measure}: person {who} is left out: {reason}"
               for f in findings for who, reason in f.left_out.items()]
    write_text(OUT / "phenomena.md", "# LoRA training on the pocket base\n\n"
               f"`{tree['command']}` on {tree['hardware']}, {tree['date']}: {len(people)} held-out black-haired men x "
               f"{len(seeds)} seeds, 14 photos, dim 128, rates 1e-4 and 5e-5, {NUM_STEPS} steps where nothing else is "
               "said. Means with 90 % intervals over people (t, seeds averaged). likeness: 0 = the base model by "
               "definition, 1 = held-out photos seen through the base's autoencoder. adherence, probe_hair: 1 = as the "
               "base by definition. bleed: likeness on prompts for the class alone, 0 = as the base, 1 = the subject. "
               "memo_rate: share of the images that copy a training photo. nearest_prompts, nearest_unseen_photos: "
               "perceptual distance to the nearest training photo of the images, and of unseen "
               "photos of the same person; images copy if they come nearer than those. hoodie_share: of images whose "
               "prompt names no clothes, those with the photos' hoodie.\n\n"
               + "\n".join(table) + "\n\n| setting | verdicts of its trainings |\n|---|---|\n"
               + "".join(verdict_rows) + ("\n" + "\n".join(reasons) + "\n" if reasons else ""))


def _cell(f: Finding) -> str:
    if math.isnan(f.mean):
        return "not known"
    return f"{f.mean:.2f}" + ("" if f.low is None else f" ({f.low:.2f} to {f.high:.2f})")


def _rounded(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else round(value, 3)


if __name__ == "__main__":
    main()
