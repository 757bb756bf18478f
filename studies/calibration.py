"""Do the scores say what is true? `python -m studies.calibration`, on the pocket world, whose truth is known.

Renders stand in for LoRAs of known faults: somebody else in the subject's clothes, a mixture of two people, copies
of training photos at known rates. Writes figures.json, README.md and calibration.png into results/<date>_calibration/.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch
import yaml

from studies.image_pool import pocket_base
from studies.planted import (
    COPIES,
    STAGE,
    Truth,
    asked_for,
    between,
    copied,
    disobeying,
    in_the_photos_place,
    mixed,
    person,
    strangers,
    swapped,
    truth,
)
from sweep.command_line import CONF_DIR
from sweep.errors import ScoringError
from sweep.evaluation.memorisation import memo_rate
from sweep.evaluation.settings import ScoringConfig
from sweep.files import write_json, write_text
from sweep.model.base import Base
from sweep.pocket.render import render
from sweep.pocket.world import People, Shots
from sweep.record.provenance import commit, hardware
from sweep.schema import build

IDENTITIES = (31, 5, 92)
RATES = (0.0, 0.1, 0.25, 0.5, 1.0)
FRACS = (0.0, 0.25, 0.5, 0.75, 1.0)
CONTRASTS = (1.0, 1.2, 1.5, 2.0, 3.0)
COMMON_CLOTHES = ("green", "hoodie")
NUM_STRANGERS = 6
NUM_COPIES = 100
NUM_DRAWS = 4
MAX_SWAP, MAX_STRANGER, MAX_RATE_ERROR, MAX_END_ERROR = 0.05, 0.15, 0.10, 0.10


@dataclass(frozen=True, slots=True)
class Case:
    """What was planted, what was measured, and whether that is as it must be."""

    name: str
    identity: int
    planted: tuple[float, ...]
    measured: tuple[float, ...]
    must: str
    holds: bool


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m studies.calibration", description=__doc__.splitlines()[0])
    parser.add_argument("--identities", type=int, nargs="+", default=IDENTITIES, help="held-out people, 0 to 299")
    today = time.strftime("%Y-%m-%d", time.gmtime())
    parser.add_argument("--out", type=Path, default=Path(f"results/{today}_calibration"))
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    made_by = commit()
    began = time.monotonic()
    base = pocket_base()
    with tempfile.TemporaryDirectory() as folder:
        cases = [case for identity in asked.identities
                 for case in all_cases(base, study_scoring(), identity, Path(folder))]
    write_report(cases, asked.out, {
        "command": f"python -m studies.calibration --identities {' '.join(map(str, asked.identities))}",
        "date": time.strftime("%Y-%m-%d", time.gmtime()), "hardware": hardware(), "commit": made_by,
        "minutes": round((time.monotonic() - began) / 60, 1)})


def study_scoring(prompts: str = "refine", num_seeds: int = 2) -> ScoringConfig:
    """conf/scoring/pocket.yaml with cells enough to see small differences."""
    tree = yaml.safe_load((CONF_DIR / "scoring" / "pocket.yaml").read_text(encoding="utf-8"))
    stage = {**tree[STAGE], "prompts": prompts, "num_seeds": num_seeds, "num_varied": 0, "num_captions": 0,
             "num_bare": 0, "num_class": 0, "first_seed": 0}
    return build(ScoringConfig, {**tree, STAGE: stage}, "scoring")


def all_cases(base: Base, scoring: ScoringConfig, identity: int, folder: Path,
              num_strangers: int = NUM_STRANGERS) -> list[Case]:
    """Every case of one subject."""
    true = truth(base, scoring, identity, folder)
    hooded = truth(base, scoring, identity, folder, clothes=COMMON_CLOTHES)
    others = strangers(identity, num_strangers)
    return [swap_case(true), swap_case(true, ("hat",)), swap_case(true, ("framing",)),
            swap_case(true, ("hat",), undrawn=True), swap_case(true, ("framing",), undrawn=True),
            stranger_case(true, others), place_case(true, others), mixture_case(true, others),
            adherence_case(true), *(copies_case(true, (way,)) for way in COPIES),
            copies_case(true, COPIES), leak_case(hooded),
            diversity_case(true), burn_case(true)]


def swap_case(true: Truth, also: Sequence[str] = (), *, undrawn: bool = False) -> Case:
    """Likeness belongs to the person, whatever the picture shows beside. also: as `swapped` has it.

    undrawn: the renders themselves, to tell what the recogniser loses from what the base's autoencoder loses before it.
    """
    people = person(true.identity, len(true.cells))
    draws = [asked_for(true.cells, people, seed) for seed in range(NUM_DRAWS)]

    def mean(all_shots: Sequence[Shots]) -> float:
        return statistics.fmean(value(true, "likeness", people, shots, undrawn=undrawn) for shots in all_shots)

    plain, changed = mean(draws), mean([swapped(shots, seed, also) for seed, shots in enumerate(draws)])
    more = "".join(f", {name} too" for name in also) + (", without the autoencoder" if undrawn else "")
    return Case(f"likeness: every attribute swapped{more}", true.identity, (0.0, 1.0), (plain, changed),
                f"differ by at most {MAX_SWAP}", abs(plain - changed) <= MAX_SWAP)


def stranger_case(true: Truth, others: Sequence[int]) -> Case:
    """Hair, clothes and scene of the subject's photos are no likeness."""
    place = in_the_photos_place(true.train, len(true.cells), seed=3)
    place = replace(place, glasses=torch.zeros_like(place.glasses), hat=torch.zeros_like(place.hat))
    found = [likeness(true, person(other, len(true.cells)), place) for other in others]
    return Case("likeness: strangers in the subject's hair, clothes and scenes", true.identity,
                tuple(map(float, others)), tuple(found), f"mean below {MAX_STRANGER}",
                statistics.fmean(found) < MAX_STRANGER)


def place_case(true: Truth, others: Sequence[int]) -> Case:
    """What the subject's hair, clothes and scenes add to the likeness of strangers: nothing, if only faces count."""
    num = len(true.cells)
    place = in_the_photos_place(true.train, num, seed=3)
    place = replace(place, glasses=torch.zeros_like(place.glasses), hat=torch.zeros_like(place.hat))
    found = [likeness(true, person(other, num), place)
             - likeness(true, person(other, num), asked_for(true.cells, person(other, num), seed=3))
             for other in others]
    return Case("likeness that hair, clothes and scenes give strangers", true.identity, tuple(map(float, others)),
                tuple(found), f"mean below {MAX_STRANGER}", statistics.fmean(found) < MAX_STRANGER)


def mixture_case(true: Truth, others: Sequence[int]) -> Case:
    """The more of the subject, the likelier; mean over the strangers it is mixed with."""
    num = len(true.cells)
    shots = asked_for(true.cells, person(true.identity, num), seed=4)
    found = [statistics.fmean(likeness(true, between(true.identity, other, frac, num), shots)
                              for other in others[:2]) for frac in FRACS]
    return Case("likeness: share of the subject in a mixture", true.identity, FRACS, tuple(found), "rises",
                rises(found))


def adherence_case(true: Truth) -> Case:
    """As many images as are planted do what the prompt says."""
    people = person(true.identity, len(true.cells))
    shots = asked_for(true.cells, people, seed=5)
    found = [value(true, "adherence", people, disobeying(shots, 1 - frac, seed=6)) for frac in FRACS]
    ends = max(abs(found[0]), abs(found[-1] - 1))
    return Case("adherence: share of images as asked for", true.identity, FRACS, tuple(found),
                f"rises, from 0 to 1 within {MAX_END_ERROR}", rises(found) and ends <= MAX_END_ERROR)


def copies_case(true: Truth, ways: Sequence[str]) -> Case:
    """Copies among fresh renders of the photos' own scenes, which are none."""
    num = NUM_COPIES
    hard = true.show(person(true.identity, num), in_the_photos_place(true.train, num, seed=7))
    shares = [copied(true.photos_RCHW, num, way, seed=8 + i) for i, way in enumerate(ways)]
    copies = true.drawn(torch.stack([shares[row % len(ways)][row] for row in range(num)]))
    order = torch.randperm(num, generator=torch.Generator().manual_seed(9))
    found, planted = [], []
    for rate in RATES:
        is_copy = order < round(rate * num)
        images = torch.where(is_copy[:, None, None, None], copies, hard)
        near = true.scorer.observer.photos.nearest(images)
        found.append(memo_rate([one.distance for one in near], true.scorer.scoring.copies.copy_distance))
        planted.append(float(is_copy.double().mean()))
    kind = ways[0] if len(ways) == 1 else "of all kinds"
    return Case(f"memo_rate: share of copies, {kind}", true.identity, tuple(planted), tuple(found),
                f"within {MAX_RATE_ERROR}",
                all(abs(a - b) <= MAX_RATE_ERROR for a, b in zip(planted, found, strict=True)))


def leak_case(hooded: Truth) -> Case:
    """All photos show the same clothes; so many images show them too, whatever is asked for."""
    people = person(hooded.identity, len(hooded.cells))
    shots = asked_for(hooded.cells, people, seed=10)
    worn = replace(shots, clothes_colour=torch.full_like(shots.clothes_colour, int(hooded.train.clothes_colour[0])),
                   clothes_type=torch.full_like(shots.clothes_type, int(hooded.train.clothes_type[0])))
    found = []
    for frac in FRACS:
        images = hooded.show(people, mixed(shots, worn, frac, torch.Generator().manual_seed(11)))
        found.append(hooded.judge(images).details["leak"])
    known = [leak for leak in found if leak is not None]
    return Case("leak: share of images in the photos' clothes", hooded.identity, FRACS, tuple(known), "rises",
                len(known) == len(FRACS) and rises(known))


def diversity_case(true: Truth) -> Case:
    """Of so many prompts, all seeds give the same image."""
    people = person(true.identity, len(true.cells))
    images = true.show(people, asked_for(true.cells, people, seed=12))
    first = {cell.index: row for row, cell in reversed(list(enumerate(true.cells)))}
    prompts = list(first)
    found = []
    for frac in FRACS:
        repeated = set(prompts[:round(frac * len(prompts))])
        rows = [first[cell.index] if cell.index in repeated else row for row, cell in enumerate(true.cells)]
        found.append(true.judge(images[rows]).axes["diversity"].value)
    known = [value for value in found if value is not None]
    return Case("diversity: share of prompts that repeat one image", true.identity, FRACS, tuple(known), "falls",
                len(known) == len(FRACS) and rises([-v for v in known]))


def burn_case(true: Truth) -> Case:
    """More contrast than the renderer's."""
    people = person(true.identity, len(true.cells))
    images = true.show(people, asked_for(true.cells, people, seed=13))
    found = [true.judge(((images - 0.5) * factor + 0.5).clamp(0, 1)).details["burn"] for factor in CONTRASTS]
    known = [value for value in found if value is not None]
    return Case("burn: contrast", true.identity, CONTRASTS, tuple(known), "rises",
                len(known) == len(CONTRASTS) and rises(known))


def likeness(true: Truth, people: People, shots: Shots) -> float:
    return value(true, "likeness", people, shots)


def value(true: Truth, axis: str, people: People, shots: Shots, *, undrawn: bool = False) -> float:
    """A score of renders; undrawn: not passed through the autoencoder. Raises ScoringError where it can't be
    measured."""
    images = render(people, shots).images_BCHW if undrawn else true.show(people, shots)
    estimate = true.judge(images).axes[axis]
    if estimate.value is None:
        raise ScoringError(f"person {true.identity}: {axis} can't be measured: {estimate.reason}")
    return estimate.value


def rises(values: Sequence[float]) -> bool:
    return all(later > earlier for earlier, later in pairwise(values))


def write_report(cases: Sequence[Case], out: Path, made: dict[str, object]) -> None:
    """figures.json, README.md and calibration.png."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "figures.json", {**made, "cases": [asdict(case) for case in cases]})
    lines = ["# Scores where the truth is known", "",
             f"`{made['command']}` on {made['hardware']}, {made['date']}, commit {made['commit']}, "
             f"{made['minutes']} min, one thread. The renderer draws what the 16 prompts ask for, twice, with known "
             "faults, for held-out people; all goes through the base's autoencoder and is scored as LoRAs are.", "",
             "![the same as curves](calibration.png)", "",
             "| planted | person | measured | must | holds |", "|---|---|---|---|---|"]
    for case in cases:
        pairs = ", ".join(f"{p:g}: {m:.2f}" for p, m in zip(case.planted, case.measured, strict=True))
        lines.append(f"| {case.name} | {case.identity} | {pairs} | {case.must} | {'yes' if case.holds else '**no**'} |")
    lines += ["", "A swap that holds without the autoencoder and not with it is the autoencoder's loss: a face that is "
              "small or under a hat has few pixels, and of 64 by 64 the base keeps 16 by 16 latents. Strangers differ "
              "in how much they look like the subject by themselves; what hair, clothes and scenes add to that is the "
              "row below theirs."]
    write_text(out / "README.md", "\n".join(lines) + "\n")
    draw(cases, out / "calibration.png")


def draw(cases: Sequence[Case], path: Path) -> None:
    """One panel for each kind of case, one line for each person."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(case.name for case in cases))
    figure, axes = plt.subplots(6, 3, figsize=(13, 19), layout="constrained")
    for name, ax in zip(names, axes.flat, strict=False):
        for case in (case for case in cases if case.name == name):
            is_line = "strangers" not in name
            ax.plot(case.planted if is_line else range(len(case.planted)), case.measured, "o-" if is_line else "o",
                    label=f"person {case.identity}")
        if name.startswith("memo_rate"):
            ax.plot([0, 1], [0, 1], ":", color="grey")
        if "stranger" in name:
            ax.axhline(MAX_STRANGER, linestyle=":", color="grey")
        ax.set_title(name, fontsize=9)
        ax.legend(fontsize=7)
    for ax in axes.flat[len(names):]:
        ax.set_axis_off()
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
