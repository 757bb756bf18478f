"""The tutorial's table of three methods, measured on one subject. `python -m studies.methods`, on the pocket base.

Seed 001 compares textual inversion, DreamBooth and LoRA by the images they need, the size of what comes out, and its
quality. Here each method trains on few and on many of the pocket's own photos for the same number of steps, its best
checkpoint is chosen as in any sweep and scored as a file, and the table says size, minutes and scores. LoRA and
DreamBooth train once more on the many photos with class images in between, for twice as many steps.

Each method's trials are an ordinary sweep, so a kill loses little: the same command goes on. Arguments behind the
options are further overrides of all three, e.g. scoring.screen.num_seeds=1.
Writes README.md and figures.json into results/<date>_methods/.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studies.options import add_places, today
from sweep.comparison import are_tied
from sweep.errors import ScoringError
from sweep.files import read_jsonl, write_json, write_text
from sweep.methods import DREAMBOOTH, LORA, METHODS, TITLES
from sweep.record.facts import read_record
from sweep.record.provenance import commit, hardware
from sweep.record.sentences import figure
from sweep.trial import AXES, Estimate, Score, TrialFolder, TrialResult, to_json, trial_folder

WORK = Path("results/try-methods")
RATES = {"lora": (1e-3, 5e-5), "dreambooth": (1e-4, 0.0), "textual_inversion": (0.0, 2e-2)}
"""Of the UNet and the text encoder, or its vectors. This base likes higher rates than Stable Diffusion. Tried on 20
photos over 300 steps were 1e-4, 3e-4 and 1e-3 for the LoRA (usefulness .42, .52, .64), 1e-5, 3e-5 and 1e-4 for
DreamBooth (.38, .47, .61), and 5e-3, 2e-2 and 6e-2 for the vectors (.36, .36, .35)."""
NEEDED = {"lora": "20-50", "dreambooth": "3-5, ideally 20-30", "textual_inversion": "3-5, ideally 20-30"}
"""Images, as the tutorial has them (seeds/001)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One trial. is_best: no trial on as many photos is better by more than chance on the same prompts.

    num_class_images: that the base drew to hold the class apart from the subject.
    bleed: likeness to the subject where only the class was asked for; None where it was not measured.
    training_minutes: of its steps alone; a trial that shares its passes with others costs less than alone.
    """

    method: str
    num_photos: int
    num_class_images: int
    seed: int
    file_bytes: int
    training_minutes: float
    step: int
    strength: float
    axes: Mapping[str, Estimate]
    bleed: float | None
    verdict: str
    is_best: bool


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and score what is missing, report."""
    parser = argparse.ArgumentParser(prog="python -m studies.methods", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, nargs="+", default=[4, 20], help="how many of the subject's 25 photos")
    parser.add_argument("--steps", type=int, default=800, help="of each training")
    parser.add_argument("--checkpoints", type=int, default=2, help="of each training")
    parser.add_argument("--class-images", type=int, default=100, help="that the base draws; 0 = none")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="training seeds")
    add_places(parser, "methods", WORK, "trials and images are")
    asked, overrides = parser.parse_known_args(arguments)
    if any(not override.partition("=")[2] for override in overrides):
        parser.error(f"unknown: {' '.join(overrides)}")
    made_by = commit()
    found: list[TrialResult] = []
    jobs = [(method, asked.steps, asked.photos, 0) for method in METHODS]
    if asked.class_images:
        jobs += [(method, 2 * asked.steps, [max(asked.photos)], asked.class_images) for method in (LORA, DREAMBOOTH)]
    for method, num_steps, photos, num_class_images in jobs:
        name = f"{method}-{num_steps}" + (f"-class{num_class_images}" if num_class_images else "")
        subprocess.run([sys.executable, "train.py", "-m", *settings(method, num_steps, asked.checkpoints),
                        f"dataset.num_images={','.join(map(str, photos))}",
                        f"dataset.generate_reg={num_class_images or 'null'}",
                        f"seed={','.join(map(str, asked.seeds))}", "tracker=none", f"sweep.name={name}",
                        f"sweep.results_dir={asked.work}", f"launcher.threads={asked.threads}", "launcher.devices=1",
                        *overrides], check=True)
        found += read_record(asked.work / name).results
    options = " ".join(map(str, ["--photos", *asked.photos, "--steps", asked.steps, "--checkpoints", asked.checkpoints,
                                 "--class-images", asked.class_images, "--seeds", *asked.seeds, *overrides]))
    write_report(rows_of(found, asked.work), asked.out, {
        "command": f"python -m studies.methods {options}", "date": today(), "hardware": hardware(), "commit": made_by,
        "rates": RATES})
    print((asked.out / "README.md").read_text(encoding="utf-8"))


def settings(method: str, num_steps: int, num_checkpoints: int) -> list[str]:
    """What a method's sweep trains, but for photos and seeds."""
    unet_lr, text_encoder_lr = RATES[method]
    return [f"method={method}", f"unet_lr={unet_lr}", f"text_encoder_lr={text_encoder_lr}",
            f"max_train_steps={num_steps}", f"save_every_n_steps={max(1, num_steps // num_checkpoints)}",
            "save_every_n_epochs=100000"]


def rows_of(results: Sequence[TrialResult], results_dir: Path) -> list[Row]:
    """By number of photos, then by method. Raises ScoringError for a trial without an answer."""
    rows = []
    for result in sorted(results, key=lambda each: (_num_photos(each), _num_class_images(each),
                                                     list(METHODS).index(_method(each)))):
        answer = result.answer
        if answer is None:
            raise ScoringError(f"Trial {result.trial.train_id} ({_method(result)}) has no answer: {result.status}. "
                               f"{result.reason}")
        rivals = [other.answer.score for other in results
                  if other.answer is not None and _num_photos(other) == _num_photos(result)]
        folder = trial_folder(results_dir, result.trial.train_id)
        rows.append(Row(method=_method(result), num_photos=_num_photos(result),
                        num_class_images=_num_class_images(result), seed=int(result.trial.config["seed"]),
                        file_bytes=(folder.checkpoints / answer.file).stat().st_size,
                        training_minutes=seconds_per_step(folder) * result.trial.num_steps / 60, step=answer.step,
                        strength=answer.strength, axes=answer.score.axes,
                        bleed=answer.score.details.get("bleed"), verdict=answer.score.verdict,
                        is_best=_is_best(answer.score, rivals)))
    return rows


def seconds_per_step(folder: TrialFolder) -> float:
    """The median, from one step's row to the next; what lies between them is scoring."""
    rows = read_jsonl(folder.metrics)
    taken = [after["attributed_s"] - before["attributed_s"] for before, after in itertools.pairwise(rows)
             if before["kind"] == after["kind"] == "train"]
    return statistics.median(taken)


def _is_best(score: Score, rivals: Sequence[Score]) -> bool:
    mine = score.axes["usefulness"].value
    if mine is None:
        return False
    values = [(rival.axes["usefulness"].value, rival) for rival in rivals]
    return all(value is None or value <= mine or are_tied(rival, score) for value, rival in values)


def _method(result: TrialResult) -> str:
    return str(result.trial.config["method"]["name"])


def _num_photos(result: TrialResult) -> int:
    return int(result.trial.config["dataset"]["num_images"])


def _num_class_images(result: TrialResult) -> int:
    return int(result.trial.config["dataset"].get("generate_reg") or 0)


def write_report(rows: Sequence[Row], out: Path, made: Mapping[str, Any]) -> None:
    """figures.json and README.md."""
    write_json(out / "figures.json", {**made, "rows": [to_json(row) for row in rows]})
    lines = ["# Three methods on one subject", "",
             "The tutorial's table (seeds/001), measured on the pocket base: likeness of 1 is a real photo, adherence "
             "of 1 the base itself; of memorisation and bleed (likeness where only the class was asked for) 0 is best. "
             "All of them enter usefulness.", "",
             "| method | photos | the tutorial wants | class images | file | training, minutes | at | "
             + " | ".join(AXES) + " | bleed | verdict |", "|---|---|---|---|---|---|---|" + "---|" * (len(AXES) + 2)]
    for row in rows:
        at = f"step {row.step}" + (f", strength {row.strength:g}" if row.method == "lora" else "")
        name = TITLES[row.method]
        lines.append(f"| {f'**{name}**' if row.is_best else name} | {row.num_photos} | {NEEDED[row.method]} | "
                     f"{row.num_class_images} | {size(row.file_bytes)} | {row.training_minutes:.1f} | {at} | "
                     + " | ".join(figure(row.axes.get(axis)) for axis in AXES)
                     + f" | {'unknown' if row.bleed is None else f'{row.bleed:.2f}'} | {row.verdict} |")
    rates = ", ".join(f"{TITLES[name]} {' / '.join(f'{rate:g}' for rate in pair)}"
                      for name, pair in made["rates"].items())
    lines += ["", "Bold: none on as many photos has a greater usefulness by more than chance on the same prompts "
              "(training seeds are not counted in). A LoRA's strength was chosen too; the other two have none.",
              "",
              f"Rates (UNet / text encoder or vectors): {rates}. DreamBooth leaves the text encoder as it is. LoRA: "
              "rank 32. Textual inversion: 4 vectors from the class noun. Class images are drawn by the base; half of "
              "the steps are theirs.", "",
              f"{made['hardware']}; commit {made['commit']}.", "", f"    {made['command']}", ""]
    write_text(out / "README.md", "\n".join(lines))


def size(num_bytes: int) -> str:
    """In the unit that people use for such files."""
    for unit, divisor in (("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= divisor:
            return f"{num_bytes / divisor:.1f} {unit}"
    return f"{num_bytes / 1e3:.1f} kB"


if __name__ == "__main__":
    main()
