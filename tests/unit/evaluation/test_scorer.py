"""Files in, scores and one named file out; what was measured before is not measured again."""

import json

import pytest
import torch

from sweep.errors import AdapterFileError, ScoringError
from sweep.evaluation import scorer as scorer_module
from sweep.evaluation.scorer import Scorer, ScoreRequest
from sweep.files import read_json
from sweep.trial import answer_from_json, score_from_json
from tests.conftest import dataset_config
from tests.unit.evaluation.evaluation_examples import TREE, tiny_scoring


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def requests(make_lora, results):
    folder = results / "trials" / "t1"
    return [ScoreRequest(file=make_lora(folder / f"a-{e:06d}.safetensors", seed=e), epoch=e, step=10 * e,
                         scores_dir=folder / "scores", images_dir=folder / "images") for e in (1, 2)]


@pytest.fixture
def new_scorer(base, targets, subject_dataset, results):
    return lambda **changes: Scorer(base, targets, tiny_scoring(**changes), subject_dataset, results)


@pytest.fixture
def drawn(monkeypatch):
    """How many images have been drawn."""
    counts = []
    real = scorer_module.generate

    def counting(base, targets, rows, *arguments, **options):
        counts.append(len(rows))
        return real(base, targets, rows, *arguments, **options)

    monkeypatch.setattr(scorer_module, "generate", counting)
    return counts


def test_scores_are_written_and_read_back_instead_of_measured_again(new_scorer, requests, drawn):
    first = new_scorer().screen(requests)
    assert sum(drawn) > 0
    drawn.clear()
    assert new_scorer().screen(requests) == first
    assert drawn == [], "scores and anchors come from disk"
    for request, score in zip(requests, first, strict=True):
        assert score_from_json(read_json(request.scores_dir / f"{score.score_id}.json")) == score
        assert (request.images_dir / f"{score.score_id}.png").stat().st_size > 1000
        assert score.num_images == 3 and score.stage == "screen" and score.file == request.file.name


def test_other_thresholds_judge_again_without_drawing(new_scorer, requests, drawn):
    before = new_scorer().screen(requests)
    drawn.clear()
    after = new_scorer(thresholds={**TREE["thresholds"], "underfit_likeness": 0.99}).screen(requests)
    assert drawn == []
    assert after[0].scoring_id != before[0].scoring_id and after[0].score_id != before[0].score_id
    assert after[0].details == before[0].details


def test_another_strength_or_damaged_cells_are_drawn(new_scorer, requests, drawn):
    first = new_scorer().screen(requests[:1])[0]
    drawn.clear()
    weaker = ScoreRequest(**{f: getattr(requests[0], f) for f in requests[0].__slots__} | {"strength": 0.5})
    assert new_scorer().screen([weaker])[0].score_id != first.score_id
    assert drawn == [3]
    scores = requests[0].scores_dir
    (scores / f"{first.score_id}.json").unlink()
    for path in (scores / "cells").glob("*.json"):
        path.write_text("{")
    drawn.clear()
    again = new_scorer().screen(requests[:1])[0]
    assert drawn == [3]
    assert again.details["nearest_prompts"] == pytest.approx(first.details["nearest_prompts"], abs=1e-3)


def test_a_score_of_another_scoring_is_never_mixed_in(new_scorer, requests):
    score = new_scorer().screen(requests[:1])[0]
    path = requests[0].scores_dir / f"{score.score_id}.json"
    tree = read_json(path)
    path.write_text(json.dumps({**tree, "scoring_id": "older"}))
    with pytest.raises(ScoringError, match="never compared"):
        new_scorer().screen(requests[:1])
    path.write_text(json.dumps(tree))


def test_finish_names_a_file_of_each_trial_on_fresh_seeds(new_scorer, requests, make_lora, results, drawn):
    folder = results / "trials" / "t2"
    lonely = ScoreRequest(file=make_lora(folder / "b.safetensors", dim=8, seed=9), epoch=1, step=5,
                          scores_dir=folder / "scores", images_dir=folder / "images")
    progress = []
    scorer = new_scorer()
    answers = scorer.finish([requests, [lonely]], lambda done, total: progress.append((done, total)))
    assert [answer.score.stage for answer in answers] == ["confirm", "confirm"]
    assert answers[0].file in {request.file.name for request in requests} and answers[1].file == "b.safetensors"
    assert answers[0].strength in (1.0, 0.5)
    # diversity of two seeds can be known, whatever the weights are worth
    assert answers[0].score.axes["diversity"].value is not None
    assert progress[-1][0] == progress[-1][1] and progress == sorted(progress)
    for request, answer in ((requests[0], answers[0]), (lonely, answers[1])):
        assert answer_from_json(read_json(request.scores_dir / f"answer-{scorer.scoring_id}.json")) == answer
    drawn.clear()
    assert new_scorer().finish([requests, [lonely]]) == answers
    assert drawn == []


class Stop(Exception):
    """What a caller may raise to end early."""


@pytest.mark.parametrize("when", ["screen", "finish"])
def test_a_caller_may_stop_between_groups_and_nothing_drawn_is_lost(
        when, new_scorer, requests, drawn, monkeypatch, tmp_path):
    from dataclasses import replace

    new_scorer().screen(requests)  # the anchors
    drawn.clear()
    monkeypatch.setattr(scorer_module, "IMAGES_PER_GROUP", 3)  # one file
    again = [replace(request, scores_dir=tmp_path / "s", images_dir=tmp_path / "i") for request in requests]

    def stop(done, total):
        assert list((tmp_path / "s").rglob("*.json")), "told of a group when it is written"
        raise Stop

    with pytest.raises(Stop):
        scorer = new_scorer()
        scorer.screen(again, stop) if when == "screen" else scorer.finish([again], stop)
    assert drawn == [3]
    drawn.clear()
    assert [score.file for score in new_scorer().screen(again)] == [request.file.name for request in again]
    assert drawn == [3], "the first file is not drawn again"


def test_a_file_that_is_no_lora_is_named_and_the_others_can_go_on(new_scorer, requests, tmp_path):
    from dataclasses import replace

    bad = replace(requests[0], file=tmp_path / "torn.safetensors", scores_dir=tmp_path)
    bad.file.write_bytes(requests[0].file.read_bytes()[:1000])
    with pytest.raises(AdapterFileError, match="torn.safetensors"):
        new_scorer().finish([requests, [bad]])
    assert new_scorer().finish([requests])[0].file in {request.file.name for request in requests}


def test_photos_without_a_face_give_an_invalid_score_with_its_reason(
        base, targets, photo_folder, requests, results, tmp_path):
    from dataclasses import replace

    from sweep.data.folder import read_dataset

    dataset = read_dataset(dataset_config(dir=str(photo_folder)), trigger=None, class_noun=None, repeats=None)
    # no photo can be that sure to show a face
    scorer = Scorer(base, targets, tiny_scoring(face_confidence=1.0), dataset, results)
    [answer] = scorer.finish([[replace(requests[0], scores_dir=tmp_path, images_dir=tmp_path)]])
    assert answer.score.verdict == "invalid"
    assert "a face was found on 0 of the photos" in answer.score.notes[0]
    assert answer_from_json(read_json(tmp_path / f"answer-{scorer.scoring_id}.json")) == answer


def test_a_file_of_nan_is_invalid_and_its_companions_are_not_touched(new_scorer, requests, make_lora, results):
    folder = results / "trials" / "t3"
    broken = ScoreRequest(file=make_lora(folder / "nan.safetensors", size=float("nan")), epoch=1, step=1,
                          scores_dir=folder / "scores", images_dir=folder / "images")
    scores = new_scorer().screen([broken, *requests])
    assert scores[0].verdict == "invalid" and "broken" in scores[0].notes[0]
    assert scores[1:] == new_scorer().screen(requests)


def test_no_checkpoint_no_answer(new_scorer):
    with pytest.raises(ScoringError, match="no file to name"):
        new_scorer().finish([[]])


def test_copies_in_the_images_are_seen(new_scorer, subject_dataset):
    """The whole way from pixels: training photos themselves count as copies, held-out photos do not."""
    from sweep.data.cache import load_pixels
    from sweep.evaluation.cells import Cell

    observer = new_scorer().observer
    paths = [photo.path for photo in subject_dataset.photos[:3]] + list(subject_dataset.holdout[:3])
    images = torch.stack([load_pixels(path, 64) for path in paths])
    cells = [Cell("prompt", i, 0, "photo", "photo") for i in range(6)]
    measured = observer.look(images, cells)
    assert [m.nearest < 0.05 for m in measured.images] == [True] * 3 + [False] * 3
    assert [m.nearest_photo for m in measured.images[:3]] == [0, 1, 2]
