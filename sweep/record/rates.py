"""What one unit of work cost here before, so that a plan can say what a sweep will cost."""

from __future__ import annotations

from pathlib import Path

from sweep.files import read_json, write_json


def expected(results_dir: Path, key: str, num_units: int) -> float | None:
    """Seconds (or what else was remembered) of so many units; None before the first measurement."""
    rate = all_of(results_dir).get(key)
    return None if rate is None else rate * num_units


def remember(results_dir: Path, key: str, spent: float, num_units: int) -> None:
    """Take the newest measurement for the truth: machines change."""
    if num_units > 0:
        write_json(_path(results_dir), {**all_of(results_dir), key: spent / num_units})


def all_of(results_dir: Path) -> dict[str, float]:
    """What each unit cost, by key."""
    try:
        rates: dict[str, float] = read_json(_path(results_dir))
        return rates
    except (FileNotFoundError, ValueError):
        return {}


def _path(results_dir: Path) -> Path:
    return results_dir / "cache" / "rates.json"
