import csv
from dataclasses import replace
from pathlib import Path

import pytest
from record_examples import entry, result

from sweep.record.table import write_csv
from sweep.trial import DIVERGED, FAILED


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_trial_is_a_row_and_unknown_cells_are_empty(tmp_path: Path) -> None:
    results = [result(1, (0.8, 0.75, 0.85)), result(2, status=FAILED, reason='out of memory,\n"12 GiB"'),
               result(3, status=DIVERGED, reason="loss is NaN at step 12"), result(4, None)]
    write_csv(tmp_path / "trials.csv", entry(), results)
    rows = _rows(tmp_path / "trials.csv")
    assert [row["status"] for row in rows] == ["done", "failed", "diverged", "done"]
    assert rows[0]["identity"] == "id0001"
    assert (rows[0]["usefulness"], rows[0]["usefulness_low"], rows[0]["usefulness_high"]) == ("0.8", "0.75", "0.85")
    assert rows[0]["file"] == "alexq-000003.safetensors"
    assert rows[0]["choice"] == "best"
    assert (rows[0]["bleed"], rows[0]["bleed_low"], rows[0]["bleed_high"]) == ("0.34", "0.16", "0.53")
    assert rows[0]["attributed_minutes"] == "1.5"
    assert rows[1]["reason"] == 'out of memory, "12 GiB"'
    assert [rows[1][key] for key in ("likeness", "verdict", "file", "strength", "choice")] == [""] * 5
    assert rows[3]["usefulness"] == ""
    assert "no face in the references" in rows[3]["reason"]


def test_columns_stand_in_the_promised_order(tmp_path: Path) -> None:
    write_csv(tmp_path / "trials.csv", entry(swept_keys=("network_dim", "optimizer.betas")),
              [result(1, (0.8, 0.7, 0.9), settings={"network_dim": 8, "optimizer.betas": [0.9, 0.99]})])
    header = (tmp_path / "trials.csv").read_text().splitlines()[0].split(",")
    assert header[:6] == ["number", "identity", "status", "network_dim", "optimizer.betas", "steps"]
    assert header[-4:] == ["guidance_scale", "bleed", "bleed_low", "bleed_high"], "what came later stands last"
    assert header[6:9] == ["likeness", "likeness_low", "likeness_high"]
    assert _rows(tmp_path / "trials.csv")[0]["optimizer.betas"] == "[0.9, 0.99]"


def test_pandas_reads_figures_as_numbers(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    write_csv(tmp_path / "trials.csv", entry(), [result(1, (0.8, 0.7, 0.9)), result(2, status=FAILED)])
    frame = pandas.read_csv(tmp_path / "trials.csv")
    assert frame["usefulness"].dtype == float
    assert frame["usefulness"].isna().tolist() == [False, True]


def test_what_experiments_bring_along_stands_in_columns_of_its_own_at_the_end(tmp_path: Path) -> None:
    results = [result(n, settings={"experiment": f"e{n}"}) for n in (1, 2)]
    results = [replace(r, trial=replace(r.trial, config={"network_dim": 8 * r.trial.number})) for r in results]
    write_csv(tmp_path / "trials.csv", entry(question={"network_dim": 32}, swept_keys=("experiment",)), results)
    assert [list(row)[-1] for row in _rows(tmp_path / "trials.csv")] == ["network_dim"] * 2
    assert [row["network_dim"] for row in _rows(tmp_path / "trials.csv")] == ["8", "16"]
