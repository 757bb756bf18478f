"""Does screen, refine, confirm find what the full grid finds? `python -m studies.choice`, on the pocket base.

Six trials of different rates and ranks, ten checkpoints each, five strengths. The full grid draws all 50 arms of a
trial on 16 prompts x 2 seeds of its own. The choice draws at most a quarter as many images and names one arm; it has
found it if that arm's usefulness, as the grid measured it, lies inside the interval of the grid's best arm or above.

The trials are an ordinary sweep and all images are kept by content, so a kill loses little: the same command goes on.
Writes README.md and figures.json into results/<date>_choice/.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from studies.image_pool import default_dataset, pocket_base, shipped
from studies.options import add_places, today
from sweep.comparison import are_tied
from sweep.errors import ScoringError
from sweep.evaluation.generate import OnProgress
from sweep.evaluation.scorer import Scorer, ScoreRequest
from sweep.evaluation.settings import ScoringConfig
from sweep.files import read_json, read_jsonl, write_json, write_text
from sweep.model.base import Base
from sweep.network.targets import find_targets
from sweep.record.provenance import commit, hardware
from sweep.trial import Answer, Score, Trial, score_from_json, to_json, trial_folder

WORK = Path("results/try-choice")
STRENGTHS = (1.0, 0.8, 0.6, 0.4, 0.2)
RATES, DIMS = (1e-4, 3e-4, 1e-3), (8, 64)
GRID_SEED = 2000  # the grid's own noise: what chose must not be what judges
MAX_SHARE = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One trial. chosen_*: the named arm as the grid measured it; best_*: the grid's best arm with its interval.

    is_tied: whether the two can't be told apart on the grid's own cells, paired.
    """

    trial: int
    settings: Mapping[str, Any]
    chosen: str
    chosen_usefulness: float
    best: str
    best_usefulness: float
    best_low: float
    best_high: float
    is_within: bool
    is_tied: bool
    num_images: int
    num_grid_images: int

    @property
    def share(self) -> float:
        return self.num_images / self.num_grid_images


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, choose, draw the grid, report."""
    parser = argparse.ArgumentParser(prog="python -m studies.choice", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=len(RATES) * len(DIMS), help="the first so many of the six")
    parser.add_argument("--steps", type=int, default=1500, help="of each training")
    parser.add_argument("--checkpoints", type=int, default=10, help="of each training")
    parser.add_argument("--strengths", type=float, nargs="+", default=STRENGTHS)
    parser.add_argument("--grid-seeds", type=int, default=2, help="seeds of each of the grid's 16 prompts")
    add_places(parser, "choice", WORK, "trials and images are")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(asked.threads)
    made_by, began = commit(), time.monotonic()
    trials = trained(asked.steps, asked.checkpoints, asked.work, asked.threads)[:asked.trials]
    base = pocket_base()
    scoring = shipped()
    scoring = replace(scoring, choice=replace(scoring.choice, strengths=tuple(asked.strengths)))
    found = [compared(trial, base, scoring, asked.grid_seeds, asked.work) for trial in trials]
    write_report(found, asked.out, {
        "command": f"python -m studies.choice --trials {asked.trials} --steps {asked.steps} --checkpoints "
                   f"{asked.checkpoints} --strengths {' '.join(f'{s:g}' for s in asked.strengths)} --grid-seeds "
                   f"{asked.grid_seeds}",
        "date": today(), "hardware": hardware(), "commit": made_by,
        "minutes": round((time.monotonic() - began) / 60, 1)})
    print((asked.out / "README.md").read_text(encoding="utf-8"))


def trained(num_steps: int, num_checkpoints: int, work: Path, threads: int) -> list[Trial]:
    """All six: an ordinary sweep without scoring, on 14 photos of the pocket's own subject."""
    name = f"choice-{num_steps}-{num_checkpoints}"
    subprocess.run([sys.executable, "train.py", "-m", f"unet_lr={','.join(map(str, RATES))}",
                    f"network_dim={','.join(map(str, DIMS))}", f"max_train_steps={num_steps}",
                    f"save_every_n_steps={num_steps // num_checkpoints}", "save_every_n_epochs=100000",
                    "dataset.num_images=14", "scoring=none", "tracker=none", f"sweep.name={name}",
                    f"sweep.results_dir={work}", f"launcher.threads={threads}"], check=True)
    return [Trial(**row) for row in read_jsonl(work / name / "trials.jsonl")]


def compared(trial: Trial, base: Base, scoring: ScoringConfig, num_seeds: int, work: Path) -> Found:
    """One trial chosen from and drawn as a whole grid."""
    requests = requests_of(trial, work)
    chooser = scorer_of(base, scoring, work)
    [answer] = chooser.finish([requests], _telling(f"trial {trial.number}, choice"))
    grid = scorer_of(base, grid_scoring(scoring, num_seeds), work)
    arms = [replace(request, strength=strength) for request in requests for strength in scoring.choice.strengths]
    scores = grid.screen(arms, _telling(f"trial {trial.number}, grid"))
    drawn = _scores_in(requests[0].scores_dir, chooser.scoring_id)
    return outcome(trial, answer, scores, num_images_of(drawn))


def requests_of(trial: Trial, work: Path) -> list[ScoreRequest]:
    """Its checkpoints, oldest first; the last step's file has no number in its name."""
    folder = trial_folder(work, trial.train_id)
    files = list(folder.checkpoints.glob("*.safetensors"))
    last = min(files, key=lambda path: len(path.name))
    files = [*sorted(path for path in files if path != last), last]
    every = trial.num_steps // len(files)
    return [ScoreRequest(file=file, epoch=0, step=every * (i + 1), scores_dir=work / "choice" / trial.train_id,
                         images_dir=work / "choice" / "images") for i, file in enumerate(files)]


def scorer_of(base: Base, scoring: ScoringConfig, work: Path) -> Scorer:
    return Scorer(base, find_targets(base), scoring, default_dataset(), work)


def grid_scoring(scoring: ScoringConfig, num_seeds: int) -> ScoringConfig:
    """Every arm on all 16 prompts of refining, with noise of its own."""
    return replace(scoring, screen=replace(scoring.screen, prompts="refine", num_seeds=num_seeds,
                                           first_seed=GRID_SEED))


def num_images_of(scores: Sequence[Score]) -> int:
    """Images of a choice: an arm's screening images are among those it is refined on."""
    most: dict[tuple[str, float, bool], int] = {}
    for score in scores:
        key = (score.file_sha256, score.strength, score.stage == "confirm")
        most[key] = max(most.get(key, 0), score.num_images)
    return sum(most.values())


def _scores_in(folder: Path, scoring_id: str) -> list[Score]:
    found = (score_from_json(read_json(path)) for path in folder.glob("*.json")
             if not path.name.startswith("answer-"))
    return [score for score in found if score.scoring_id == scoring_id]


def _telling(what: str) -> OnProgress:
    def tell(done: int, total: int) -> None:
        print(f"\r{what}: {done} of {total} images ", end="" if done < total else "\n", file=sys.stderr, flush=True)

    return tell


def outcome(trial: Trial, answer: Answer, grid: Sequence[Score], num_images: int) -> Found:
    """Raises ScoringError if the grid has no valid score to compare with."""
    valid = {(score.file_sha256, score.strength): score for score in grid if score.axes["usefulness"].is_valid}
    chosen = valid.get((answer.score.file_sha256, answer.strength))
    if chosen is None:
        raise ScoringError(f"Trial {trial.number}: {answer.file} at {answer.strength:g} has no valid usefulness on the "
                           "grid; give --grid-seeds more seeds.")
    best = max(valid.values(), key=_usefulness)
    axis = best.axes["usefulness"]
    low, high = (_usefulness(best) if bound is None else bound for bound in (axis.low, axis.high))
    return Found(trial=trial.number, settings=dict(trial.settings), chosen=_arm(chosen),
                 chosen_usefulness=_usefulness(chosen), best=_arm(best), best_usefulness=_usefulness(best),
                 best_low=low, best_high=high, is_within=_usefulness(chosen) >= low, is_tied=are_tied(chosen, best),
                 num_images=num_images, num_grid_images=sum(score.num_images for score in grid))


def _usefulness(score: Score) -> float:
    value = score.axes["usefulness"].value
    assert value is not None
    return value


def _arm(score: Score) -> str:
    return f"step {score.step} at {score.strength:g}"


def write_report(found: Sequence[Found], out: Path, made: Mapping[str, Any]) -> None:
    """figures.json and README.md."""
    write_json(out / "figures.json", {**made, "trials": [{**to_json(row), "share": row.share} for row in found]})
    within, cheap = sum(row.is_within for row in found), sum(row.share <= MAX_SHARE for row in found)
    lines = ["# Does screen, refine, confirm find what the full grid finds?", "",
             f"In {within} of {len(found)} trials the named arm lies inside the interval of the full grid's best; in "
             f"{cheap} of {len(found)} it took at most {MAX_SHARE:.0%} of the grid's images.", "",
             "| trial | settings | named | its usefulness on the grid | grid's best | its usefulness | inside | paired "
             "| images | grid | share |", "|---|---|---|---|---|---|---|---|---|---|---|"]
    for row in found:
        settings = ", ".join(f"{key} {value}" for key, value in row.settings.items())
        lines.append(f"| {row.trial} | {settings} | {row.chosen} | {row.chosen_usefulness:.2f} | {row.best} | "
                     f"{row.best_usefulness:.2f} ({row.best_low:.2f} to {row.best_high:.2f}) | "
                     f"{'yes' if row.is_within else 'no'} | {'tie' if row.is_tied else 'worse'} | {row.num_images} | "
                     f"{row.num_grid_images} | {row.share:.0%} |")
    lines += ["", "Usefulness here is the grid's, on noise that played no part in the choice; its best of many leans "
              "high.", "",
              f"{made['hardware']}; commit {made['commit']}; {made['minutes']} minutes beside what was drawn before.",
              "", f"    {made['command']}", ""]
    write_text(out / "README.md", "\n".join(lines))


if __name__ == "__main__":
    main()
