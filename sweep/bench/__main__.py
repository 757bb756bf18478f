"""Measure what training in packs costs: throughput, memory, where the time goes.

    python -m sweep.bench grid --k 1,2,4,8 --rank 8,32        any layouts (about 10 s each)
    python -m sweep.bench packs                               K = 8 against one at a time, CPU (about 25 min)
    python -m sweep.bench sweep                               12 trials against 12 runs of a plain script (about 20 min)
    python -m sweep.bench outside                             a solo run's time outside the steps (about 1 min)
    python -m sweep.bench long                                100 short trials in one process (about 10 min)
    python -m sweep.bench room                                how many trials a card holds, counted (about 2 min)
    python -m sweep.bench estimate                            what a GPU should give, on paper (about 1 min)
    python -m sweep.bench gpu                                 SD 1.5's shape on a GPU (about 15 min)

Each writes results/<date>_bench/<command>/: table.csv, raw.jsonl, hardware.json and a plot. Timings are worth
something on an otherwise idle machine only.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

from sweep.bench.layouts import Layout, Measured, measure
from sweep.bench.limits import matmul_flops_per_s, step_flops
from sweep.bench.record import Folder, plot_throughput


def main(arguments: Sequence[str]) -> int:
    """Returns the process's exit code."""
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], None] = options.run
    run(options)
    return 0


def grid(options: argparse.Namespace) -> None:
    """Every combination of what the options list."""
    layouts = [Layout(base_model=base, device=options.device, precision=precision, resolution=resolution, rank=rank,
                      k=k, workers=workers, threads=threads, compiled=compiled, gradient_checkpointing=checkpointing,
                      trains_text_encoder=not options.no_text_encoder)
               for base, precision, resolution, rank, workers, threads, compiled, checkpointing, k in product(
                   options.base_model, options.precision, options.resolution, options.rank, options.workers,
                   options.threads, options.compiled, options.checkpointing, options.k)]
    _measure_all(layouts, options, options.folder)


def packs(options: argparse.Namespace) -> None:
    """K = 8 and K = 1 in every layout of two cores, interleaved, so that a slow minute meets all of them."""
    layouts = [Layout(rank=rank, k=k, precision=precision, workers=workers, threads=threads)
               for rank in options.rank for precision in options.precision
               for workers, threads in ((1, 2), (2, 1)) for k in (1, 8)]
    _measure_all(layouts, options, "packs")


def gpu(options: argparse.Namespace) -> None:
    """Throughput over K on a GPU, eager and compiled."""
    layouts = [Layout(base_model=options.base, device=options.device, precision=options.precision[0],
                      resolution=options.resolution[0], rank=options.rank[0], k=k, threads=options.threads[0],
                      compiled=compiled, trains_text_encoder=False) for compiled in options.compiled for k in options.k]
    _measure_all(layouts, options, "gpu")


def whole_sweep(options: argparse.Namespace) -> None:
    from sweep.bench.whole import compare_with_peer

    compare_with_peer(Folder(options.results_dir, "sweep"), steps=options.steps, repeats=options.repeats,
                      num_trials=options.trials, at_once=options.at_once)


def outside(options: argparse.Namespace) -> None:
    from sweep.bench.whole import time_outside

    time_outside(Folder(options.results_dir, "outside"), steps=options.steps)


def long(options: argparse.Namespace) -> None:
    from sweep.bench.whole import many_trials

    many_trials(Folder(options.results_dir, "long"), num_trials=options.trials, steps=options.steps)


def room(options: argparse.Namespace) -> None:
    """Count on fake tensors how many trials cards of 8 to 80 GB have room for."""
    from sweep.bench.room import count_room

    count_room(Folder(options.results_dir, "room"))


def estimate(options: argparse.Namespace) -> None:
    """What a GPU should give, on paper: operations counted on fake tensors, rates stated."""
    from sweep.bench.estimate import estimate

    layout = Layout(base_model=options.base, precision="bf16", resolution=options.resolution[0],
                    rank=options.rank[0], trains_text_encoder=False)
    estimate(Folder(options.results_dir, "estimate"), layout, options.k)


def _measure_all(layouts: Sequence[Layout], options: argparse.Namespace, name: str) -> None:
    folder = Folder(options.results_dir, name)
    peaks = {key: matmul_flops_per_s(key[0], key[1], num_processes=key[2], threads=key[3])
             for key in {(one.device, one.precision, one.workers, one.threads) for one in layouts}}
    flops = {key: step_flops(one) for one in layouts for key in [_shape(one)]}
    folder.begin(matmul_flops_per_s={" ".join(map(str, key)): rate for key, rate in peaks.items()},
                 flops_per_trial_step={" ".join(map(str, key)): count for key, count in flops.items()})
    found: list[tuple[Layout, Measured]] = []
    for repeat in range(options.repeats):
        for layout in layouts:
            one = measure(layout, num_updates=options.updates, min_s=options.min_s)
            peak = peaks[layout.device, layout.precision, layout.workers, layout.threads]
            achieved = one.trial_steps_per_s * flops[_shape(layout)] / peak
            folder.add(layout, one, repeat=repeat, achieved_frac=achieved)
            found.append((layout, one))
            print(f"{layout.name}: {one.failed or f'{one.trial_steps_per_s:.1f} trial-steps/s'}", flush=True)
    limits = {f"limit at rank {layout.rank}, {'fp32' if layout.precision == 'no' else layout.precision}":
              max(rate for key, rate in peaks.items() if key[:2] == (layout.device, layout.precision))
              / flops[_shape(layout)] for layout in layouts}
    plot_throughput(folder.path / "throughput.png", found, limits)
    folder.say("gains", _gains(found))


def _gains(found: Sequence[tuple[Layout, Measured]]) -> dict[str, object]:
    """By base, resolution and rank: the fastest way of each K by its median over repeats, against K = 1's fastest."""
    gains: dict[str, object] = {}
    for key in dict.fromkeys(_shape(layout) for layout, _ in found):
        rates: dict[int, dict[str, list[float]]] = {}
        for layout, one in found:
            if _shape(layout) == key and not one.failed:
                rates.setdefault(layout.k, {}).setdefault(layout.name, []).append(one.trial_steps_per_s)
        best = {k: max(((statistics.median(each), name, each) for name, each in ways.items()))
                for k, ways in rates.items()}
        alone = best[1][0] if 1 in best else None
        gains[" ".join(map(str, key))] = {
            f"K={k}": {"fastest": name, "trial_steps_per_s": median, "min": min(each), "max": max(each), "n": len(each),
                       "gain": median / alone if alone else None}
            for k, (median, name, each) in sorted(best.items())}
    return gains


def _shape(layout: Layout) -> tuple[object, ...]:
    return layout.base_model, layout.resolution, layout.rank


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def _words(text: str) -> list[str]:
    return text.split(",")


def _switches(text: str) -> list[bool]:
    return [{"yes": True, "no": False}[word] for word in text.split(",")]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sweep.bench", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)

    def command(name: str, run: Callable[[argparse.Namespace], None], **defaults: object) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=run.__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        sub.set_defaults(run=run)
        sub.add_argument("--results-dir", type=Path, default=Path("results"), help="where the dated folder goes")
        for key, (kind, help_text) in _OPTIONS.items():
            if key in defaults:
                sub.add_argument(f"--{key.replace('_', '-')}", type=kind, default=defaults[key], help=help_text)
        return sub

    measured: dict[str, object] = {"updates": 8, "min_s": 5.0, "repeats": 1}
    whole = command("grid", grid, **measured, folder="grid", base_model="pocket", device="cpu", precision="no",
                    resolution="64", rank="8", k="1,2,4,8", workers="1", threads="1", compiled="no", checkpointing="no")
    whole.add_argument("--no-text-encoder", action="store_true", help="the UNet's adapters alone")
    command("packs", packs, **{**measured, "repeats": 5}, rank="8,32", precision="no,bf16")
    command("gpu", gpu, **{**measured, "updates": 20}, base="sd15", device="cuda:0", precision="bf16", resolution="512",
            rank="32", k="1,2,4,8,16,32", threads="4", compiled="no,yes")
    command("sweep", whole_sweep, steps=300, repeats=3, trials=12, at_once="1,2")
    command("room", room)
    command("estimate", estimate, base="sd15", resolution="512", rank="32", k="1,2,4,8,16,32")
    command("outside", outside, steps=300)
    command("long", long, trials=100, steps=20)
    return parser


_OPTIONS: dict[str, tuple[Callable[[str], object], str]] = {
    "folder": (str, "its name"), "base": (str, "sd15 or sdxl, with random weights; or pocket"),
    "base_model": (_words, "pocket, sd15, sdxl (random weights)"), "device": (str, "cpu, cuda:0"),
    "precision": (_words, "no (fp32), bf16, fp16"), "resolution": (_numbers, "pixels"),
    "rank": (_numbers, "network_dim"), "k": (_numbers, "trials in a pack"),
    "workers": (_numbers, "processes side by side"), "threads": (_numbers, "CPU threads of each"),
    "compiled": (_switches, "the UNet's blocks by torch.compile: yes, no"),
    "checkpointing": (_switches, "gradient checkpointing: yes, no"),
    "updates": (int, "timed updates, at least"), "min_s": (float, "timed seconds, at least"),
    "repeats": (int, "of everything, interleaved"), "steps": (int, "of each trial"), "trials": (int, "how many"),
    "at_once": (_numbers, "plain scripts side by side"),
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
