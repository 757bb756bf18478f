"""Do the intervals cover? `python -m studies.intervals`, on a pool of images of one LoRA on the pocket base.

The pool (2,000 images of the LoRA and as many of the base, 200 prompts of the shipped kind x 10 seeds) stands for all
images that could be drawn: what the formulas make of the whole of it is the truth. Samples of the size of a stage are
drawn from it, prompts with replacement and seeds of each without, and the anchors with them: the base's images on the
same cells, and the real photos, with replacement. The stated 90 % interval of each axis and of U must hold
the truth in 85 to 95 % of the samples.

Images are kept prompt by prompt: after a kill the same command goes on. Writes README.md and figures.json into
results/<date>_intervals/.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from studies.image_pool import NUM_SEEDS, Drawn, Pool, pool_of
from studies.options import add_places, today
from sweep.evaluation.anchors import Anchors
from sweep.evaluation.intervals import rate_interval
from sweep.evaluation.measure import Measured, MeasuredSet
from sweep.evaluation.score import Judgement, judge
from sweep.evaluation.settings import STAGES
from sweep.files import read_jsonl, write_json, write_text
from sweep.record.provenance import commit, hardware
from sweep.trial import AXES, trial_folder

WORK = Path("results/try-intervals")
STAGE = "confirm"
WANTED = (0.85, 0.95)
TRAIN = ["train.py", "network_dim=32", "dataset.num_images=14", "scoring=none", "tracker=none"]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a stage draws. num_varied: prompts with a second seed. num_class: prompts of the class."""

    name: str
    num_prompts: int
    num_varied: int
    num_class: int


# As conf/scoring/pocket.yaml has them.
LAYOUTS = (Layout("screen", 8, 0, 0), Layout("refine", 16, 0, 0), Layout("confirm", 16, 5, 4))


@dataclass(frozen=True, slots=True)
class Coverage:
    """Of one axis at one layout. spread: standard deviation of the estimate over samples; stated: the mean of what the
    intervals say it is (half their width). bias: mean estimate less the truth."""

    layout: str
    axis: str
    truth: float
    num: int
    covered: float
    low: float
    high: float
    bias: float
    spread: float
    half_width: float
    num_unknown: int


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw what is missing of the pool, sample, report."""
    parser = argparse.ArgumentParser(prog="python -m studies.intervals", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000, help="images of the LoRA in the pool; 200 for a try")
    parser.add_argument("--samples", type=int, default=500, help="resamplings of prompts and seeds")
    parser.add_argument("--lora", type=Path, help="a LoRA of the pocket base's own subject; default: one is trained")
    parser.add_argument("--about", default="", help="a sentence on that LoRA, for the report")
    parser.add_argument("--steps", type=int, default=1000, help="of that training")
    add_places(parser, "intervals", WORK, "the pool is")
    asked = parser.parse_args(arguments)
    if asked.images < 4 * NUM_SEEDS:
        parser.error(f"--images={asked.images}: it takes at least {4 * NUM_SEEDS}, {NUM_SEEDS} of each prompt")
    torch.set_num_threads(asked.threads)
    made_by, began = commit(), time.monotonic()
    lora = asked.lora or trained(asked.steps, asked.work, asked.threads)
    pool = pool_of(lora, asked.images, asked.work, say)
    found = [row for layout in LAYOUTS for row in coverages(pool, layout, asked.samples)]
    options = f" --steps {asked.steps}" if asked.lora is None else f" --lora {asked.lora.name}"
    write_report(found, asked.out, {
        "command": f"python -m studies.intervals --images {asked.images} --samples {asked.samples}{options}",
        "about": asked.about, "date": today(), "hardware": hardware(), "commit": made_by, "num_images": pool.num_images,
        "num_prompts": pool.num_images // NUM_SEEDS, "minutes": round((time.monotonic() - began) / 60, 1)})
    print((asked.out / "README.md").read_text(encoding="utf-8"))


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def trained(num_steps: int, work: Path, threads: int) -> Path:
    """The last file of a training on 14 photos of the pocket's own subject; an ordinary trial, which a kill does not
    lose."""
    subprocess.run([sys.executable, *TRAIN, f"max_train_steps={num_steps}", f"sweep.results_dir={work}",
                    f"launcher.threads={threads}", f"sweep.name=intervals-{num_steps}"], check=True)
    [row] = read_jsonl(work / f"intervals-{num_steps}" / "trials.jsonl")
    files = trial_folder(work, row["train_id"]).checkpoints.glob("*.safetensors")
    return min(files, key=lambda path: len(path.name))  # an epoch's has its number at the end


def coverages(pool: Pool, layout: Layout, num_samples: int) -> list[Coverage]:
    """Of each axis and of bleed."""
    true = _figures(judged(pool, *_everything(pool, layout)))
    rng = random.Random(f"samples {layout.name}")
    samples = [_figures(judged(other_photos(pool, rng), *_sample(pool, layout, rng))) for _ in range(num_samples)]
    return [coverage_of(layout.name, axis, truth, [sample[axis] for sample in samples])
            for axis, (truth, _, _) in true.items() if truth is not None]


Figure = tuple[float | None, float | None, float | None]  # value, low, high


def _figures(judgement: Judgement) -> dict[str, Figure]:
    found: dict[str, Figure] = {name: (axis.value, axis.low, axis.high) for name, axis in judgement.axes.items()}
    for name in ("leak", "bleed"):
        found[name] = (judgement.details.get(name), judgement.details.get(f"{name}_low"),
                       judgement.details.get(f"{name}_high"))
    return {name: found[name] for name in (*AXES, "leak", "bleed")}


def coverage_of(layout: str, axis: str, truth: float, samples: Sequence[Figure]) -> Coverage:
    """Samples whose value or interval can't be known are counted apart."""
    known = [(value, low, high) for value, low, high in samples
             if value is not None and low is not None and high is not None]
    hits = sum(low <= truth <= high for _, low, high in known)
    bounds = rate_interval(hits, len(known))
    values = [value for value, _, _ in known] or [float("nan")]
    return Coverage(layout, axis, truth, len(known), hits / max(len(known), 1), bounds.low or 0.0, bounds.high or 0.0,
                    statistics.fmean(values) - truth, statistics.pstdev(values),
                    statistics.fmean((high - low) / 2 for _, low, high in known) if known else float("nan"),
                    len(samples) - len(known))


Picked = tuple[tuple[str, int], tuple[int, ...]]  # which prompt of the pool, which of its seeds


def _everything(pool: Pool, layout: Layout) -> tuple[list[Picked], list[Picked], bool]:
    keys = [key for key in pool.lora if key[0] == "prompt"]
    classes = [key for key in pool.lora if key[0] == "class"] if layout.num_class else []
    seeds = tuple(range(NUM_SEEDS))
    return [(key, seeds) for key in keys], [(key, seeds) for key in classes], layout.num_varied > 0


def _sample(pool: Pool, layout: Layout, rng: random.Random) -> tuple[list[Picked], list[Picked], bool]:
    keys = rng.choices([key for key in pool.lora if key[0] == "prompt"], k=layout.num_prompts)
    classes = rng.choices([key for key in pool.lora if key[0] == "class"], k=layout.num_class)
    varied = {k * layout.num_prompts // layout.num_varied for k in range(layout.num_varied)}
    picked = [(key, tuple(rng.sample(range(NUM_SEEDS), 1 + (i in varied)))) for i, key in enumerate(keys)]
    return picked, [(key, (rng.randrange(NUM_SEEDS),)) for key in classes], layout.num_varied > 0


def other_photos(pool: Pool, rng: random.Random) -> Pool:
    """As if other real photos of the subject had been at hand."""
    def again(values: Sequence[float]) -> tuple[float, ...]:
        return tuple(rng.choices(values, k=len(values))) if values else ()

    real = pool.real
    return replace(pool, real=replace(real, ceiling_faces=again(real.ceiling_faces),
                                      unseen_nearest=again(real.unseen_nearest),
                                      trained_context=again(real.trained_context)))


def judged(pool: Pool, prompts: Sequence[Picked], classes: Sequence[Picked], is_varied: bool) -> Judgement:
    """What the formulas say of these cells, numbered anew: a prompt that was drawn twice counts as two."""
    scoring = replace(pool.scoring, prompts=tuple(pool.scoring.prompts[key[1]] for key, _ in prompts))
    real = replace(pool.real, clip={i: pool.real.clip[key[1]] for i, (key, _) in enumerate(prompts)})
    base = _set(pool.base, prompts, classes, is_varied)
    anchors = Anchors(scoring_key="pool", photos_key="pool", base=dict.fromkeys(STAGES, base), real=real)
    return judge(_set(pool.lora, prompts, classes, is_varied), anchors, scoring, STAGE)


def _set(drawn: Mapping[tuple[str, int], Drawn], prompts: Sequence[Picked], classes: Sequence[Picked],
         is_varied: bool) -> MeasuredSet:
    images: list[Measured] = []
    variety: dict[int, float] = {}
    for part in (prompts, classes):
        for i, (key, seeds) in enumerate(part):
            images += [replace(drawn[key].images[seed], index=i, seed=k) for k, seed in enumerate(seeds)]
            if is_varied and key[0] == "prompt" and len(seeds) > 1:
                distances = drawn[key].distances_SS[list(seeds)][:, list(seeds)]
                variety[i] = float(distances.sum()) / (len(seeds) * (len(seeds) - 1))
    return MeasuredSet(images=tuple(images), variety=variety)


def as_wanted(row: Coverage) -> str:
    """"yes", "no", or that there was nothing to miss."""
    if row.truth == 0 and row.covered > WANTED[1]:
        return "nothing to miss"
    return "yes" if WANTED[0] <= row.covered <= WANTED[1] else "**no**"


def write_report(found: Sequence[Coverage], out: Path, made: Mapping[str, Any]) -> None:
    """figures.json and README.md."""
    write_json(out / "figures.json", {**made, "coverage": [
        {name: getattr(row, name) for name in Coverage.__dataclass_fields__} for row in found]})
    lines = ["# Do the stated 90 % intervals hold the truth?", "",
             f"{made['num_images']} images of one LoRA on the pocket base ({made['num_prompts']} prompts x {NUM_SEEDS} "
             f"seeds) and as many of the base; samples as each stage draws them. Wanted: 85 to 95 %. {made['about']}"
             .rstrip(), "",
             "| stage | axis | truth | covered | 90 % interval | as wanted | bias | spread of estimates | half width | "
             "samples |", "|---|---|---|---|---|---|---|---|---|---|"]
    for row in found:
        if row.num:
            unknown = f" ({row.num_unknown} unknown)" if row.num_unknown else ""
            lines.append(f"| {row.layout} | {row.axis} | {row.truth:.3f} | {row.covered:.1%} | {row.low:.1%} to "
                         f"{row.high:.1%} | {as_wanted(row)} | {row.bias:+.3f} | {row.spread:.3f} | "
                         f"{row.half_width:.3f} | {row.num}{unknown} |")
    lines += ["", "An axis whose truth is its least value (memorisation 0) is held by every interval that begins "
              "there: there is nothing below to miss.", "",
              f"{made['hardware']}; commit {made['commit']}; {made['minutes']} minutes beside what was drawn before.",
              "",
              f"    {made['command']}", ""]
    write_text(out / "README.md", "\n".join(lines))


if __name__ == "__main__":
    main()
