"""evaluate.py: files that are there already, ranked, one named."""

import csv

import pytest

from sweep.errors import AdapterFileError, ConfigError, ScoringError
from sweep.evaluation.lora_files import find_loras
from sweep.evaluation.settings import NoScoring
from sweep.evaluation.standalone import EvaluateConfig, evaluate
from sweep.model.base import BaseModelConfig
from tests.conftest import dataset_config
from tests.unit.evaluation.evaluation_examples import TREE, tiny_scoring


def config(lora, results_dir, **changes):
    values = {"lora": None if lora is None else str(lora), "trigger": None, "class_noun": None, "device": "cpu",
              "base_model": BaseModelConfig(name="pocket", path=None, resolution=64), "threads": None, "clip_skip": 1,
              "max_token_length": 75, "dataset": dataset_config(num_images=6),
              "scoring": tiny_scoring(), "results_dir": str(results_dir)}
    return EvaluateConfig(**{**values, **changes})


def test_files_are_found_in_the_order_of_their_training(make_lora, tmp_path):
    make_lora(tmp_path / "b.safetensors", metadata={"ss_epoch": "3", "ss_steps": "30"})
    make_lora(tmp_path / "b-000002.safetensors", metadata={"ss_epoch": "2", "ss_steps": "20"})
    make_lora(tmp_path / "a-000001.safetensors")
    (tmp_path / "other.safetensors").write_bytes(b"nonsense")
    found, skipped = find_loras(str(tmp_path))
    assert [(lora.path.name, lora.epoch, lora.step) for lora in found] == [
        ("a-000001.safetensors", 1, 0), ("b-000002.safetensors", 2, 20), ("b.safetensors", 3, 30)]
    assert len(skipped) == 1 and "other.safetensors" in skipped[0]
    assert [lora.path.name for lora in find_loras(str(tmp_path / "a-*.safetensors"))[0]] == ["a-000001.safetensors"]


def test_nothing_found_is_one_clear_error(tmp_path):
    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    with pytest.raises(AdapterFileError, match="matches no file"):
        find_loras(str(tmp_path / "nowhere"))
    with pytest.raises(AdapterFileError, match="holds no LoRA"):
        find_loras(str(tmp_path / "model.safetensors"))


def test_what_cannot_be_scored_is_refused(tmp_path, make_lora):
    lora = make_lora(tmp_path / "a.safetensors")
    with pytest.raises(ConfigError, match="lora=FILE"):
        evaluate(config(None, tmp_path))
    with pytest.raises(ScoringError, match="scoring=none measures nothing"):
        evaluate(config(lora, tmp_path, scoring=NoScoring(name="none")))
    with pytest.raises(ScoringError, match="pocket base alone"):
        evaluate(config(lora, tmp_path, base_model=BaseModelConfig(name="sd15", path="x", resolution=512)))


def test_a_lora_of_another_base_is_told_before_anything_is_drawn(tmp_path):
    import safetensors.torch
    import torch

    path = tmp_path / "sdxl.safetensors"
    safetensors.torch.save_file({"lora_unet_strange.lora_down.weight": torch.zeros(4, 8),
                                 "lora_unet_strange.lora_up.weight": torch.zeros(8, 4)}, path)
    with pytest.raises(AdapterFileError, match="another family"):
        evaluate(config(path, tmp_path))


def test_a_folder_of_epochs_becomes_a_ranked_table_with_one_file_named(tmp_path, make_lora, capsys):
    for epoch in (1, 2):
        make_lora(tmp_path / "loras" / f"a-{epoch:06d}.safetensors", seed=epoch)
    answer = evaluate(config(tmp_path / "loras", tmp_path / "results"))
    printed = capsys.readouterr().out
    assert f"Use {answer.file} at strength {answer.strength:g}" in printed and answer.reason in printed
    (folder,) = (tmp_path / "results").glob("evaluate-*")
    rows = list(csv.DictReader((folder / "table.csv").open()))
    assert [row["rank"] for row in rows] == ["1", "2", "answer"]
    assert rows[0]["file"] == rows[2]["file"] == answer.file
    assert (folder / "answer.json").exists() and len(list((folder / "images").glob("*.png"))) >= 3
    assert set(TREE["thresholds"]) and {"likeness_low", "usefulness_high", "verdict"} <= set(rows[0])
