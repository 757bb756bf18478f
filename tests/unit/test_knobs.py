"""docs/knobs.md says where each option of sd-scripts is; what it names of ours is there."""

import re

import yaml

from sweep.record.kohya.names import CONF_DIR, NETWORK_ARGS, NOT_ABOUT_TRAINING, OURS
from tests.conftest import ROOT

TABLE = (ROOT / "docs" / "knobs.md").read_text(encoding="utf-8")
ACCELERATES = {"num_cpu_threads_per_process"}  # an option of `accelerate launch`


def rows() -> list[list[str]]:
    """(option there, key here, remarks), but for headings and rules."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in TABLE.splitlines() if line[:1] == "|"]
    return [row for row in cells if row[0] == "-" or not (row[0] == "sd-scripts" or set(row[0]) <= {"-"})]


def test_every_option_that_an_import_knows_is_in_the_table() -> None:
    named = " ".join(row[0] for row in rows())
    options = ({*OURS, *NETWORK_ARGS} | NOT_ABOUT_TRAINING) - ACCELERATES
    missing = [name for name in options
               if not re.search(rf"\b{name}\b", named) and not ("console_log_*" in named and "console_log" in name)]
    assert not missing


def test_what_is_missing_is_explained() -> None:
    for row in rows():
        assert len(row) == 3, row
        assert row[2] or row[1] != "-", f"{row[0]} is not here, and nobody says why"


def test_every_key_of_ours_that_it_names_exists() -> None:
    config = yaml.safe_load((CONF_DIR / "config.yaml").read_text(encoding="utf-8"))
    known = set(config)
    for group in ("dataset", "base_model", "optimizer", "scheduler", "network"):
        for path in (CONF_DIR / group).glob("*.yaml"):
            known |= {f"{group}.{key}" for key in yaml.safe_load(path.read_text(encoding="utf-8")) or {}}
    named = {key for row in rows() for key in re.findall(r"\b(?:dataset|base_model|scheduler)\.[a-z_]+", " ".join(row))}
    assert len(named) > 15 and not named - known
