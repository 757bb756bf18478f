"""Is a search worth it, and does pruning lose the best?

    python -m studies.search_regret record    trains the table, or goes on with it; --plan says the hours alone
    python -m studies.search_regret replay    searches on the table that is there

60 settings on the pocket base, each trained twice (two seeds), every checkpoint screened and the answer confirmed on
fresh noise: the table. It is an ordinary sweep, so a kill loses nothing: the same command goes on. Then searches are
replayed on it, with the sampler, the duplicates and the pruning rule of a real one, and a look-up for training:

    regret   the table's best mean over seeds, less the mean of the setting whose observed value (one seed, drawn per
             search) was the best after n trials; TPE against random
    pruning  all settings in random order, eight at a time, by the rule of conf/search/tpe.yaml at several margins: the
             share of steps that is not trained, and how often the best setting of the seed that is seen is given up

Writes table.json, search_regret.json and .md into results/search/. Intervals are 90 %, by bootstrap over searches: they
say how sure the replay is, not how another subject would come out.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep.command_line import CONF_DIR
from sweep.conductor.plan import expected_s, rate_key
from sweep.config import compose
from sweep.files import read_json, read_jsonl, write_json, write_text
from sweep.record.facts import read_record, read_trials
from sweep.record.provenance import commit, hardware
from sweep.record.results import read_status
from sweep.schema import build, build_family
from sweep.search.outcome import Outcome, Screened, screened_rows
from sweep.search.pruning import behind
from sweep.search.settings import SEARCHES, Pruning
from sweep.search.study import SweepStudy
from sweep.trial import DIVERGED, DONE, Trial, trial_folder

WORK = Path("results/search-table")
OUT = Path("results/search")
TABLE, NAME = "table.json", "table"
SEEDS = (1, 2)
RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
DIMS = (4, 32, 128)
TEXT_RATES = (0.0, 5e-5)
SCHEDULERS = ("constant", "cosine")
NUM_STEPS, SAVE_EVERY = 1200, 200
SWEEP = [f"unet_lr={','.join(map(str, RATES))}", f"network_dim={','.join(map(str, DIMS))}",
         f"text_encoder_lr={','.join(map(str, TEXT_RATES))}", f"scheduler={','.join(SCHEDULERS)}",
         f"seed={','.join(map(str, SEEDS))}", f"max_train_steps={NUM_STEPS}", f"save_every_n_steps={SAVE_EVERY}",
         "save_every_n_epochs=100000", "dataset.num_images=14", "tracker=none", f"sweep.name={NAME}"]
# What a search of the same settings would be given; a proposal stands for the nearest one of the table.
SPACE = ["unet_lr=tag(log,interval(3e-5,3e-3))", "network_dim=tag(log,int(interval(4,128)))",
         "text_encoder_lr=choice(0.0,5e-5)", "scheduler=choice(constant,cosine)"]
BUDGETS = (10, 20, 30)
NUM_STARTUP = 5  # trials drawn at random before TPE learns; at conf's 10 it would be random itself up to 10
MARGINS = (0.0, 0.02, 0.05, 0.1)  # in usefulness
PACK = 8  # trials that train at a time in the replay of pruning
NUM_RESAMPLED = 2000
# One training with its scores on one core: seconds, mean of three that `make sweep` trained on idle cores; their steps.
TRIAL_S, TRIAL_STEPS = 198.0, 1250


@dataclass(frozen=True, slots=True)
class Run:
    """One training: its confirmed usefulness, None if it can't be known, and its checkpoints."""

    value: float | None
    screened: tuple[Screened, ...]


@dataclass(frozen=True, slots=True)
class Setting:
    """A row of the table. runs: by seed."""

    settings: Mapping[str, Any]
    runs: tuple[Run, ...]

    @property
    def mean(self) -> float | None:
        values = [run.value for run in self.runs if run.value is not None]
        return statistics.mean(values) if len(values) == len(self.runs) else None


def main(arguments: Sequence[str] | None = None) -> None:
    """Record what is missing of the table, or replay and report."""
    parser = argparse.ArgumentParser(description="Is a search worth it, and does pruning lose the best?")
    commands = parser.add_subparsers(dest="command", required=True)
    record = commands.add_parser("record", help="train what is missing of the table")
    record.add_argument("--plan", action="store_true", help="say what is missing and what it takes; train nothing")
    replay = commands.add_parser("replay", help="search on the table that is there")
    replay.add_argument("--searches", type=int, default=200, help="replayed searches of each kind")
    asked = parser.parse_args(arguments)
    if asked.command == "record":
        print(what_is_left(WORK), flush=True)
        if not asked.plan:
            subprocess.run([sys.executable, "train.py", "-m", *SWEEP, f"sweep.results_dir={WORK}"], check=True)
            write_json(OUT / TABLE, [_row_to_json(row) for row in recorded(WORK)])
        return
    table = [_row_from_json(row) for row in read_json(OUT / TABLE)]
    found = {"regret": regrets(table, asked.searches), "pruning": {
        str(margin): pruned(table, asked.searches, margin) for margin in MARGINS}}
    write_json(OUT / "search_regret.json", {**found, "searches": asked.searches, "commit": commit(),
                                            "hardware": hardware()})
    write_text(OUT / "search_regret.md", report(found, table, asked.searches))


def what_is_left(results_dir: Path) -> str:
    """What is missing of the table and the hours that it takes: at the pace at which this folder's trials were trained
    and scored before, else at that of TRIAL_S."""
    num_trials = len(RATES) * len(DIMS) * len(TEXT_RATES) * len(SCHEDULERS) * len(SEEDS)
    known = read_trials(results_dir / NAME / "trials.jsonl").values()
    statuses = [read_status(results_dir, trial) for trial in known]
    open_steps = [status.step for status in statuses if status.status not in (DONE, DIVERGED)]
    num_done = len(statuses) - len(open_steps)
    left = {"step": (num_trials - num_done) * NUM_STEPS - sum(open_steps), "trial": num_trials - num_done}
    left["checkpoint"] = -(-left["step"] // SAVE_EVERY)
    config = compose([])
    found = expected_s(results_dir, rate_key(config), num_steps=left["step"], num_checkpoints=left["checkpoint"],
                       num_trials=left["trial"])
    seconds = left["step"] / TRIAL_STEPS * TRIAL_S if found is None else found
    num_workers = config.launcher.num_workers
    pace = "this folder's own pace" if found is not None else "the pace of make sweep"
    return (f"{num_done} of {num_trials} trainings are done; {left['step']} steps and {left['checkpoint']} checkpoints "
            f"are left: about {seconds / num_workers / 3600:.1f} hours with {num_workers} workers, at {pace}")


def recorded(results_dir: Path) -> list[Setting]:
    """The table from the sweep's folders. Raises ValueError for a trial that has not ended well."""
    runs: dict[str, dict[int, Run]] = {}
    settings: dict[str, dict[str, Any]] = {}
    record = read_record(results_dir / NAME)
    for result in record.results:
        trial = result.trial
        if result.status not in (DONE, DIVERGED) or (result.status == DONE and result.answer is None):
            raise ValueError(f"Trial {trial.number} is not done; the same command goes on with it.")
        folder = trial_folder(results_dir, trial.train_id)
        value = result.answer.score.axes["usefulness"].value if result.answer else None
        mine = {key: part for key, part in trial.settings.items() if key != "seed"}
        settings[repr(mine)] = mine
        runs.setdefault(repr(mine), {})[trial.config["seed"]] = Run(
            value, tuple(screened_rows(list(read_jsonl(folder.metrics)), record.facts.scoring_ids[trial.train_id])))
    return [Setting(settings[key], tuple(runs[key][seed] for seed in SEEDS)) for key in settings]


# -- regret

def regrets(table: Sequence[Setting], num_searches: int) -> dict[str, Any]:
    """By budget: each sampler's median regret, TPE's less random's, the same of means, all with intervals; and the
    share of searches whose regret is 0."""
    by_sampler = {name: [search(table, name, seed) for seed in range(num_searches)] for name in ("tpe", "random")}
    found: dict[str, Any] = {}
    for place, budget in enumerate(BUDGETS):
        tpe, rand = ([one[place] for one in by_sampler[name]] for name in ("tpe", "random"))
        found[str(budget)] = {
            **{name: _bootstrap(_of(statistics.median, one), num_searches)
               for name, one in (("tpe", tpe), ("random", rand))},
            "tpe less random": _bootstrap(_gap(statistics.median, tpe, rand), num_searches),
            "mean, tpe less random": _bootstrap(_gap(statistics.fmean, tpe, rand), num_searches),
            "mean": {"tpe": statistics.fmean(tpe), "random": statistics.fmean(rand)},
            "found the best": {"tpe": tpe.count(0.0) / num_searches, "random": rand.count(0.0) / num_searches}}
    return found


def _of(statistic: Callable[[list[float]], float], values: Sequence[float]) -> Callable[[Sequence[int]], float]:
    return lambda drawn: statistic([values[i] for i in drawn])


def _gap(statistic: Callable[[list[float]], float], one: Sequence[float],
         other: Sequence[float]) -> Callable[[Sequence[int]], float]:
    return lambda drawn: _of(statistic, one)(drawn) - _of(statistic, other)(drawn)


def search(table: Sequence[Setting], sampler: str, seed: int) -> list[float]:
    """One replayed search: its regret after each budget. As in a real one, a setting that was tried counts once."""
    draw = random.Random(f"{sampler} {seed}")
    best = max(row.mean for row in table if row.mean is not None)
    tried: dict[int, Trial] = {}
    seen: dict[int, float | None] = {}
    found: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        config = build_family(SEARCHES, {**_conf("tpe"), "name": sampler, "seed": seed,
                                         "num_startup_trials": NUM_STARTUP}, "search")
        study = SweepStudy(Path(folder) / "replay", config, _axes(), {}, print)
        while len(found) < len(BUDGETS):
            number, proposed = study.ask()
            row = nearest(table, proposed)
            if row in tried:
                study.reject(number, _outcome(seen[row]), "tried before")
                continue
            tried[row] = Trial(number=len(tried) + 1, train_id=str(row), settings=proposed, config={}, num_steps=1)
            seen[row] = table[row].runs[draw.randrange(len(table[row].runs))].value
            study.assign(number, tried[row])
            study.tell(tried[row], _outcome(seen[row]))
            if len(tried) in BUDGETS:
                known = {i: value for i, value in seen.items() if value is not None}
                mean = table[max(known, key=lambda i: known[i])].mean if known else None
                found.append(best - mean if mean is not None else best)
    return found


def nearest(table: Sequence[Setting], proposed: Mapping[str, Any]) -> int:
    """The row that a proposal stands for; rates and ranks by their ratio."""
    def distance(row: int) -> float:
        mine = table[row].settings
        far = sum(10.0 for key in ("text_encoder_lr", "scheduler") if mine[key] != proposed[key])
        return far + sum(abs(math.log(mine[key] / proposed[key])) for key in ("unet_lr", "network_dim"))

    return min(range(len(table)), key=distance)


def _outcome(value: float | None) -> Outcome:
    return Outcome(state="pruned") if value is None else Outcome(state="complete", axes={"usefulness": value})


def _axes() -> list[Any]:
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from sweep.search.axes import read_axes

    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return read_axes(SPACE, GlobalHydra.instance().config_loader())


def _conf(name: str) -> dict[str, Any]:
    import yaml

    tree: dict[str, Any] = yaml.safe_load((CONF_DIR / "search" / f"{name}.yaml").read_text(encoding="utf-8"))
    return tree


# -- pruning

def pruned(table: Sequence[Setting], num_sweeps: int, margin: float) -> dict[str, Any]:
    """What the paired rule saves at a margin, and how often it gives up the best setting."""
    rule = build(Pruning, {**_conf("tpe")["pruning"], "margin": margin})
    sweeps = [prune(table, rule, seed) for seed in range(num_sweeps)]
    return {"saved_frac": _bootstrap(lambda drawn: statistics.mean(sweeps[i][0] for i in drawn), num_sweeps),
            "lost_best_frac": _bootstrap(lambda drawn: statistics.mean(float(sweeps[i][1]) for i in drawn), num_sweeps)}


def prune(table: Sequence[Setting], rule: Pruning, seed: int) -> tuple[float, bool]:
    """One replayed sweep: (share of the steps that were saved, whether the best of what is seen was given up)."""
    draw = random.Random(f"prune {seed}")
    runs = [row.runs[draw.randrange(len(row.runs))] for row in table]
    waiting = draw.sample(range(len(runs)), len(runs))
    seen: dict[int, list[Screened]] = {}
    live: list[int] = []
    given_up: set[int] = set()
    while waiting or live:
        while waiting and len(live) < PACK:
            live.append(waiting.pop(0))
        for i in live:
            seen[i] = list(runs[i].screened[:len(seen.get(i, [])) + 1])
        for i in list(live):
            if len(seen[i]) == len(runs[i].screened):
                live.remove(i)
            elif behind(rule, seen[i], {j: rows for j, rows in seen.items() if j != i}):
                given_up.add(i)
                live.remove(i)
    trained = sum(rows[-1].step for rows in seen.values() if rows)  # a run may diverge before its first checkpoint
    whole = sum(run.screened[-1].step for run in runs if run.screened)
    values = {i: run.value for i, run in enumerate(runs) if run.value is not None}
    best = max(values, key=lambda i: values[i])
    return 1 - trained / whole, best in given_up


# -- figures

def _bootstrap(statistic: Callable[[Sequence[int]], float], n: int) -> dict[str, float]:
    """The statistic of all n searches with its 90 % interval (Efron 1979, percentiles)."""
    draw = random.Random(0)
    values = sorted(statistic(draw.choices(range(n), k=n)) for _ in range(NUM_RESAMPLED))
    return {"value": statistic(range(n)), "low": values[NUM_RESAMPLED // 20], "high": values[-NUM_RESAMPLED // 20],
            "n": n}


def report(found: Mapping[str, Any], table: Sequence[Setting], num_searches: int) -> str:
    """The figures as a page."""
    def shown(one: Mapping[str, float]) -> str:
        return f"{one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"

    lines = ["# Is a search worth it?", "",
             f"{len(table)} settings x {len(SEEDS)} seeds, {num_searches} replayed searches each; median regret in "
             "usefulness with 90 % intervals.", "",
             "| trials | TPE | random | TPE less random | mean, TPE less random | found the best: TPE, random |",
             "|---|---|---|---|---|---|"]
    for budget, row in found["regret"].items():
        best = row["found the best"]
        lines.append(f"| {budget} | {shown(row['tpe'])} | {shown(row['random'])} | {shown(row['tpe less random'])} | "
                     f"{shown(row['mean, tpe less random'])} | {best['tpe']:.0%}, {best['random']:.0%} |")
    values = sorted((row.mean for row in table if row.mean is not None), reverse=True)
    lines += ["", f"The table's best settings: {', '.join(f'{value:.3f}' for value in values[:5])}; its median "
              f"{statistics.median(values):.3f}, its worst {values[-1]:.3f}. A median of regrets is one of the gaps "
              "between settings, 0 once more than half of the searches find the best."]
    lines += ["", "Pruning by the paired rule:", "",
              "| search.pruning.margin | share of steps saved | share of sweeps that gave up the best setting |",
              "|---|---|---|"]
    lines += [f"| {margin} | {shown(row['saved_frac'])} | {shown(row['lost_best_frac'])} |"
              for margin, row in found["pruning"].items()]
    lines += ["", "What these figures can tell, and how the table was made: README.md beside this page.", "",
              "    python -m studies.search_regret record",
              "    python -m studies.search_regret replay", ""]
    return "\n".join(lines)


def _row_to_json(row: Setting) -> dict[str, Any]:
    return {"settings": dict(row.settings),
            "runs": [{"value": run.value, "screened": [
                {"step": one.step, "usefulness": one.usefulness, "replicates": dict(one.replicates),
                 "margins": list(one.margins)}
                for one in run.screened]} for run in row.runs]}


def _row_from_json(tree: Mapping[str, Any]) -> Setting:
    return Setting(tree["settings"], tuple(
        Run(run["value"], tuple(_screened_from_json(one) for one in run["screened"])) for run in tree["runs"]))


def _screened_from_json(tree: Mapping[str, Any]) -> Screened:
    return Screened(**{**tree, "margins": tuple(tree.get("margins", (0.0, 0.0)))})


if __name__ == "__main__":
    main()
