"""The benchmark's own arithmetic and files; what it measures is measured by hand, on idle cores."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from sweep.bench.__main__ import _gains, main
from sweep.bench.estimate import Machine, Operation, operations_of, seconds
from sweep.bench.layouts import Layout, Measured

MEASURED = Measured(trial_steps_per_s=1.0, images_per_s=1.0, peak_memory_gib=1.0, forward_frac=0.4, backward_frac=0.5,
                    optimizer_frac=0.05, outside_frac=0.05, update_s=(1.0,))


def test_a_gain_is_over_the_fastest_way_to_train_one_at_a_time() -> None:
    rates = {(1, 1, 2): (10, 11, 12), (1, 2, 1): (14, 16, 15), (8, 1, 2): (30, 20, 40), (8, 2, 1): (28, 29, 27)}
    found = [(Layout(k=k, workers=workers, threads=threads), replace(MEASURED, trial_steps_per_s=float(rate)))
             for (k, workers, threads), each in rates.items() for rate in each]
    found.append((Layout(k=8, workers=4), replace(MEASURED, trial_steps_per_s=99.0, failed="out of memory")))
    gains = _gains(found)["pocket 64 8"]
    assert gains["K=1"]["trial_steps_per_s"] == 15 and "2x1 threads" in gains["K=1"]["fastest"]
    assert gains["K=8"]["trial_steps_per_s"] == 30 and gains["K=8"]["gain"] == 2
    assert (gains["K=8"]["min"], gains["K=8"]["max"], gains["K=8"]["n"]) == (20, 40, 3)


@pytest.mark.parametrize("command", ["grid", "packs", "gpu", "sweep", "outside", "long", "room", "estimate"])
def test_every_command_explains_itself(command: str, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0 and "--results-dir" in capsys.readouterr().out


def test_an_update_on_paper_takes_the_longest_of_each_operation_or_the_launches() -> None:
    machine = Machine(name="", matmul_flops_per_s=1e12, achieved_frac=0.5, memory_bytes_per_s=1e9, kernel_s=1e-3,
                      launch_s=2e-3)
    operations = [Operation(1e10, 0), Operation(0, 3e6), Operation(1, 1)]  # 20 ms, 3 ms, the smallest kernel's 1 ms
    assert seconds(operations, machine) == pytest.approx((0.024, 0.006))


@pytest.mark.slow
def test_the_operations_of_a_stacked_pack_hardly_grow_with_it() -> None:
    """That is what a pack saves on a GPU that waits for launches."""
    layout = Layout(base_model="sd15", precision="bf16", resolution=64, rank=8, trains_text_encoder=False)
    two, eight = (operations_of(replace(layout, k=k)) for k in (2, 8))
    assert len(eight) < 1.1 * len(two)
    assert sum(each.flops for each in eight) == pytest.approx(4 * sum(each.flops for each in two), rel=0.01)


@pytest.mark.slow
def test_a_grid_leaves_its_table_and_what_it_was_measured_with(tmp_path: Path) -> None:
    assert main(["grid", "--k", "1,2", "--updates", "1", "--min-s", "0", "--results-dir", str(tmp_path)]) == 0
    [folder] = tmp_path.glob("*_bench/grid")
    rows = list(csv.DictReader((folder / "table.csv").open()))
    assert [row["k"] for row in rows] == ["1", "2"] and all(float(row["trial_steps_per_s"]) > 0 for row in rows)
    assert {"device", "base_model", "precision", "resolution", "rank", "k", "workers", "threads", "compiled",
            "trial_steps_per_s", "peak_memory_gib"} <= set(rows[0])
    assert {path.name for path in folder.iterdir()} >= {"raw.jsonl", "hardware.json", "throughput.png", "gains.json"}
