"""The dated folder that a benchmark leaves: table, raw numbers, hardware, command, plot."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import date
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

from sweep.bench.layouts import Layout, Measured
from sweep.files import append_jsonl, write_json, write_text
from sweep.record.provenance import commit, hardware, versions

COLUMNS = ("device", "base_model", "precision", "resolution", "rank", "k", "workers", "threads", "compiled",
           "trial_steps_per_s", "images_per_s", "peak_memory_gib", "gradient_checkpointing", "text_encoder",
           "forward_frac", "backward_frac", "optimizer_frac", "outside_frac", "achieved_frac", "repeat", "failed")


class Folder:
    """results/<date>_bench/<name>/: every command adds a folder of its own, run again it starts it anew."""

    def __init__(self, results_dir: Path, name: str) -> None:
        self.path = results_dir / f"{date.today().isoformat()}_bench" / name
        self.path.mkdir(parents=True, exist_ok=True)
        self._raw = self.path / "raw.jsonl"
        write_text(self._raw, "")
        self._rows: list[dict[str, Any]] = []

    def begin(self, **facts: Any) -> None:
        """What it was measured with."""
        write_json(self.path / "hardware.json", {
            "command": " ".join(["python -m sweep.bench", *sys.argv[1:]]), "commit": commit(), "hardware": hardware(),
            "platform": platform.platform(), "versions": versions(), **facts})

    def add(self, layout: Layout, found: Measured, *, repeat: int = 0, achieved_frac: float | None = None) -> None:
        append_jsonl(self._raw, {"layout": asdict(layout), "repeat": repeat, "measured": asdict(found),
                                 "achieved_frac": achieved_frac})
        row = {**asdict(layout), **asdict(found), "repeat": repeat, "achieved_frac": achieved_frac,
               "text_encoder": layout.trains_text_encoder}
        self._rows.append({column: row[column] for column in COLUMNS})
        write_text(self.path / "table.csv", csv_text(COLUMNS, self._rows))

    def say(self, name: str, tree: Mapping[str, Any]) -> None:
        """A summary, also printed."""
        write_json(self.path / f"{name}.json", dict(tree))
        print(json.dumps(tree, indent=1))


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    import csv
    import io

    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{value:.4g}" if isinstance(value, float) else value for key, value in row.items()})
    return out.getvalue()


def plot_throughput(path: Path, found: Sequence[tuple[Layout, Measured]], limits: Mapping[str, float]) -> None:
    """Trial-steps per second over K, a line per way to run, medians with their range; grey: what the machine's matrix
    products would allow."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rates: dict[str, dict[int, list[float]]] = {}
    for layout, one in found:
        if not one.failed:
            name = layout.name.partition(" ")[2]
            rates.setdefault(name, {}).setdefault(layout.k, []).append(one.trial_steps_per_s)
    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for name, by_k in rates.items():
        ks = sorted(by_k)
        middle = [median(by_k[k]) for k in ks]
        spread = [[m - min(by_k[k]) for k, m in zip(ks, middle, strict=True)],
                  [max(by_k[k]) - m for k, m in zip(ks, middle, strict=True)]]
        axes.errorbar(ks, middle, yerr=spread, marker="o", capsize=3, label=name)
    for (name, rate), style in zip(limits.items(), cycle(("--", ":", "-.")), strict=False):
        axes.axhline(rate, linestyle=style, color="grey", label=f"{name}: {rate:.3g}/s")
    axes.set_xscale("log", base=2)
    axes.set_xticks(ks_of := sorted({layout.k for layout, _ in found}), [str(k) for k in ks_of])
    axes.set(xlabel="K, trials in a pack", ylabel="trial-steps per second, whole machine", ylim=(0, None))
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
