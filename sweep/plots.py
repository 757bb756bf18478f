"""`python -m sweep.plots SWEEP`: Optuna's plots of a sweep's study, grids included, as one page that works offline.

The study is read and never written: only its sweep's conductor does that, and it may be running.
"""

from __future__ import annotations

import argparse
import html
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.errors import ConfigError
from sweep.files import write_text
from sweep.record.command import run_command
from sweep.record.entry import read_entry
from sweep.record.facts import find_sweep
from sweep.search.storage import STORAGE_VARIABLE, database_url

if TYPE_CHECKING:
    from optuna.study import Study

PAGE = "optuna.html"
MIN_TRIALS = 2  # one point is no plot
_CONFIG = {"displayModeBar": False, "responsive": True}  # plotly's own buttons would send the figure to its cloud


def read_study(sweep_dir: Path, storage_file: str | None = None) -> Study:
    """A sweep's study: of the database that storage_file or the environment names, else of its study.log. Raises
    ConfigError where there is none."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path, url = sweep_dir / "study.log", database_url(storage_file)
    if url is None and not path.exists():
        raise ConfigError(f"{sweep_dir.name} has no study.log. If its study lies in a database, name it by "
                          f"{STORAGE_VARIABLE} or --storage-file. Else the sweep's own command builds it from the "
                          f"trials and trains nothing again:\n  {read_entry(sweep_dir / 'sweep.yaml').command}")
    # Not as the conductor opens it, which makes missing tables and cuts off half a line: here one may be being written.
    try:
        storage: Any = (optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
                        if url is None else optuna.storages.RDBStorage(url, skip_table_creation=True))
        return optuna.load_study(study_name=sweep_dir.name, storage=storage)
    except KeyError:
        where = f"{path}" if url is None else "The database"
        raise ConfigError(f"{where} holds no study {sweep_dir.name!r}. The sweep's own command builds it from its "
                          f"trials; one elsewhere is named by {STORAGE_VARIABLE} or --storage-file.") from None
    except Exception as error:  # a driver's message may name the URL, and with it the password
        raise ConfigError(f"The study of {sweep_dir.name} can't be read ({type(error).__name__}). Check that the URL "
                          "in the variable or the file is right and its server runs; an embedded study.log is mended "
                          "by the sweep's own command.") from None


def write_plots(sweep_dir: Path, study: Study) -> Path:
    """Write optuna.html beside the sweep's record: importance, slice and parallel coordinates of each objective.

    Raises ConfigError without plotly, or with fewer scored trials than MIN_TRIALS.
    """
    import optuna

    if not optuna.visualization.is_available():
        raise ConfigError("Optuna's plots need the package plotly: pip install plotly")
    scored = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if sum(bool(trial.params) for trial in scored) < MIN_TRIALS:
        raise ConfigError(f"{sweep_dir.name} has {len(scored)} scored trials in its study; plots need {MIN_TRIALS} "
                          "with something swept. Wait for more, or sweep over a setting.")
    name = html.escape(sweep_dir.name)
    title = f"{name}: {len(scored)} scored trials, as Optuna plots them"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that few trials tell little, which the page says
        figures = "\n".join(_figures(study))
    path = sweep_dir / PAGE
    write_text(path, f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>
<body style="font-family: sans-serif; margin: 2em auto; max-width: 1100px">
<h1>{title}</h1>
<p>Trials that failed or were pruned are left out. Importance is PED-ANOVA, which has no interval: of few trials it says
little. The report has shares with intervals.</p>
{figures}
</body></html>
""")
    return path


def _figures(study: Study) -> Iterator[str]:
    """HTML of each figure; the first one brings plotly.js."""
    from optuna import visualization

    plots: tuple[Callable[..., Any], ...] = (visualization.plot_param_importances, visualization.plot_slice,
                                             visualization.plot_parallel_coordinate)
    objectives = study.metric_names or [f"objective {number}" for number, _ in enumerate(study.directions, start=1)]
    for position, objective in enumerate(objectives):
        # A target of its own would turn the colours of a single objective around.
        target = partial(_value, position=position) if len(objectives) > 1 else None
        for plot in plots:
            place = f"{plot.__name__}-{objective}"
            yield plot(study, target=target, target_name=objective).to_html(
                full_html=False, include_plotlyjs=position == 0 and plot is plots[0], div_id=place, config=_CONFIG)


def _value(trial: Any, position: int) -> float:
    return float(trial.values[position])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sweep.plots", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", metavar="SWEEP", help="a sweep's name or its folder")
    parser.add_argument("--results-dir", type=Path, default=Path("results"))
    parser.add_argument("--storage-file", help=f"holds the URL of a shared database; {STORAGE_VARIABLE} does the same")
    given = parser.parse_args(arguments)
    sweep_dir = find_sweep(given.sweep, given.results_dir)
    print(write_plots(sweep_dir, read_study(sweep_dir, given.storage_file)))
    return 0


if __name__ == "__main__":
    run_command(main)
