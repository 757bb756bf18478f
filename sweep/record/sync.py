"""`python -m sweep.record.sync SWEEP`: send to Weights & Biases what it does not hold yet of a sweep.

What was kept offline, what a dead network or a kill lost, and sweeps that ran with another tracker. It is sent from the
trials' own record, behind the rows that each run already has, so that nothing goes up twice.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.errors import ConfigError
from sweep.files import read_json
from sweep.record.command import run_command
from sweep.record.exporter import Exporter, is_shown
from sweep.record.facts import Record, find_sweep, read_record
from sweep.record.settings import WandbConfig
from sweep.record.shown import Shown
from sweep.record.sweep_log import SWEEP_LOG
from sweep.record.tracker import has_wandb_key
from sweep.trial import FINISHED, TrialResult

if TYPE_CHECKING:
    from sweep.record.wandb_sink import WandbSink

DEFAULT_PROJECT = "lora-sweep"  # of conf/tracker/wandb.yaml, for a sweep that ran without wandb
DEFAULT_WAIT_S = 600
_CONFIRM_S = 10.0  # W&B may count what has come a little later


def sync(sweep_dir: Path, *, project: str | None = None, entity: str | None = None,
         wait_s: int = DEFAULT_WAIT_S) -> tuple[int, list[str]]:
    """Send what is not there. Returns how many runs were behind and are whole now, and a line for each that is not.

    project, entity: None = those of the sweep's own runs. Trials that are still training are left to their sweep.
    Raises ConfigError without an API key or an answer. Called again it sends only what is left.
    """
    from sweep.record.wandb_sink import WandbSink, target_path

    record = read_record(sweep_dir)
    path = target_path(sweep_dir)
    target: dict[str, Any] = read_json(path) if path.exists() else {"project": DEFAULT_PROJECT, "entity": None}
    config = WandbConfig(name="wandb", project=project or str(target["project"]), entity=entity or target["entity"],
                         mode="online", wait_s=wait_s)
    sink = WandbSink(config, "online", record.entry, sweep_dir, record.results_dir, keeps_offline=False)
    ended = [result for result in record.results if result.status in FINISHED]
    unsure = [result for result in ended if not _is_confirmed(result, sink, record)]
    if not unsure and sink.is_concluded(record):
        return 0, []
    if not has_wandb_key():
        raise ConfigError("Sending needs an API key and there is none. Run `wandb login`, or set WANDB_API_KEY.")
    num_said = len(_log(sweep_dir))
    behind = [result for result in unsure if not _has_arrived(result, sink, record)]
    exporter = Exporter(sink, record.entry, sweep_dir, record.results_dir, is_all=True)
    for result in behind:
        exporter.end(result)
    num_runs = len(behind) + (not sink.is_concluded(record))
    exporter.conclude(record)
    exporter.close()
    give_up_s = time.monotonic() + _CONFIRM_S
    left = behind
    while left := [result for result in left if not _has_arrived(result, sink, record)]:
        if time.monotonic() > give_up_s:
            break
        time.sleep(1)
    lines = [f"trial {result.trial.number}, {result.trial.train_id}: not all of it has arrived" for result in left]
    if not sink.is_concluded(record):
        lines.append("the sweep's own run")
    return num_runs - len(lines), [*lines, *_log(sweep_dir)[num_said:]] if lines else []


def _is_confirmed(result: TrialResult, sink: WandbSink, record: Record) -> bool:
    """Whether W&B said earlier that it holds all that the trial's folder has to show."""
    shown = Shown(sink.shown_path(result.trial))
    return is_shown(shown, result, record.entry.name, record.results_dir) and shown.num_confirmed >= len(shown.keys)


def _has_arrived(result: TrialResult, sink: WandbSink, record: Record) -> bool:
    """As above, and asks W&B."""
    shown = Shown(sink.shown_path(result.trial))
    if is_shown(shown, result, record.entry.name, record.results_dir):
        num_there = sink.num_rows_there(result.trial)
        if num_there >= len(shown.keys) > shown.num_confirmed:
            shown.confirm(num_there)
        return num_there >= len(shown.keys)
    return False


def _log(sweep_dir: Path) -> list[str]:
    path = sweep_dir / SWEEP_LOG
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sweep.record.sync", description=__doc__)
    parser.add_argument("sweep", metavar="SWEEP", help="a sweep's name or its folder")
    parser.add_argument("--results-dir", type=Path, default=Path("results"))
    parser.add_argument("--project", help="default: that of the sweep's own runs")
    parser.add_argument("--entity", help="user or team; default: that of the sweep's own runs, or the key's own")
    parser.add_argument("--wait-s", type=int, default=DEFAULT_WAIT_S, help="longest wait in all, seconds")
    given = parser.parse_args(arguments)
    num_sent, left = sync(find_sweep(given.sweep, given.results_dir), project=given.project, entity=given.entity,
                          wait_s=given.wait_s)
    print(f"{num_sent} runs sent" + ("; left:" if left else ""))
    for line in left:
        print(f"  {line}")
    return 1 if left else 0


if __name__ == "__main__":
    run_command(main)
