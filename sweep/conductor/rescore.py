"""`python evaluate.py sweep=NAME`: score a sweep's trials again and write its record anew. Trains nothing."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sweep.conductor.conduct import LauncherMaker, conduct
from sweep.errors import ConfigError
from sweep.evaluation.settings import NoScoring
from sweep.launch.launcher import make_launcher
from sweep.preflight import Preflight
from sweep.record.entry import read_entry
from sweep.record.facts import trials_of
from sweep.redact import MASK
from sweep.search.grid import Cells, cells_of
from sweep.trial import Trial, TrialResult

_SWITCHES = ("-m", "--multirun")


def rescore(name: str, results_dir: str, overrides: Sequence[str],
            launcher_of: LauncherMaker = make_launcher) -> list[TrialResult]:
    """Score what the sweep has trained as it was asked, or otherwise; trials that are not trained stay as they are.

    overrides: of evaluate.py's command; of them, scoring=... and scoring.... change what is measured. From then on the
    sweep stands for that: its sweep.yaml has the command that asks for both. The chosen file is not copied to where
    use.copy_to says.
    Needs a running Hydra that knows conf/. Raises ConfigError for a sweep that is not there, one whose command can't be
    read again, one whose trials this version of the program would train otherwise, and for other overrides.
    """
    sweep_dir = Path(results_dir) / name
    if not (sweep_dir / "sweep.yaml").exists():
        there = ", ".join(sorted(path.parent.name for path in Path(results_dir).glob("*/sweep.yaml"))) or "none"
        raise ConfigError(f"sweep={name}: there is no sweep of this name in {results_dir}. There are: {there}. "
                          "A sweep elsewhere: results_dir=FOLDER.")
    place = next((line for line in overrides if _key(line) == "results_dir"), f"results_dir={results_dir}")
    lines = _again(read_entry(sweep_dir / "sweep.yaml").command, _of_scoring(overrides),
                   {"sweep.name": f"sweep.name={name}", "sweep.results_dir": f"sweep.{place}"})
    from hydra import compose  # by the Hydra that runs evaluate.py: it may not be started twice
    from hydra.core.global_hydra import GlobalHydra

    cells = cells_of([line for line in lines if _key(line).partition(".")[0] not in ("use", "plan")],
                     lambda some: compose("config", overrides=some), GlobalHydra.instance().config_loader())
    if isinstance(cells.config.scoring, NoScoring):
        raise ConfigError("scoring=none measures nothing; give scoring=pocket, person, animal, object or style.")
    trials = trials_of(sweep_dir)
    return conduct(_cells_that_ran(cells, trials, results_dir), launcher_of, trains=False,
                   command=["python", "train.py", "-m", *lines])


def _of_scoring(overrides: Sequence[str]) -> list[str]:
    """The overrides that say how to score. Raises ConfigError for others."""
    found = []
    for line in overrides:
        key = _key(line)
        if key.partition(".")[0] == "scoring":
            found.append(line)
        elif key not in ("sweep", "results_dir"):
            raise ConfigError(f"{line!r} can't stand beside sweep=NAME, which scores the sweep's own trials with their "
                              "own photos: give scoring=..., scoring.KEY=... or results_dir=FOLDER.")
    return found


def _again(command: str, changes: Sequence[str], fixed: Mapping[str, str]) -> list[str]:
    """The overrides of the command that asked for the sweep, with the changes in place of what they change.

    fixed: where the sweep lies, as override by key.
    """
    try:
        program, *arguments = shlex.split(command)[1:] or [""]
        unreadable = [argument for argument in arguments if argument not in _SWITCHES and (
                      "=" not in argument or argument.startswith("-") or MASK in argument)]
        because = f"{unreadable[0]!r} in it" if unreadable else "it" if Path(program).name != "train.py" else ""
    except ValueError as error:
        arguments, because = [], str(error)
    if because:
        raise ConfigError(f"The sweep's command can't be repeated, because of {because}:\n  {command}\nType it again "
                          "with another sweep.name and the scoring that you want: what is trained is found, and not "
                          "trained again.")
    changed = [*map(_key, changes), *fixed]
    kept = [line for line in arguments if line not in _SWITCHES
            and not any(_key(line) == key or _key(line).startswith(f"{key}.") for key in changed)]
    return [*kept, *changes, *fixed.values()]


def _key(line: str) -> str:
    return line.partition("=")[0].lstrip("+~")


def _cells_that_ran(cells: Cells, trials: Sequence[Trial], results_dir: str) -> Cells:
    """The cells of the sweep's own trials, whichever of its commands or its search asked for them."""
    ran = replace(cells, cells=tuple(cells.cell_at(trial.settings) for trial in trials if not trial.refused))
    if not ran.cells:
        raise ConfigError("The sweep has no trial that can be scored: it ended before the first, or all were refused.")
    known = {trial.train_id for trial in trials}
    other = [one.trial.settings for one in Preflight(Path(results_dir)).check(ran.cells)
             if one.trial.train_id not in known and not one.trial.refused]
    if other:
        raise ConfigError(f"{len(other)} of the sweep's {len(trials)} trials would be trained otherwise now, the first "
                          f"is {dict(other[0])}: the photos, the base, or what this version of the program makes of "
                          "its settings have changed. Score their files by themselves: python evaluate.py "
                          "lora=FOLDER dataset.dir=PHOTOS.")
    return replace(ran, order=tuple(range(len(ran.cells))))
