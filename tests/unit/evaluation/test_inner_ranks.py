"""A DyLoRA is scored at its inner ranks, each of which is a file that can be used."""

import csv

import pytest
import torch

from sweep.errors import ScoringError
from sweep.evaluation.inner_ranks import check_inner_ranks, smallest_as_good
from sweep.evaluation.lora_files import FoundLora
from sweep.evaluation.standalone import evaluate
from sweep.network.lora_file import read_lora
from tests.unit.evaluation.evaluation_examples import unconfirmed_scoring
from tests.unit.evaluation.test_choice import score
from tests.unit.evaluation.test_standalone import config

DYLORA = {"ss_network_module": "networks.dylora"}


def test_inner_ranks_are_written_scored_and_ranked_beside_the_whole(make_lora, targets, tmp_path, capsys):
    lora = make_lora(tmp_path / "dy.safetensors", dim=8, metadata=DYLORA)
    asked = config(lora, tmp_path / "results", inner_ranks=(2, 4), scoring=unconfirmed_scoring())
    [answer] = evaluate(asked)
    [folder] = (tmp_path / "results").glob("evaluate-*")
    rows = list(csv.DictReader((folder / "table.csv").open()))
    assert {row["file"] for row in rows} == {"dy.safetensors", "dy-rank4.safetensors", "dy-rank2.safetensors"}
    assert len(rows) == 4 and answer.file in {row["file"] for row in rows}
    whole = read_lora(lora, targets)
    for rank in (2, 4):
        [path] = (folder / "inner").glob(f"*/dy-rank{rank}.safetensors")
        part = read_lora(path, targets)
        assert all(layer.form.dim == rank for layer in part.layers.values())
        key = next(iter(whole.weights))
        assert torch.allclose(part.weights[key]["lora_down.weight"], whole.weights[key]["lora_down.weight"][:rank])
    images = sorted((tmp_path / "results" / "cache" / "images").rglob("*.png"))
    changed = [path.stat().st_mtime_ns for path in images]
    assert evaluate(asked) == [answer]
    assert [path.stat().st_mtime_ns for path in images] == changed, "asked again, nothing is drawn"
    evaluate(config(lora, tmp_path / "results", scoring=unconfirmed_scoring()))
    assert len(list((tmp_path / "results").glob("evaluate-*"))) == 2, "without its inner ranks it is another table"


def test_the_smallest_file_that_is_as_good_is_named(tmp_path):
    scores, files = [], []
    for rank, usefulness in ((64, 0.80), (16, 0.798), (4, 0.4)):
        path = tmp_path / f"a-rank{rank}.safetensors"
        path.write_bytes(b"0" * 100_000 * rank)
        files.append(FoundLora(path, 0, 0))
        scores.append(score(rank, usefulness, file=path.name))
    words = smallest_as_good(scores, files)
    assert words.endswith("strength 1: a-rank16.safetensors (1.6 MB, of 6.4)")
    assert smallest_as_good([score(1, None, file=files[0].path.name)], files[:1]) == ""


def test_what_has_no_such_inner_ranks_is_refused_before_the_base_is_loaded(make_lora, tmp_path):
    lora = make_lora(tmp_path / "dy.safetensors", metadata=DYLORA)
    with pytest.raises(ScoringError, match=r"inner_ranks=\[64, 2\].*dy.safetensors has rank 4; give ranks below it"):
        evaluate(config(lora, tmp_path, inner_ranks=(64, 2)))
    plain = make_lora(tmp_path / "plain.safetensors", metadata={"ss_network_module": "networks.lora"})
    with pytest.raises(ScoringError, match=r"is no DyLoRA.*sweep.network.tools resize"):
        evaluate(config(plain, tmp_path, inner_ranks=(2,)))
    check_inner_ranks([FoundLora(plain, 0, 0)], ())  # what is not asked for is not refused
