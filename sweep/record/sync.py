"""`python -m sweep.record.sync SWEEP`: send the runs that were kept offline to Weights & Biases."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from sweep.errors import ConfigError
from sweep.files import write_text
from sweep.record.command import run_command
from sweep.record.facts import find_sweep
from sweep.record.redact import without_secrets
from sweep.record.tracker import has_wandb_key

SENT = "sent.txt"  # wandb no longer marks what it has sent
_TIMEOUT_S = 600  # for one run


def unsent(sweep_dir: Path) -> list[Path]:
    """The offline runs without a mark of being sent (ours, or that of older versions of wandb), oldest first."""
    parts = sorted((sweep_dir / "wandb").glob("offline-run-*"))
    return [part for part in parts
            if part.is_dir() and not (part / SENT).exists() and not any(part.glob("*.wandb.synced"))]


def sync(sweep_dir: Path) -> tuple[int, list[str]]:
    """Send what is unsent. Returns how many runs went through, and a line for each that did not.

    Raises ConfigError without an API key. Called again it sends only what is left.
    """
    parts = unsent(sweep_dir)
    if parts and not has_wandb_key():
        raise ConfigError("Sending needs an API key and there is none. Run `wandb login`, or set WANDB_API_KEY.")
    failed = []
    for part in parts:
        command = [sys.executable, "-m", "wandb", "sync", str(part)]
        environment = {**os.environ, "WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}
        try:
            done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", env=environment,
                                  timeout=_TIMEOUT_S, stdin=subprocess.DEVNULL)
            problem = "" if done.returncode == 0 else done.stdout + done.stderr or "wandb did not say why"
        except subprocess.TimeoutExpired:
            problem = f"not done within {_TIMEOUT_S} s"
        if not problem:
            write_text(part / SENT, "python -m sweep.record.sync sent this run\n")
        else:
            failed.append(f"{part.name}: {without_secrets(' '.join(problem.split()))[-300:]}")
    return len(parts) - len(failed), failed


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sweep.record.sync", description=__doc__)
    parser.add_argument("sweep", metavar="SWEEP", help="a sweep's name or its folder")
    parser.add_argument("--results-dir", type=Path, default=Path("results"))
    given = parser.parse_args(arguments)
    num_sent, failed = sync(find_sweep(given.sweep, given.results_dir))
    print(f"{num_sent} runs sent, {len(failed)} left")
    for line in failed:
        print(f"  {line}")
    return 1 if failed else 0


if __name__ == "__main__":
    run_command(main)
