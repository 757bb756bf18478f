"""Each kind of file is used in its own way, and the words say so."""

from dataclasses import replace

import pytest
import record_examples as examples
import yaml
from record_on_disk import make_sweep

from sweep.files import read_json, write_json
from sweep.record.card import write_publish
from sweep.record.facts import read_record
from sweep.record.sentences import answer_sentence, use_sentence
from sweep.record.use import UseConfig, copy_chosen
from sweep.trial import Answer, TrialResult, answer_from_json, to_json


def of_kind(kind: str) -> TrialResult:
    result = examples.result(1, (0.8, 0.7, 0.9))
    assert result.answer is not None
    return replace(result, answer=replace(result.answer, kind=kind, file="alexq-12.safetensors", strength=1.0))


def answer(kind: str) -> Answer:
    found = of_kind(kind).answer
    assert found is not None
    return found


@pytest.mark.parametrize(("kind", "sentence", "use"), [
    ("lora", "at strength 1: write `alexq man <lora:alexq-12:1>`.", "at 1: `<lora:alexq-12:1>`."),
    ("checkpoint", "as the model: write `alexq man`.", ", a whole checkpoint to choose as the model."),
    ("embedding", "in the folder `embeddings`: write `alexq-12 man`.", ": `alexq-12` stands for the trigger."),
])
def test_the_answer_says_how_its_file_is_used(kind: str, sentence: str, use: str) -> None:
    assert sentence in answer_sentence(examples.entry(), [of_kind(kind)])
    assert use in use_sentence(answer(kind))


def test_answers_of_older_versions_name_loras() -> None:
    tree = to_json(answer("checkpoint"))
    assert answer_from_json(tree).kind == "checkpoint"
    del tree["kind"]
    assert answer_from_json(tree).kind == "lora"


@pytest.mark.parametrize(("kind", "folder", "method"), [
    ("checkpoint", "models/Stable-diffusion", {"name": "dreambooth"}),
    ("embedding", "`embeddings`", {"name": "textual_inversion", "num_vectors": 4, "init_word": None})])
def test_what_is_published_is_no_lora(tmp_path, kind: str, folder: str, method: dict) -> None:
    """Nor is there a configuration of a LoRA trainer beside it."""
    sweep = make_sweep(tmp_path / "results", num_trials=1, real_configs=True)
    [path] = (tmp_path / "results").glob("trials/*/scores/answer-*.json")
    write_json(path, {**read_json(path), "kind": kind})
    record = read_record(sweep)
    [result] = record.results
    base = {"name": "sd15", "path": "runwayml/stable-diffusion-v1-5", "resolution": 512, "vae": None}
    config = {**result.trial.config, "method": method, "base_model": base}
    record = replace(record, results=(replace(result, trial=replace(result.trial, config=config)),))
    published = write_publish(record)
    assert published is not None and not list(published.glob("*.toml"))
    card = (published / "README.md").read_text()
    assert folder in card and f"method = {method['name']}" in card
    assert not any(word in card for word in ("<lora:", "strength:", "sd-scripts", "network_dim"))
    assert "lora" not in yaml.safe_load(card.split("---")[1])["tags"]
    experiment = yaml.safe_load((published / "experiment.yaml").read_text())
    assert experiment["method"] == method
    (tmp_path / "models").mkdir()
    copied = copy_chosen(UseConfig(copy_to=str(tmp_path / "models")), record)
    assert copied is not None and not copied.with_suffix(".json").exists(), "only a LoRA's is read"
