import dataclasses
from pathlib import Path

from record_examples import entry, result, score

from sweep.files import write_json
from sweep.record.cost import cost_words, costs, saved_words
from sweep.record.diary import write_diary
from sweep.trial import PRUNED, REFUSED, TrialResult, trial_folder


def scored() -> TrialResult:
    rounds = [("screen", 1, 6.0), ("screen", 2, 6.0), ("refine", 2, 12.0), ("confirm", 2, 3.0)]
    scores = [dataclasses.replace(score((0.8, 0.7, 0.9), stage=stage, epoch=epoch, score_id=f"{stage}{epoch}"),
                                  elapsed_s=spent) for stage, epoch, spent in rounds]
    return dataclasses.replace(result(1, (0.8, 0.7, 0.9)), scores=tuple(scores))


def test_each_stage_has_its_seconds_and_images_and_the_rest_is_called_what_it_is(tmp_path: Path) -> None:
    found = {cost.stage: (cost.elapsed_s, cost.num_images) for cost in costs([scored()])}
    assert found == {"training and anchors": (63.0, 0), "screening": (12.0, 16), "refining": (12.0, 8),
                     "confirming": (3.0, 8)}
    write_json(trial_folder(tmp_path, "id0001").anchors_cost("s1"), {"elapsed_s": 30.0, "num_images": 24})
    write_json(trial_folder(tmp_path, "id0001").anchors_cost("of another scoring"), {"elapsed_s": 9.0, "num_images": 9})
    found = {cost.stage: (cost.elapsed_s, cost.num_images) for cost in costs([scored()], tmp_path)}
    assert found["anchors"] == (30.0, 24) and found["training"] == (33.0, 0)
    assert list(found) == ["training", "anchors", "screening", "refining", "confirming"]


def test_the_diary_says_it_of_the_sweep_and_of_each_trial(tmp_path: Path) -> None:
    write_json(trial_folder(tmp_path, "id0001").anchors_cost("s1"), {"elapsed_s": 30.0, "num_images": 24})
    text = write_diary(tmp_path / "alex", entry(), [scored()]).read_text()
    assert ("What it cost: training 0.6 minutes, anchors 0.5 (24 images, 91 % of training), screening 0.2 (16 images, "
            "36 % of training)") in text
    assert "its share of the packs it was in: training and anchors 1.1 minutes, screening 0.2 (16 images)" in text


def test_without_scores_it_is_all_training() -> None:
    unscored = dataclasses.replace(result(1, is_scored=False), scores=())
    assert cost_words(costs([unscored])) == "training 1.5 minutes"


def test_what_ended_early_is_counted_by_who_ended_it() -> None:
    whole, refused = result(1, (0.8, 0.7, 0.9)), result(2, status=REFUSED)
    pruned = dataclasses.replace(result(3, status=PRUNED, reason="ended early at step 40: behind trial 1"), step=40)
    stopped = dataclasses.replace(result(4, status=PRUNED, reason="ended early at step 90: early_stop=2: fallen"),
                                  step=90)
    assert saved_words([whole, refused, pruned, stopped]) == (
        "Pruning saved 60 of 300 steps, in 1 of 3 trials; early_stop saved 10 of 300 steps, in 1 of 3 trials.")
    assert saved_words([whole, refused]) == ""
