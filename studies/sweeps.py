"""Sweeps as a user would start them, and what may end one in a study."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

SOME_FAILED = 1


def run_sweep(arguments: Sequence[str]) -> None:
    """Trains what is missing; the same call goes on. A training that fails or diverges is a row of the record, and does
    not end a study.

    Raises CalledProcessError if the sweep could not run or was interrupted.
    """
    done = subprocess.run([sys.executable, "train.py", "-m", *arguments], check=False)
    if done.returncode != SOME_FAILED:
        done.check_returncode()
