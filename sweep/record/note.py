"""`python -m sweep.record.note TRIAL "..."`: your own words on a trial or a sweep, kept beside the program's."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from sweep.errors import ConfigError
from sweep.files import read_jsonl
from sweep.record.command import run_command
from sweep.record.facts import find_sweep
from sweep.record.notes import add_note
from sweep.record.views import write_views
from sweep.trial import trial_folder

MIN_DIGITS = 4  # of an identity that is cut short


def add(target: str, text: str, results_dir: Path) -> list[Path]:
    """Add a note to what `target` names and write anew the diaries that show it; returns the sweeps' folders.

    target: a trial's identity or the beginning of one, SWEEP:NUMBER, or a sweep. Raises ConfigError if it is none.
    """
    if not text.strip():
        raise ConfigError("The note is empty. Write it in quotes: python -m sweep.record.note TRIAL \"my words\"")
    sweep, _, number = target.rpartition(":")
    if sweep and number.isdigit():
        sweep_dir = find_sweep(sweep, results_dir)
        return _add_to_trial(_identity(sweep_dir, int(number)), text, sweep_dir.parent)
    trials = [path.name for path in results_dir.glob(f"trials/{target}*")] if len(target) >= MIN_DIGITS else []
    if len(trials) > 1:
        raise ConfigError(f"{target!r} begins several identities: {', '.join(sorted(trials))}. Write more digits.")
    if trials:
        return _add_to_trial(trials[0], text, results_dir)
    try:
        sweep_dir = find_sweep(target, results_dir)
    except ConfigError as error:
        raise ConfigError(f"{target!r} is no trial's identity (as in the diary, at least {MIN_DIGITS} digits), no "
                          f"SWEEP:NUMBER and no sweep. {error}") from error
    add_note(sweep_dir, text)
    write_views(sweep_dir)
    return [sweep_dir]


def _add_to_trial(train_id: str, text: str, results_dir: Path) -> list[Path]:
    add_note(trial_folder(results_dir, train_id).root, text)
    sweeps = [path.parent for path in sorted(results_dir.glob("*/trials.jsonl"))
              if any(row["train_id"] == train_id for row in read_jsonl(path))]
    for sweep_dir in sweeps:
        write_views(sweep_dir)
    return sweeps


def _identity(sweep_dir: Path, number: int) -> str:
    numbers = {row["number"]: str(row["train_id"]) for row in read_jsonl(sweep_dir / "trials.jsonl")}
    if number not in numbers:
        raise ConfigError(f"{sweep_dir.name} has no trial {number}; its trials are "
                          f"{', '.join(map(str, sorted(numbers)))}.")
    return numbers[number]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sweep.record.note", description=__doc__)
    parser.add_argument("target", metavar="TRIAL", help="identity from the diary, SWEEP:NUMBER, or a sweep")
    parser.add_argument("text", help="the note, in quotes")
    parser.add_argument("--results-dir", type=Path, default=Path("results"))
    given = parser.parse_args(arguments)
    for sweep_dir in add(given.target, given.text, given.results_dir):
        print(sweep_dir / "diary.md")
    return 0


if __name__ == "__main__":
    run_command(main)
