"""The diary's eleven trainings again, and what the seeds claim, measured on the pocket base.

    python -m studies.alex eleven      one identity, one seed, the diary's full steps; writes results/alex/
    python -m studies.alex claims      5 identities x 2 seeds, a night; writes results/alex/claims.json and claims.md

Both only start ordinary sweeps and read what those leave behind, so a kill loses nothing: the same command goes on.
`alex_words` sets the verdicts beside the diary's words, `alex_claims` decides about the claims.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from studies.alex_claims import ARMS, write_claims
from studies.alex_words import write_words
from studies.phenomena import HOODIE
from sweep.record.facts import read_record

RESULTS = Path("results")
NAME = "alex"
WORK = RESULTS / "alex-claims"
# Held-out men with black hair who are not the base's average man: their d' is 4.3 to 7.4 (below 2 likeness can't be
# known).
PEOPLE = (31, 92, 3, 8, 84)
SEEDS = (1, 2)
NUM_PHOTOS = 25

# A third of the epochs is kept and scored: 51 files instead of 142. Each on all prompts and four training captions.
ELEVEN = ("experiment=glob(alex/*)", f"sweep.name={NAME}", "save_every_n_epochs=3", "scoring.screen.prompts=refine",
          "scoring.screen.num_captions=4", "tracker=none", "launcher.devices=2")
CLAIMS = ("scoring.screen.prompts=refine", "scoring.screen.num_seeds=2", "scoring.screen.num_captions=4",
          "scoring.choice.strengths=[1.0]", "scoring.choice.confirm=0", "scoring.choice.refine_frac=0",
          "base_model=pocket", "dataset.holdout_dir=${dataset.dir}/../holdout", "tracker=none", "pack.max_trials=5",
          "launcher.devices=2")  # on two cores two one-thread workers outrun one of two threads


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, then measure and report."""
    parser = argparse.ArgumentParser(prog="python -m studies.alex", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("eleven", "claims"))
    parser.add_argument("--report-only", action="store_true", help="read what is there; train nothing")
    parser.add_argument("--max-steps", type=int, help="to try it out: each training ends here; needs --results")
    parser.add_argument("--results", type=Path, help=f"folder of the trials (default: {RESULTS} or {WORK})")
    parser.add_argument("--out", type=Path, default=RESULTS / NAME, help="folder of claims.json and claims.md")
    parser.add_argument("--people", type=int, nargs="+", default=PEOPLE, help="claims: held-out identities, 0 to 299")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="claims: training seeds")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS, help="claims: train these only")
    asked = parser.parse_args(arguments)
    extra = [] if asked.max_steps is None else [f"max_train_steps={asked.max_steps}"]
    if extra and asked.results is None:
        parser.error("--max-steps is for trying it out; give --results FOLDER, so that it does not stand in the way")
    if asked.part == "eleven":
        eleven(asked.results or RESULTS, extra, trains=not asked.report_only)
        return
    work = asked.results or WORK
    render_people(work, asked.people)
    for arm in asked.arms if not asked.report_only else ():
        subprocess.run(arm_command(arm, work, asked.people, asked.seeds, extra), check=True)
    write_claims(work, asked.out, asked.people, asked.seeds)


def eleven(results: Path, extra: Sequence[str], *, trains: bool) -> None:
    """The eleven as one sweep, and the diary's words beside their verdicts."""
    if trains:
        subprocess.run([sys.executable, "train.py", "-m", *ELEVEN, f"sweep.results_dir={results}", *extra], check=True)
    record = read_record(results / NAME)
    found = {number_of(str(result.trial.settings["experiment"])): result for result in record.results}
    print(write_words(results / NAME, found))


def number_of(experiment: str) -> int:
    """alex/alex_lora11 -> 11."""
    return int(experiment.rpartition("alex_lora")[2])


def render_people(work: Path, people: Sequence[int]) -> None:
    """Each person's photos, once as they come and once with the same hoodie on all of them."""
    from sweep.pocket.subject import write_subject

    for person in people:
        for kind, clothes in (("photos", None), ("hoodie", HOODIE)):
            folder = work / "people" / str(person) / kind
            if not (folder / "subject.json").exists():
                write_subject(person, folder, num_photos=NUM_PHOTOS, clothes=clothes)


def arm_command(arm: str, work: Path, people: Sequence[int], seeds: Sequence[int], extra: Sequence[str]) -> list[str]:
    """What a user would type."""
    kind, *overrides = ARMS[arm]
    folders = ",".join((work / "people" / str(person) / kind / "train").as_posix() for person in people)
    return [sys.executable, "train.py", "-m", f"dataset.dir={folders}", f"seed={','.join(map(str, seeds))}",
            f"sweep.name={arm}", f"sweep.results_dir={work}", *CLAIMS, *overrides, *extra]


if __name__ == "__main__":
    main()
