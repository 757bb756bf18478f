"""conf/ has one home: where the command line, a search's starts and kohya's names look is the same folder."""

from pathlib import Path

import pytest

import sweep.config
from sweep.command_line import CONF_DIR
from sweep.errors import ConfigError
from sweep.record.kohya import names
from sweep.search import starts


def test_there_is_one_conf() -> None:
    assert names.CONF_DIR is CONF_DIR and sweep.config.CONF_DIR is CONF_DIR and starts.CONF_DIR is CONF_DIR
    assert starts.STARTS_DIR.is_relative_to(CONF_DIR) and list(starts.STARTS_DIR.glob("*.yaml"))


def test_starts_are_read_by_name_or_path(tmp_path: Path) -> None:
    known = sorted(starts.STARTS_DIR.glob("*.yaml"))[0]
    points = starts.read_starts(known.stem)
    assert points and points == starts.read_starts(str(known))
    (tmp_path / "a.yaml").write_text("network_dim: 8")
    with pytest.raises(ConfigError, match="must be a list"):
        starts.read_starts(str(tmp_path / "a.yaml"))
