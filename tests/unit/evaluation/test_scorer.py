"""Files in, scores and one named file out; what was measured before is not measured again."""

import json
from pathlib import Path

import pytest
import torch

from sweep.errors import AdapterFileError, ScoringError
from sweep.evaluation import drawing
from sweep.evaluation import scorer as scorer_module
from sweep.evaluation.cells import most_images
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
    real = drawing.generate

    def counting(base, targets, rows, *arguments, **options):
        counts.append(len(rows))
        return real(base, targets, rows, *arguments, **options)

    monkeypatch.setattr(drawing, "generate", counting)
    return counts


def test_scores_are_written_and_read_back_instead_of_measured_again(new_scorer, requests, drawn):
    first = new_scorer().screen(requests)
    assert sum(drawn) > 0
    scorer = new_scorer()
    cost = read_json(requests[0].scores_dir / "anchors" / f"{scorer.scoring_id}.json")
    assert cost["elapsed_s"] > 0 and cost["num_images"] == sum(drawn) - 2 * 3, "what two files of 3 images leave"
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
    after = new_scorer(thresholds={**TREE["thresholds"], "underfit_likeness": 0.7}).screen(requests)
    assert drawn == []
    assert after[0].scoring_id != before[0].scoring_id and after[0].score_id != before[0].score_id
    assert after[0].details == before[0].details


def test_another_strength_or_damaged_cells_are_drawn(new_scorer, requests, drawn, results):
    from dataclasses import replace

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
    assert drawn == [], "the images themselves are kept"
    assert replace(again, elapsed_s=0) == replace(first, elapsed_s=0), "and score as they did when they were drawn"
    (scores / f"{first.score_id}.json").unlink()
    for path in (scores / "cells").glob("*.json"):
        path.unlink()
    kept = sorted((results / "cache" / "images").rglob("*.png"))
    assert kept
    for path in kept:
        path.write_bytes(path.read_bytes()[:100])
    repaired = new_scorer().screen(requests[:1])[0]
    assert drawn == [3], "damaged images are drawn again"
    assert repaired.details["nearest_prompts"] == pytest.approx(first.details["nearest_prompts"], abs=1e-3)


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
    planned = [most_images(scorer.scoring, scorer.dataset, number) for number in (len(requests), 1)]
    assert progress[-1][1] == sum(planned), "what a plan says is what is drawn"
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
    strength = {"screen": 0.7, "finish": 0.65}[when]  # one that no other test has drawn
    again = [replace(request, strength=strength, scores_dir=tmp_path / "s", images_dir=tmp_path / "i")
             for request in requests]

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


def test_a_caller_may_stop_after_each_batch_and_no_image_is_drawn_twice(
        base, targets, subject_dataset, requests, drawn, tmp_path):
    from dataclasses import replace

    def stop(done, total):
        raise Stop

    def screen_until(strength, on_progress=None):
        scorer = Scorer(base, targets, tiny_scoring(batch_size=2), subject_dataset, tmp_path)
        request = replace(requests[0], strength=strength, scores_dir=tmp_path / "s", images_dir=tmp_path / "i")
        scorer.screen([request], on_progress)

    for _ in range(2):
        with pytest.raises(Stop):
            screen_until(1.0, stop)
    assert len(list((tmp_path / "cache" / "images").rglob("*.png"))) == 4, "two batches, and of the anchors"
    assert drawn[0] - drawn[1] == 2 and drawn[1] > 2
    screen_until(1.0)
    drawn.clear()
    with pytest.raises(Stop):
        screen_until(0.6, stop)  # within a group
    screen_until(0.6)
    assert drawn == [3, 1]


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
    assert "no face was found in" in answer.photo_notes[0], "the record can say what is wrong with the photos"
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


def test_no_images_are_kept_where_none_are_wanted(base, targets, subject_dataset, requests, tmp_path):
    from dataclasses import replace

    scorer = Scorer(base, targets, tiny_scoring(keep_images=False), subject_dataset, tmp_path)
    scorer.screen([replace(requests[0], scores_dir=tmp_path / "s", images_dir=tmp_path / "i")])
    assert list((tmp_path / "i").glob("*.png")) and not (tmp_path / "cache" / "images").exists()


def test_an_arm_surely_worse_on_the_screening_prompts_is_refined_no_further(
        base, targets, subject_dataset, requests, results, drawn, monkeypatch):
    from dataclasses import replace

    from sweep.evaluation.score import judge
    from sweep.trial import Estimate

    prompts = [*[p for p in TREE["prompts"] if p["stage"] == "screen"][:3],
               *[p for p in TREE["prompts"] if p["stage"] == "refine"][:2]]
    scoring = tiny_scoring(prompts=prompts, choice={**TREE["choice"], "strengths": [1.0, 0.9, 0.2], "confirm": 1},
                           confirm={**TREE["confirm"], "prompts": "all", "num_varied": 0, "num_captions": 0,
                                    "num_bare": 0, "num_class": 0})

    def planted(measured, anchors, scoring, stage):
        """Usefulness by strength: the strongest arms are alike, the weakest is far below."""
        judgement = judge(measured, anchors, scoring, stage)
        worth = 0.2 if strengths.pop() < 0.5 else 0.8
        usefulness = Estimate(value=worth, low=worth - 0.1, high=worth + 0.1, raw=worth, n=len(measured.images))
        replicates = {str(m.index): worth + 0.01 * (-1) ** m.index for m in measured.images if m.kind == "prompt"}
        return replace(judgement, axes={**judgement.axes, "usefulness": usefulness}, replicates=replicates)

    strengths = []
    real = Scorer._judged

    def judged(self, job, elapsed_s):
        strengths.append(job.request.strength)
        score = real(self, job, elapsed_s)
        strengths.clear()
        return score

    monkeypatch.setattr(Scorer, "_judged", judged)
    monkeypatch.setattr(Scorer, "_show", lambda *_: None)
    monkeypatch.setattr(scorer_module, "judge", planted)
    folder = results / "early"
    request = replace(requests[0], scores_dir=folder / "scores", images_dir=folder / "images")
    progress = []
    scorer = Scorer(base, targets, scoring, subject_dataset, results)
    [answer] = scorer.finish([[request]], lambda done, total: progress.append((done, total)))
    assert answer.strength in (1.0, 0.9) and "0.9, 1 cannot be told apart" in answer.reason
    assert progress[-1][0] == progress[-1][1] and progress == sorted(progress)
    paths = [path for path in (folder / "scores").glob("*.json") if not path.name.startswith("answer")]
    scores = [score_from_json(read_json(path)) for path in paths]
    counts = {(s.stage, s.strength): s.num_images for s in sorted(scores, key=lambda s: s.num_images)}
    assert counts == {("screen", 1.0): 3, ("refine", 1.0): 5, ("refine", 0.9): 5, ("refine", 0.2): 3,
                      ("confirm", 1.0): 5}


def test_the_confirmed_arm_has_a_copy_report(new_scorer, requests):
    import re

    new_scorer().finish([requests])
    [report] = requests[0].images_dir.glob("*-copies.html")
    text = report.read_text()
    assert len(re.findall("<tr><td><img", text.split("<h2>Images</h2>")[1])) == 3 * 2 + 1 + 1 + 3
    assert "data:image/png;base64," in text and "alexq man" in text


GUIDED = {**TREE["choice"], "strengths": [1.0], "guidance_scales": [3.0, 7.0], "confirm": 2}


def test_guidance_is_refined_like_strength_and_the_anchors_stay_where_they_are(new_scorer, requests, drawn, results):
    """The sampler's own scale is no arm of its own: its scores and images are those that are there already."""
    plain, guided = new_scorer(), new_scorer(choice=GUIDED)
    before = plain.score(requests[:1], "refine")[0]
    drawn.clear()
    [answer] = guided.finish([requests[:1]])
    scores = {score.guidance_scale: score for path in requests[0].scores_dir.glob("*.json")
              if not path.name.startswith("answer") and (score := score_from_json(read_json(path))).stage == "refine"
              and score.scoring_id == guided.scoring_id}
    assert set(scores) == {None, 7.0}
    assert scores[None].axes == before.axes, "one scale in two lists is one arm, measured once"
    assert scores[7.0].details["nearest_prompts"] != before.details["nearest_prompts"]
    assert scores[7.0].details["likeness_floor"] == before.details["likeness_floor"], "anchors are the sampler's own"
    assert drawn[0] == 3, "what the sampler's scale drew is not drawn again"
    assert answer.guidance_scale == answer.score.guidance_scale and answer.guidance_scale in (None, 7.0)
    assert answer_from_json(read_json(requests[0].scores_dir / f"answer-{guided.scoring_id}.json")) == answer
    drawn.clear()
    assert new_scorer(choice=GUIDED).finish([requests[:1]]) == [answer] and drawn == []


def test_images_of_another_guidance_are_those_of_a_sampler_of_that_guidance(base, targets, requests, tmp_path):
    from sweep.evaluation.drawing import Drawer
    from sweep.evaluation.generate import Row
    from sweep.files import sha256_of
    from sweep.network.lora_file import read_lora

    lora, digest = read_lora(requests[0].file, targets), sha256_of(requests[0].file)
    rows = [Row(lora, 1.0, "photo of alexq man", 5, scale) for scale in (None, 7.0)]
    scoring = tiny_scoring()
    mixed = Drawer(base, targets, scoring, tmp_path / "a").draw(rows, [digest] * 2)
    strong = tiny_scoring(sampler={**TREE["sampler"], "num_steps": 2, "guidance_scale": 7.0})
    alone = Drawer(base, targets, strong, tmp_path / "b").draw([Row(lora, 1.0, "photo of alexq man", 5)], [digest])
    assert (mixed[1] - alone[0]).abs().max() <= 1 / 255 and (mixed[0] - mixed[1]).abs().max() > 0.1
    names = [{path.relative_to(tmp_path / side) for path in (tmp_path / side).rglob("*.png")} for side in "ab"]
    assert names[1] < names[0], "it lies where that sampler would look for it"


def test_guidance_scales_to_choose_between_are_part_of_the_key_none_are_not():
    from sweep.evaluation.keys import measuring_id, scoring_id

    guided = tiny_scoring(choice=GUIDED)
    plain = tiny_scoring(choice={**GUIDED, "guidance_scales": []})
    assert scoring_id(guided, "b", 64, {}, "p") != scoring_id(plain, "b", 64, {}, "p")
    assert measuring_id(guided, "b", 64, {}) == measuring_id(plain, "b", 64, {})
    assert most_images(guided, _fourteen(), 2) > most_images(plain, _fourteen(), 2)


def _fourteen():
    from sweep.data.folder import read_dataset

    return read_dataset(dataset_config(num_images=14), trigger=None, class_noun=None, repeats=None)


def test_a_file_before_the_first_epochs_end_is_known_by_its_step() -> None:
    first, later = (ScoreRequest(file=Path("a"), epoch=epoch, step=150, scores_dir=Path(), images_dir=Path())
                    for epoch in (0, 3))
    assert (first.when, later.when) == ("step 150", "epoch 3")
