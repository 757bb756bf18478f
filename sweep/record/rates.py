"""How long a trial-step took here before, scoring included, so that a plan can say how long a sweep will take."""

from __future__ import annotations

from pathlib import Path

from sweep.files import read_json, write_json


def expected_s(results_dir: Path, key: str, num_steps: int) -> float | None:
    """Seconds that so many trial-steps would take one worker; None before the first measurement.

    key: what the rate depends on most: base, resolution, device, scoring.
    """
    rate = _rates(results_dir).get(key)
    return None if rate is None else rate * num_steps


def remember(results_dir: Path, key: str, elapsed_s: float, num_steps: int) -> None:
    """Take the newest measurement for the truth: machines change."""
    if num_steps > 0:
        write_json(_path(results_dir), {**_rates(results_dir), key: elapsed_s / num_steps})


def _rates(results_dir: Path) -> dict[str, float]:
    try:
        rates: dict[str, float] = read_json(_path(results_dir))
        return rates
    except (FileNotFoundError, ValueError):
        return {}


def _path(results_dir: Path) -> Path:
    return results_dir / "cache" / "rates.json"
