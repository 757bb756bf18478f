"""Points that a search tries first, from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sweep.command_line import CONF_DIR
from sweep.errors import ConfigError

STARTS_DIR = CONF_DIR / "search" / "starts"


def read_starts(name: str) -> list[dict[str, Any]]:
    """The points of a file: a YAML list of settings. name: of conf/search/starts, or a path."""
    import yaml

    path = STARTS_DIR / f"{name}.yaml"
    if not path.exists():
        path = Path(name).expanduser()
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in STARTS_DIR.glob("*.yaml")))
        raise ConfigError(f"search.start_from={name}: there is no such file. Give a path, or one of: {known}.")
    points = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(points, list) or not all(isinstance(point, dict) for point in points):
        raise ConfigError(f"{path} must be a list of settings, e.g. - {{network_dim: 32, unet_lr: 1.0e-4}}.")
    return points
