"""What docs/records.md promises: two files that load in pandas in one line, with the columns it names."""

import re
from pathlib import Path

import pandas
import pytest
from record_on_disk import make_sweep

from sweep.record.table import columns
from sweep.record.views import write_views

DOCS = (Path(__file__).parents[3] / "docs" / "records.md").read_text()


@pytest.fixture(scope="module")
def sweep_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sweep_dir = make_sweep(tmp_path_factory.mktemp("records") / "results", num_trials=9, num_steps=6, num_sheets=0)
    write_views(sweep_dir)
    return sweep_dir


def test_the_table_loads_in_one_line_with_numbers_as_numbers(sweep_dir: Path) -> None:
    table = pandas.read_csv(sweep_dir / "trials.csv")
    assert list(table.columns) == columns(("network_dim", "unet_lr", "seed"))
    assert table.usefulness.dtype == float and table.network_dim.dtype == int
    assert len(table) == 9 and table.usefulness.isna().sum() == 1, "the diverged trial is a row too"
    assert ((table.usefulness_low <= table.usefulness) | table.usefulness.isna()).all()
    assert set(table.choice.dropna()) <= {"best", "tie"} and len(table.choice.dropna()) >= 1


def test_the_metrics_load_in_one_line(sweep_dir: Path) -> None:
    rows = pandas.read_json(sweep_dir.parent / "trials" / f"{1:012x}" / "metrics.jsonl", lines=True)
    assert rows[rows.kind == "train"].step.tolist() == [1, 2, 3, 4, 5, 6]
    assert rows[rows.kind == "train"].loss.notna().all()
    assert set(rows.kind) == {"train", "validation", "score"}


def test_the_document_names_every_column() -> None:
    fixed = [name for name in columns(()) if not re.search(r"_(low|high)$", name)]
    assert [name for name in fixed if f"`{name}`" not in DOCS] == []
