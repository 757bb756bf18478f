"""Checkpoints and embeddings are scored like LoRAs, but for a strength, which they have not."""

from pathlib import Path

import pytest
import torch

from sweep.errors import ScoringError
from sweep.evaluation import drawing
from sweep.evaluation.cells import most_images
from sweep.evaluation.framing_use import FramingConfig, score_framings
from sweep.evaluation.generate import Row
from sweep.evaluation.inner_ranks import check_inner_ranks
from sweep.evaluation.inpainting import InpaintConfig, score_inpainting
from sweep.evaluation.lora_files import find_loras
from sweep.evaluation.scorer import Scorer, ScoreRequest
from sweep.model.text import with_new_words
from sweep.network.bank import AdapterBank
from sweep.network.checkpoint_file import write_checkpoint_file
from sweep.network.embedding_file import write_embedding_file
from sweep.network.spec import WholeSpec, WordsSpec
from sweep.network.targets import find_layers
from tests.unit.evaluation.evaluation_examples import TREE, tiny_scoring
from tests.unit.evaluation.test_uses import answer_of


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


@pytest.fixture
def rows(monkeypatch) -> list[Row]:
    """What is drawn, as it is drawn."""
    kept: list[Row] = []
    real = drawing.generate

    def keeping(base, targets, some, *arguments, **options):
        kept.extend(some)
        return real(base, targets, some, *arguments, **options)

    monkeypatch.setattr(drawing, "generate", keeping)
    return kept


def test_each_kind_is_named_with_its_use(base, layers, files, subject_dataset, tmp_path, rows) -> None:
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


@pytest.mark.parametrize("kind", ["checkpoint", "embedding"])
def test_each_kind_is_tried_from_afar_and_for_inpainting(base, layers, files, subject_dataset, tmp_path, rows,
                                                         kind: str) -> None:
    scoring = tiny_scoring(sampler={**TREE["sampler"], "num_steps": 8})  # enough for a face that can be repainted
    scorer = Scorer(base, layers, scoring, subject_dataset, tmp_path)
    [lora], _ = find_loras(str(files[kind]))
    answer = answer_of(lora.path)
    framings = score_framings(FramingConfig(words=("close-up", "portrait"), prompt="photo of {subject}, {framing}",
                                            num_seeds=3), lora, answer, scorer)
    assert [each.framing for each in framings] == ["close-up", "portrait"]
    inpainted = score_inpainting(InpaintConfig(num_pictures=3, margin=0.35, base_model=None), lora, answer, scorer,
                                 tmp_path)
    assert inpainted[0].num_pictures == 3
    own = [row for row in rows if row.lora is not None]
    assert len(own) == 2 * 3 + 3 and {row.lora.kind for row in own} == {kind}
    new_words = with_new_words("alexq", "alexq", 2)
    assert all((new_words if kind == "embedding" else "alexq") in row.prompt for row in own)


def test_they_have_no_inner_ranks(files) -> None:
    for kind in ("checkpoint", "embedding"):
        with pytest.raises(ScoringError, match="no LoRA of two matrices"):
            check_inner_ranks(find_loras(str(files[kind]))[0], [4])


def test_they_are_found_as_loras_are(files) -> None:
    """With what they say of themselves; the latest last."""
    found, problems = find_loras(str(files["lora"].parent))
    assert [lora.path for lora in found][-1] == files["checkpoint"] and len(found) == 3 and not problems
    assert (found[-1].epoch, found[-1].step) == (3, 30)
