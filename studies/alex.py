"""The diary's eleven trainings again, and what the seeds claim, measured on the pocket base.

    python -m studies.alex eleven      one identity, one seed, the diary's full steps; writes results/alex/
    python -m studies.alex best        searches from the tutorial's recipe and sets its file against theirs; best.md
    python -m studies.alex claims      5 identities x 2 seeds, a night; writes claims.json, claims.md and arms/ there

All only start ordinary sweeps and read what those leave behind, so a kill loses nothing: the same command goes on.
`alex_words` sets the verdicts beside the diary's words. `alex_arms` trains what the claims need and keeps each arm's
figures, `alex_claims` decides.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from studies.alex_arms import ARMS, keep, kept_of, read_arms, train
from studies.alex_claims import write_claims
from studies.alex_pictures import write_pictures
from studies.alex_words import write_words
from studies.sweeps import run_sweep
from sweep.record.facts import read_record
from sweep.trial import DIVERGED, DONE, TrialResult

RESULTS = Path("results")
NAME = "alex"
OUT = RESULTS / NAME
WORK = RESULTS / "alex-claims"
# Held-out men with black hair who are not the base's average man: their d' is 4.3 to 7.4 (below 2 likeness can't be
# known).
PEOPLE = (31, 92, 3, 8, 84)
SEEDS = (1, 2)

# In 32 bits: 8 of them are our filling-in, meant to save a GPU's memory, and take half of a training's time on a CPU. A
# third of the epochs is kept and scored: 48 files instead of 142. Each on all prompts, four training captions and eight
# times the bare trigger, which is all that a training without captions was told: whether it gives its photos back shows
# there. Variety and bleed are looked at too, since verdicts need them. Packs and threads are given, so that another run
# on another machine's cores adds up the same numbers in the same order.
ELEVEN = ("experiment=glob(alex/*)", f"sweep.name={NAME}", "optimizer=adamw", "save_every_n_epochs=3",
          "scoring.screen.prompts=refine", "scoring.screen.num_varied=5", "scoring.screen.num_captions=4",
          "scoring.screen.num_bare=8", "scoring.screen.num_class=1", "tracker=none", "pack.max_trials=4",
          "launcher.devices=2", "launcher.threads=1")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, then measure and report."""
    parser = argparse.ArgumentParser(prog="python -m studies.alex", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("eleven", "best", "claims"))
    parser.add_argument("--report-only", action="store_true", help="read what is there; train nothing")
    parser.add_argument("--max-steps", type=int, help="to try it out: each training ends here; needs --results")
    parser.add_argument("--results", type=Path, help=f"folder of the trials (default: {RESULTS} or {WORK})")
    parser.add_argument("--out", type=Path, help=f"claims: where they are written (default: --results, else {OUT})")
    parser.add_argument("--people", type=int, nargs="+", help=f"claims: held-out men, 0 to 299 (default: {PEOPLE})")
    parser.add_argument("--seeds", type=int, nargs="+", help=f"claims: training seeds (default: {SEEDS})")
    parser.add_argument("--arms", nargs="+", choices=ARMS, help="claims: train these only")
    asked = parser.parse_args(arguments)
    extra = [] if asked.max_steps is None else [f"max_train_steps={asked.max_steps}"]
    if extra and asked.results is None:
        parser.error("--max-steps is for trying it out; give --results FOLDER, so that it does not stand in the way")
    only_claims = [f"--{name}" for name in ("out", "people", "seeds", "arms") if getattr(asked, name) is not None]
    if asked.part != "claims" and only_claims:
        parser.error(f"{', '.join(only_claims)}: only claims have these; {asked.part} is one person and one seed")
    if asked.part == "eleven":
        eleven(asked.results or RESULTS, extra, trains=not asked.report_only)
        return
    if asked.part == "best":
        best(asked.results or RESULTS, extra, trains=not asked.report_only)
        return
    work, out = asked.results or WORK, asked.out or asked.results or OUT
    people, seeds = asked.people or PEOPLE, asked.seeds or SEEDS
    if out == OUT and (extra or (set(people), set(seeds)) != (set(PEOPLE), set(SEEDS))):
        parser.error(f"{OUT} holds the figures of {PEOPLE} x {SEEDS} at full length; give --out FOLDER for others")
    for arm in asked.arms or ARMS if not asked.report_only else ():
        if kept_of(out, arm, people, seeds, extra) is not None:
            print(f"{arm}: its figures are kept in {out}", flush=True)
            continue
        train(arm, work, people, seeds, extra)
        keep(arm, work, out, people, seeds, extra)
        write_claims(read_arms(out, people, seeds, extra), out)
    write_claims(read_arms(out, people, seeds, extra), out)


def eleven(results: Path, extra: Sequence[str], *, trains: bool) -> None:
    """The eleven as one sweep, and the diary's words beside their verdicts. Raises ValueError if there is no sweep to
    report on."""
    if trains:
        run_sweep([*ELEVEN, f"sweep.results_dir={results}", *extra])
    trials = trials_of(results)
    if not trials:
        raise ValueError(f"There is no sweep in {results / NAME}; without --report-only it is trained.")
    write_pictures(read_record(results / NAME), trials)
    print(write_words(results / NAME, trials))


def best(results: Path, extra: Sequence[str], *, trains: bool) -> None:
    """A search on each of their bases from the tutorial's recipe, and its file against theirs. Raises ValueError before
    it trains if the eleven are not there."""
    from studies.alex_best import search, write_best

    rivals = trials_of(results)
    if missing := [str(number) for number in range(1, 12) if number not in rivals
                   or rivals[number].status not in (DONE, DIVERGED)]:
        raise ValueError(f"LoRA{', LoRA'.join(missing)} are not trained in {results / NAME}; first: "
                         f"python -m studies.alex eleven --results {results}")
    if trains:
        search(results, extra)
    print(write_best(results, rivals, results / NAME))


def trials_of(results: Path) -> dict[int, TrialResult]:
    """The eleven, by their numbers in the diary; none if there is no such sweep."""
    if not (results / NAME / "sweep.yaml").exists():
        return {}
    return {number_of(str(result.trial.settings["experiment"])): result
            for result in read_record(results / NAME).results}


def number_of(experiment: str) -> int:
    """alex/alex_lora11 -> 11."""
    return int(experiment.rpartition("alex_lora")[2])


if __name__ == "__main__":
    main()
