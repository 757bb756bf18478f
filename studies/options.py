"""What the long studies' command lines have in common."""

from __future__ import annotations

import argparse
import time
from pathlib import Path


def today() -> str:
    """The day in UTC, as results' folders are named."""
    return time.strftime("%Y-%m-%d", time.gmtime())


def add_places(parser: argparse.ArgumentParser, name: str, work: Path, kept: str) -> None:
    """--threads, --work (where what is `kept` lies, so that a study goes on) and --out (results/<date>_<name>)."""
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--work", type=Path, default=work, help=f"where {kept} kept")
    parser.add_argument("--out", type=Path, default=Path(f"results/{today()}_{name}"), help="the results' folder")
