"""The replay, on a table whose best setting is known."""

from __future__ import annotations

import itertools
import math
import random
from pathlib import Path

import pytest

from studies import search_regret as study
from sweep.files import append_jsonl, read_json, read_jsonl, write_json
from sweep.search.outcome import Screened
from sweep.trial import DIVERGED, FAILED, trial_folder
from tests.stand_in import run_sweep


def made_table(noise: float = 0.01) -> list[study.Setting]:
    """Best at a rate of 3e-4 and dim 32, with a trained text encoder; the schedule changes nothing."""
    draw = random.Random(0)

    def run(rate: float, dim: int, text_rate: float) -> study.Run:
        value = 0.8 - 0.25 * abs(math.log10(rate / 3e-4)) - 0.05 * abs(math.log2(dim / 32)) + 0.1 * (text_rate > 0)
        value += draw.gauss(0, noise)
        steps = [200 * (1 + i) for i in range(6)]
        seen = [Screened(step=step, usefulness=value * step / 1200,
                         replicates={f"p{p}": value * step / 1200 + draw.gauss(0, 0.003) for p in range(8)})
                for step in steps]
        return study.Run(value, tuple(seen))

    return [study.Setting({"unet_lr": rate, "network_dim": dim, "text_encoder_lr": text, "scheduler": schedule},
                          tuple(run(rate, dim, text) for _ in study.SEEDS))
            for rate, dim, text, schedule in itertools.product(study.RATES, study.DIMS, study.TEXT_RATES,
                                                               study.SCHEDULERS)]


def test_the_table_holds_the_sweeps_own_scores_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweep.conductor.dispatch.POLL_S", 0.01)
    assert study.what_is_left(tmp_path).startswith("0 of 120 trainings are done; 144000 steps and 720 checkpoints")
    run_sweep([f"sweep.results_dir={tmp_path}", "sweep.name=table", "tracker=none", "dataset.num_images=4",
               "launcher.devices=1", "network_dim=4,8", "seed=1,2", "max_train_steps=1200"])
    table = study.recorded(tmp_path)
    assert [row.settings for row in table] == [{"network_dim": 4}, {"network_dim": 8}]
    assert all(len(run.screened) == 4 for row in table for run in row.runs)
    for path in tmp_path.glob("trials/*/metrics.jsonl"):
        for row in [row for row in read_jsonl(path) if row["kind"] == "score"]:
            row["score"] |= {"scoring_id": "another sweep's", "replicates": {}, "step": row["step"] + 1}
            append_jsonl(path, row)
    assert study.recorded(tmp_path) == table
    assert study.what_is_left(tmp_path).startswith("4 of 120 trainings are done; 139200 steps and 696 checkpoints")
    trial = next(read_jsonl(tmp_path / "table" / "trials.jsonl"))
    folder = trial_folder(tmp_path, trial["train_id"])  # a rate that is too high for one of two seeds
    folder.metrics.unlink()
    next(folder.scores.glob("answer-*.json")).unlink()
    write_json(folder.status, {**read_json(folder.status), "status": DIVERGED, "step": 300})
    assert study.what_is_left(tmp_path).startswith("4 of 120 trainings are done; 139200 steps"), "it trains no further"
    assert study.recorded(tmp_path)[0].runs[0] == study.Run(None, ())
    assert study.recorded(tmp_path)[0].mean is None and study.recorded(tmp_path)[1] == table[1]
    write_json(folder.status, {**read_json(folder.status), "status": FAILED})
    with pytest.raises(ValueError, match="Trial 1 is not done"):
        study.recorded(tmp_path)


def test_a_run_that_diverged_at_once_is_pruned_from_nothing() -> None:
    table = made_table()
    table[0] = study.Setting(table[0].settings, (study.Run(None, ()),) * 2)
    assert study.pruned(table, 3, 0.02)["lost_best_frac"]["value"] == 0


@pytest.mark.slow
def test_a_search_learns_and_random_does_not() -> None:
    table = made_table()
    assert len(table) == 60
    found = study.regrets(table, 8)
    assert found["30"]["tpe"]["value"] <= found["10"]["tpe"]["value"]
    assert found["20"]["mean"]["tpe"] < found["20"]["mean"]["random"]


def test_a_proposal_stands_for_the_nearest_setting() -> None:
    table = made_table()
    row = study.nearest(table, {"unet_lr": 2.4e-4, "network_dim": 70, "text_encoder_lr": 0.0, "scheduler": "cosine"})
    assert table[row].settings == {"unet_lr": 3e-4, "network_dim": 128, "text_encoder_lr": 0.0, "scheduler": "cosine"}


def test_clear_differences_are_pruned_and_the_best_is_kept() -> None:
    found = study.pruned(made_table(), 10, 0.02)
    assert found["saved_frac"]["value"] > 0.3 and found["lost_best_frac"]["value"] == 0


def test_the_report_is_written_from_the_table_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "OUT", tmp_path)
    monkeypatch.setattr(study, "BUDGETS", (2, 4))
    write_json(tmp_path / study.TABLE, [study._row_to_json(row) for row in made_table()])
    study.main(["replay", "--searches", "2"])
    assert "60 settings x 2 seeds" in (tmp_path / "search_regret.md").read_text()
