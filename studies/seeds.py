"""Are trainings that differ by their seed alone called a tie? `python -m studies.seeds`, on the pocket base.

Three settings, ten seeds each, as one ordinary sweep; a kill loses nothing. Within a setting every two groups of seeds
that share none are compared as if they were two settings: at least 9 of 10 such pairs must tie, since nothing else
differs. Beside it stands what is found if the seed is not counted in (the paired rule for two files, which claims
nothing about settings), and how often settings that do differ are told apart: a rule that always ties would pass the
first and fail here.

Pairs of groups out of the same ten trainings are not independent of each other: the share is that of these trainings.
Writes README.md and figures.json into results/<date>_seeds/.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from studies.options import add_places, today
from sweep.claims import TIE, UNKNOWN, compare_settings
from sweep.comparison import are_tied
from sweep.files import write_json, write_text
from sweep.record.facts import read_record
from sweep.record.provenance import commit, hardware
from sweep.trial import Score

WORK = Path("results/try-seeds")
NAME = "seeds"
DIMS, NUM_SEEDS, NUM_STEPS = (1, 4, 32), 10, 600
GROUPS = (2, 3, 5)
MIN_TIES = 0.9


@dataclass(frozen=True, slots=True)
class Share:
    """Of the pairs that could be compared, those that tie. num: their number."""

    what: str
    num_seeds: int
    ties: float
    num: int


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, compare, report."""
    parser = argparse.ArgumentParser(prog="python -m studies.seeds", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=NUM_STEPS, help="of each training")
    add_places(parser, "seeds", WORK, "the trials are")
    asked = parser.parse_args(arguments)
    made_by = commit()
    command = [f"network_dim={','.join(map(str, DIMS))}", f"seed={','.join(map(str, range(1, NUM_SEEDS + 1)))}",
               "unet_lr=5e-4", "text_encoder_lr=2.5e-4", f"max_train_steps={asked.steps}",
               "save_every_n_epochs=1000", "dataset.num_images=14", "tracker=none", f"sweep.name={NAME}"]
    subprocess.run([sys.executable, "train.py", "-m", *command, f"sweep.results_dir={asked.work}",
                    f"launcher.threads={asked.threads}"], check=True)
    by_setting = answers(asked.work)
    write_report(shares(by_setting), by_setting, asked.out, {
        "command": f"python -m studies.seeds --steps {asked.steps}", "sweep": f"python train.py -m {' '.join(command)}",
        "date": today(), "hardware": hardware(), "commit": made_by})
    print((asked.out / "README.md").read_text(encoding="utf-8"))


def answers(work: Path) -> dict[str, list[Score]]:
    """The confirmed score of every training's named file, by setting."""
    found: dict[str, list[Score]] = defaultdict(list)
    for result in read_record(work / NAME).results:
        if result.answer is not None:
            found[f"dim {result.trial.settings['network_dim']}"].append(result.answer.score)
    return dict(found)


def shares(by_setting: Mapping[str, Sequence[Score]]) -> list[Share]:
    """Ties within each setting by size of the groups, of single files, and between the settings."""
    found = []
    for name, scores in by_setting.items():
        files = [are_tied(a, b) for a, b in itertools.combinations(scores, 2)]
        found.append(Share(f"{name}, two files, the seed not counted in", 1, sum(files) / len(files), len(files)))
        found += [_share(f"{name} against itself", n, disjoint(scores, n)) for n in GROUPS if 2 * n <= len(scores)]
    for (name, one), (other_name, other) in itertools.combinations(by_setting.items(), 2):
        for n in GROUPS:
            pairs = ((a, b) for a, b in zip(itertools.combinations(one, n), itertools.combinations(other, n),
                                            strict=False))
            found.append(_share(f"{name} against {other_name}", n, pairs))
    return found


def disjoint(scores: Sequence[Score], n: int) -> Iterator[tuple[Sequence[Score], Sequence[Score]]]:
    """Every two groups of n that share none, each two once."""
    for one in itertools.combinations(range(len(scores)), n):
        rest = [i for i in range(len(scores)) if i not in one]
        for other in itertools.combinations(rest, n):
            if one < other:
                yield [scores[i] for i in one], [scores[i] for i in other]


def _share(what: str, n: int, pairs: Iterator[tuple[Sequence[Score], Sequence[Score]]]) -> Share:
    outcomes = [compare_settings(one, other, names=("a", "b")).outcome for one, other in pairs]
    known = [outcome for outcome in outcomes if outcome != UNKNOWN]
    return Share(what, n, known.count(TIE) / max(len(known), 1), len(known))


def write_report(found: Sequence[Share], by_setting: Mapping[str, Sequence[Score]], out: Path,
                 made: Mapping[str, Any]) -> None:
    """README.md and figures.json."""
    values = {name: [score.axes["usefulness"].value for score in scores] for name, scores in by_setting.items()}
    write_json(out / "figures.json", {**made, "usefulness": values, "shares": [asdict(share) for share in found]})
    lines = ["# Trainings that differ by their seed alone", "",
             "| compared | seeds a side | called a tie | pairs | at least 90 % |", "|---|---|---|---|---|"]
    for share in found:
        must = "" if "itself" not in share.what else "yes" if share.ties >= MIN_TIES else "**no**"
        lines.append(f"| {share.what} | {share.num_seeds} | {share.ties:.1%} | {share.num} | {must} |")
    lines += ["", "Usefulness of the named files: " + "; ".join(
        f"{name}: {', '.join('unknown' if value is None else f'{value:.2f}' for value in each)}"
        for name, each in values.items()) + ".", "",
        f"{made['hardware']}, {made['date']}, commit {made['commit']}.", "", f"    {made['command']}", ""]
    write_text(out / "README.md", "\n".join(lines))


if __name__ == "__main__":
    main()
