"""Checkpoints and embeddings are scored like LoRAs, but for a strength, which they have not."""

from pathlib import Path

import pytest
import torch

from sweep.evaluation import drawing
from sweep.evaluation.cells import most_images
from sweep.evaluation.lora_files import find_loras
from sweep.evaluation.scorer import Scorer, ScoreRequest
from sweep.model.text import with_new_words
from sweep.network.bank import AdapterBank
from sweep.network.checkpoint_file import write_checkpoint_file
from sweep.network.embedding_file import write_embedding_file
from sweep.network.spec import WholeSpec, WordsSpec
from sweep.network.targets import find_layers
from tests.unit.evaluation.evaluation_examples import tiny_scoring


@pytest.fixture(scope="module")
def layers(base):
    return find_layers(base)


@pytest.fixture(scope="module")
def files(base, layers, make_lora, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    made = {"lora": make_lora(folder / "c.safetensors")}
    for kind, spec, metadata in (("checkpoint", WholeSpec(parts=("unet",)), {"ss_epoch": "3", "ss_steps": "30"}),
                                 ("embedding", WordsSpec(num_vectors=2, init_word="woman"), {})):
        bank = AdapterBank(layers, [spec])
        bank.init_weights(0, seed=1)
        made[kind] = folder / f"{kind}.safetensors"
        if kind == "checkpoint":
            write_checkpoint_file(made[kind], base, layers, bank.weights(0), dtype=torch.float16, metadata=metadata)
        else:
            write_embedding_file(made[kind], layers, bank.weights(0), dtype=torch.float32, metadata=metadata)
    return made


def test_each_kind_is_named_with_its_use(base, layers, files, subject_dataset, tmp_path, monkeypatch) -> None:
    rows = []
    real = drawing.generate

    def keeping(base, targets, some, *arguments, **options):
        rows.extend(some)
        return real(base, targets, some, *arguments, **options)

    monkeypatch.setattr(drawing, "generate", keeping)
    scorer = Scorer(base, layers, tiny_scoring(), subject_dataset, tmp_path)
    trials = [[ScoreRequest(file=file, epoch=1, step=10, scores_dir=tmp_path / kind, images_dir=tmp_path / kind)]
              for kind, file in files.items()]
    progress = []
    answers = scorer.finish(trials, lambda done, total: progress.append((done, total)))
    assert [answer.kind for answer in answers] == list(files)
    assert [answer.strength for answer in answers][1:] == [1.0, 1.0]
    assert progress[-1] == (3 * most_images(scorer.scoring, scorer.dataset, 1),) * 2 and progress == sorted(progress)
    drawn = {kind: [row for row in rows if row.lora is not None and row.lora.kind == kind] for kind in files}
    assert {row.strength for row in drawn["lora"]} == {1.0, 0.5}
    assert {row.strength for row in (*drawn["checkpoint"], *drawn["embedding"])} == {1.0}
    prompts = {kind: [row.prompt for row in drawn[kind]] for kind in ("checkpoint", "embedding")}
    assert any("alexq" in prompt for prompt in prompts["checkpoint"]), "but for those of the class"
    assert {with_new_words(prompt, "alexq", 2) for prompt in prompts["checkpoint"]} == set(prompts["embedding"])


def test_they_are_found_as_loras_are(files) -> None:
    """With what they say of themselves; the latest last."""
    found, problems = find_loras(str(files["lora"].parent))
    assert [lora.path for lora in found][-1] == files["checkpoint"] and len(found) == 3 and not problems
    assert (found[-1].epoch, found[-1].step) == (3, 30)
