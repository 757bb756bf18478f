"""Whole runs, start-up and encoding included: a sweep against a plain script, a solo run's overhead, a long sweep."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from sweep.bench.record import Folder, csv_text
from sweep.bench.timers import Timers
from sweep.files import read_json, write_text

_RUN_PEER = ("import runpy, sys; from sweep.model.torchvision_ops import declare_missing_operators; "
             "declare_missing_operators(); sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')")
"""A CPU-only torch beside torchvision from another index lacks operators that diffusers' imports want."""

ROOT = Path(__file__).parents[2]
PEER = ROOT / "studies" / "peer_lora.py"
_DIMS, _ALPHAS = (4, 8, 16, 32, 64, 128), (1, 16)


def compare_with_peer(folder: Folder, *, steps: int, repeats: int, num_trials: int, at_once: Sequence[int]) -> None:
    """`train.py -m network_dim=4,8,16,32,64,128 network_alpha=1,16`, training only, against a loop of the plain script
    over the same trials, so many at a time; interleaved. num_trials: the first so many, for a quick look."""
    points = [(dim, alpha) for dim in _DIMS for alpha in _ALPHAS][:num_trials]
    dims, alphas = sorted({dim for dim, _ in points}), sorted({alpha for _, alpha in points})
    folder.begin(steps=steps, trials=len(points))
    rows: list[dict[str, Any]] = []
    runs = {"ours": partial(_ours, dims, alphas, steps),
            **{f"peer, {number} at a time": partial(_peer, points, steps, number) for number in at_once}}
    for repeat in range(repeats):
        for name, run in runs.items():
            rows.append({"what": name, "repeat": repeat, "wall_s": run()})
            print(rows[-1], flush=True)
            write_text(folder.path / "table.csv", csv_text(("what", "repeat", "wall_s"), rows))
    median = {name: statistics.median(row["wall_s"] for row in rows if row["what"] == name)
              for name in dict.fromkeys(row["what"] for row in rows)}
    folder.say("summary", {"median_wall_s": median, "n": repeats, "times_faster": {
        name: wall_s / median["ours"] for name, wall_s in median.items() if name != "ours"}})


def _ours(dims: Sequence[int], alphas: Sequence[int], steps: int) -> float:
    with TemporaryDirectory() as results_dir:
        return _wall_s([_train("-m", f"network_dim={','.join(map(str, dims))}",
                               f"network_alpha={','.join(map(str, alphas))}", f"max_train_steps={steps}",
                               f"sweep.results_dir={results_dir}")], at_once=1)


def _peer(points: Sequence[tuple[int, int]], steps: int, at_once: int) -> float:
    from sweep.pocket import SUBJECT_DIR, WEIGHTS_DIR

    with TemporaryDirectory() as out:
        fixed = [sys.executable, "-c", _RUN_PEER, str(PEER), "--pretrained_model_name_or_path", str(WEIGHTS_DIR / "sd"),
                 "--instance_data_dir", str(SUBJECT_DIR / "train"), "--max_train_steps", str(steps)]
        return _wall_s([[*fixed, "--rank", str(dim), "--lora_alpha", str(alpha), "--output_dir", f"{out}/{dim}-{alpha}"]
                        for dim, alpha in points], at_once=at_once)


def _train(*arguments: str) -> list[str]:
    return [sys.executable, "train.py", *arguments, "scoring=none", "tracker=none"]


def _wall_s(commands: Sequence[list[str]], *, at_once: int) -> float:
    """Wall time of commands, so many side by side, which share the machine's cores."""
    threads = max(1, (os.cpu_count() or 1) // at_once)
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    if at_once == 1:
        del environment["OMP_NUM_THREADS"]  # all cores, as a user would have it
    started, waiting, running = time.perf_counter(), list(commands), list[subprocess.Popen[bytes]]()
    while waiting or running:
        while waiting and len(running) < at_once:
            running.append(subprocess.Popen(waiting.pop(0), cwd=ROOT, env=environment, stdout=subprocess.DEVNULL,
                                            stderr=subprocess.PIPE))
        for process in [process for process in running if process.poll() is not None]:
            running.remove(process)
            if process.returncode:
                assert process.stderr is not None
                raise RuntimeError(f"{process.args!r} failed: {process.stderr.read().decode()[-2000:]}")
        time.sleep(0.02)
    return time.perf_counter() - started


def time_outside(folder: Folder, *, steps: int) -> None:
    """The share of a solo run's time, between its 20th and its last step, that is not forward, backward or optimizer
    (with clipping): batches, noise, metrics, status, control file."""
    import torch

    from sweep.worker import pack_run
    from sweep.worker.process import Worker

    with TemporaryDirectory() as results_dir:
        spec = _spec(Path(results_dir), ["max_train_steps=" + str(steps)])
        timers = Timers(torch.device("cpu"))
        marks: list[tuple[float, float]] = []
        real = pack_run.PackRun._after_update

        def marked(self: Any, *args: Any) -> None:
            real(self, *args)
            marks.append((time.perf_counter(), sum(timers.spent_s.values())))

        pack_run.PackRun._after_update = marked  # type: ignore[assignment, method-assign]
        try:
            with timers.running():
                Worker().run(spec)
        finally:
            pack_run.PackRun._after_update = real  # type: ignore[method-assign]
    first, last = marks[min(20, len(marks) // 2)], marks[-2]  # the last update writes the LoRA file
    share = 1 - (last[1] - first[1]) / (last[0] - first[0])
    folder.begin(steps=steps, threads=1)
    folder.say("summary", {"outside_frac": share, "wall_s": last[0] - first[0], "num_steps": len(marks) - 22})


def many_trials(folder: Folder, *, num_trials: int, steps: int) -> None:
    """So many short trials, one after the other in one worker's process: seconds and memory of each."""
    from dataclasses import replace

    from sweep.trial import trial_folder
    from sweep.worker.process import Worker

    folder.begin(steps=steps, trials=num_trials)
    worker, process, rows = Worker(), psutil.Process(), list[dict[str, Any]]()
    with TemporaryDirectory() as results_dir:
        for number in range(num_trials):
            spec = _spec(Path(results_dir), [f"max_train_steps={steps}", f"seed={number}"])
            started = time.perf_counter()
            worker.run(replace(spec, max_trials=1))
            elapsed_s = time.perf_counter() - started
            [trial] = spec.trials
            status = read_json(trial_folder(Path(results_dir), trial.train_id).status)
            if status["status"] != "done":
                raise RuntimeError(f"trial {number}: {status}")
            rows.append({"trial": number + 1, "elapsed_s": elapsed_s,
                         "memory_gib": process.memory_info().rss / 2**30})
            write_text(folder.path / "table.csv", csv_text(("trial", "elapsed_s", "memory_gib"), rows))
    _plot_growth(folder.path / "growth.png", rows)
    tenth = max(1, num_trials // 10)
    early, late = rows[1:1 + tenth], rows[-tenth:]  # the first one loads the base
    folder.say("summary", {key: {"early": statistics.median(row[key] for row in early),
                                 "late": statistics.median(row[key] for row in late)}
                           for key in ("elapsed_s", "memory_gib")})


def _spec(results_dir: Path, settings: Sequence[str]) -> Any:
    """The pack that train.py would hand to its worker: found in a plan that stops before anything runs."""
    from hydra import compose, initialize_config_dir

    from sweep.command_line import CONF_DIR
    from sweep.preflight import Preflight
    from sweep.search.grid import one_cell
    from sweep.trial import PackSpec

    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = compose("config", overrides=[*settings, "scoring=none", "tracker=none"])
    [checked] = Preflight(results_dir).check(one_cell(cfg).cells)
    return PackSpec(trials=(checked.trial,), scoring={"name": "none"}, results_dir=str(results_dir), device="cpu:0",
                    threads=1, save_state_every_n_steps=250, control=str(results_dir / "control.json"))


def _plot_growth(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, both = pyplot.subplots(2, 1, sharex=True, figsize=(8, 5), layout="constrained")
    for axes, key in zip(both, ("elapsed_s", "memory_gib"), strict=True):
        axes.plot([row["trial"] for row in rows], [row[key] for row in rows], marker=".")
        axes.set(ylabel=key, ylim=(0, None))
    both[1].set(xlabel="trial")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
