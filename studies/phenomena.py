"""What LoRA training does on the pocket base: `python -m studies.phenomena`.

Held-out people x seeds, 14 photos each, the tutorials' rates. Four settings answer four questions:

    aligned      alpha = dim = 128: does likeness rise above the base's floor?
    alpha 1      alpha = 1 at dim 128, as many steps: does it stay at the floor?
    far too long the aligned training's last checkpoint: does it lose the prompt (hair), and copy?
    one hoodie   all photos in the same hoodie, captioned or not: does the hoodie stick where no clothes are asked for?

Every training is an ordinary trial of an ordinary sweep, so a kill loses nothing: the same command goes on. Writes
phenomena.json and phenomena.md into results/pocket/. Intervals are 90 %, by t over people, each person's value being
the mean over the seeds: the claim is about people, and the seeds of one person are not independent of each other.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep.files import read_json, read_jsonl, write_json, write_text
from sweep.record.provenance import commit, hardware
from sweep.trial import Score, Trial, score_from_json, trial_folder

WORK = Path("results/phenomena")
OUT = Path("results/pocket")
PEOPLE = (177, 31, 92)  # held-out men with black hair; the first is the default subject
SEEDS = (1, 2)
NUM_STEPS, LONG_STEPS = 1250, 5000
HOODIE = ("green", "hoodie")
PLAIN_PROMPTS = ("photo of {subject}, portrait", "photo of {subject} on a beach, portrait",
                 "photo of {subject} in a forest, portrait", "photo of {subject} in a city, half-body")

COMMON = ("network_dim=128", "unet_lr=1e-4", "text_encoder_lr=5e-5", "dataset.num_images=14",
          "save_every_n_epochs=100000", "scoring.screen.prompts=all", "scoring.screen.num_seeds=2",
          "scoring.choice.strengths=[1.0]", "scoring.choice.confirm=false", "tracker=none",
          "dataset.holdout_dir=${dataset.dir}/../holdout", f"sweep.results_dir={WORK}")
SWEEPS = {
    "aligned": ("photos", f"max_train_steps={LONG_STEPS}", f"save_every_n_steps={NUM_STEPS}"),
    "alpha 1": ("photos", "network_alpha=1", f"max_train_steps={NUM_STEPS}"),
    "hoodie captioned": ("hoodie", f"max_train_steps={NUM_STEPS}"),
    "hoodie uncaptioned": ("hoodie", f"max_train_steps={NUM_STEPS}", "dataset.captions=false"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One setting's mean of one measure, with its 90 % interval over people."""

    setting: str
    measure: str
    mean: float
    low: float
    high: float
    per_person: tuple[float, ...]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="What LoRA training does on the pocket base, with intervals.")
    parser.add_argument("--people", type=int, nargs="+", default=PEOPLE, help="held-out identities, 0 to 299")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="training seeds")
    parser.add_argument("--report-only", action="store_true", help="read what is there; train nothing")
    asked = parser.parse_args(arguments)
    render_people(asked.people)
    if not asked.report_only:
        for name in SWEEPS:
            subprocess.run(sweep_command(name, asked.people, asked.seeds), check=True)
    findings = [*score_findings(), *hoodie_findings()]
    write_report(findings, len(asked.people), len(asked.seeds))


def render_people(people: Sequence[int]) -> None:
    """Each person's photos, once as they come and once with the same hoodie on all of them."""
    from sweep.pocket.subject import write_subject

    for person in people:
        for kind, clothes in (("photos", None), ("hoodie", HOODIE)):
            if not (WORK / "people" / str(person) / kind / "subject.json").exists():
                write_subject(person, WORK / "people" / str(person) / kind, num_photos=14, clothes=clothes)


def sweep_command(name: str, people: Sequence[int], seeds: Sequence[int]) -> list[str]:
    kind, *overrides = SWEEPS[name]
    folders = ",".join(str(WORK / "people" / str(person) / kind / "train") for person in people)
    return [sys.executable, "train.py", "-m", f"dataset.dir={folders}", f"seed={','.join(map(str, seeds))}",
            f"sweep.name={name.replace(' ', '-')}", *COMMON, *overrides]


def trials_of(name: str) -> list[Trial]:
    return [Trial(**row) for row in read_jsonl(WORK / name.replace(" ", "-") / "trials.jsonl")]


def person_of(trial: Trial) -> str:
    return Path(str(trial.config["dataset"]["dir"])).parents[1].name


def scores_of(trial: Trial) -> dict[int, Score]:
    """The screening score of each checkpoint, by step."""
    scores = [score_from_json(read_json(path)) for path in trial_folder(WORK, trial.train_id).scores.glob("*.json")
              if not path.name.startswith("answer-")]
    return {score.step: score for score in scores if score.stage == "screen"}


def score_findings() -> list[Finding]:
    """Likeness, the hair probe, drift to the natural colour and the distance to training photos."""
    later = range(2 * NUM_STEPS, LONG_STEPS + 1, NUM_STEPS)
    points = [("base", "aligned", NUM_STEPS), ("aligned", "aligned", NUM_STEPS), ("alpha 1", "alpha 1", NUM_STEPS),
              *((f"aligned, {step} steps", "aligned", step) for step in later)]
    findings = []
    for setting, sweep, step in points:
        scores = [(person_of(trial), scores_of(trial)[step]) for trial in trials_of(sweep)]
        for measure in ("likeness", "adherence", "probe_hair", "drift_to_natural", "nearest_prompts", "usefulness"):
            values = [(person, _measured(score, measure, is_base=setting == "base")) for person, score in scores]
            if all(value is not None for _, value in values):
                findings.append(finding(setting, measure, [(p, v) for p, v in values if v is not None]))
    return findings


def _measured(score: Score, measure: str, *, is_base: bool) -> float | None:
    if not is_base:
        return score.axes[measure].value if measure in score.axes else score.details[measure]
    at_floor = {"likeness": 0.0, "adherence": 1.0, "drift_to_natural": 0.0,
                "nearest_prompts": score.details["nearest_prompts_base"]}
    return at_floor.get(measure)


def hoodie_findings() -> list[Finding]:
    """How often the judge sees the photos' hoodie on prompts that name no clothes."""
    import torch

    from sweep.evaluation.generate import Row, generate
    from sweep.evaluation.settings import Sampler
    from sweep.identity import base_identity
    from sweep.model.base import BaseModelConfig
    from sweep.model.loading import load_base
    from sweep.network.lora_file import LoraFile, read_lora
    from sweep.network.targets import find_targets
    from sweep.pocket.models import load_judge
    from sweep.pocket.world import ATTRIBUTES

    config = BaseModelConfig(name="pocket", path=None, resolution=64)
    base = load_base(config, base_identity(config, WORK))
    targets, judge = find_targets(base), load_judge()
    sampler = Sampler(name="dpmpp_2m_karras", num_steps=20, guidance_scale=7.0, negative_prompt="")
    colour, kind = (ATTRIBUTES[name].index(value) for name, value in zip(("clothes_colour", "clothes_type"), HOODIE,
                                                                         strict=True))

    def share(lora: LoraFile | None, subject: str) -> float:
        rows = [Row(lora, 1.0, prompt.format(subject=subject), seed) for prompt in PLAIN_PROMPTS for seed in range(8)]
        found = judge.attributes(generate(base, targets, rows, sampler, resolution=64))
        is_hoodie = (found["clothes_colour"].argmax(1) == colour) & (found["clothes_type"].argmax(1) == kind)
        return float(torch.as_tensor(is_hoodie).float().mean())

    bare = share(None, "a man")
    findings = [finding("base", "hoodie_share", [("all", bare)])]
    for setting in ("hoodie captioned", "hoodie uncaptioned"):
        values = []
        for trial in trials_of(setting):
            [file] = trial_folder(WORK, trial.train_id).checkpoints.glob("*.safetensors")
            values.append((person_of(trial), share(read_lora(file, targets), "alexq man")))
        findings.append(finding(setting, "hoodie_share", values))
    return findings


def finding(setting: str, measure: str, values: Sequence[tuple[str, float]]) -> Finding:
    from sweep.comparison import t_quantile

    people = sorted({person for person, _ in values})
    means = [statistics.fmean(value for who, value in values if who == person) for person in people]
    mean = statistics.fmean(means)
    half = (t_quantile(len(means) - 1) * statistics.stdev(means) / len(means) ** 0.5) if len(means) > 1 else 0.0
    return Finding(setting, measure, mean, mean - half, mean + half, tuple(means))


def write_report(findings: Sequence[Finding], num_people: int, num_seeds: int) -> None:
    tree: dict[str, Any] = {
        "command": "python -m studies.phenomena", "hardware": hardware(), "commit": commit(), "num_people": num_people,
        "num_seeds": num_seeds, "interval": "90 %, t over people",
        "findings": [{"setting": f.setting, "measure": f.measure, "mean": round(f.mean, 3), "low": round(f.low, 3),
                      "high": round(f.high, 3), "per_person": [round(v, 3) for v in f.per_person]} for f in findings]}
    write_json(OUT / "phenomena.json", tree)
    measures = list(dict.fromkeys(f.measure for f in findings))
    settings = list(dict.fromkeys(f.setting for f in findings))
    cells = {(f.setting, f.measure): f"{f.mean:.2f}" + (f" ({f.low:.2f} to {f.high:.2f})" if len(f.per_person) > 1
                                                        else "") for f in findings}
    table = [f"| setting | {' | '.join(measures)} |", "|---" * (len(measures) + 1) + "|"]
    table += [f"| {s} | {' | '.join(cells.get((s, m), '') for m in measures)} |" for s in settings]
    write_text(OUT / "phenomena.md", "# LoRA training on the pocket base\n\n"
               f"`{tree['command']}` on {tree['hardware']}: {num_people} held-out people x {num_seeds} seeds, 14 "
               "photos, dim 128, rates 1e-4 and 5e-5. Means with 90 % intervals over people (t, seeds averaged). "
               "likeness: 0 = base model, 1 = held-out photos. probe_hair: 1 = as the base. nearest_prompts: "
               "perceptual distance to the nearest training photo, smaller = nearer. hoodie_share: of images whose "
               "prompt names no clothes, those with the photos' hoodie.\n\n" + "\n".join(table) + "\n")


if __name__ == "__main__":
    main()
