"""`python -m sweep.calibrate`: from notes and ratings on disk to a file that the scoring takes."""

import dataclasses

import pytest
import yaml

from sweep.calibrate import main
from sweep.errors import ConfigError, ScoringError
from sweep.evaluation.settings import ScoringConfig
from sweep.files import append_jsonl, write_json
from sweep.record.entry import SweepEntry, write_entry
from sweep.record.facts import Facts, add_facts
from sweep.record.notes import add_note
from sweep.record.ratings import RATINGS
from sweep.schema import build
from sweep.trial import AXES, DONE, Answer, Estimate, Score, Status, Trial, to_json, trial_folder
from tests.unit.evaluation.evaluation_examples import SCORING, TREE


def score(likeness, score_id, *, stage="confirm", epoch=3):
    values = {"likeness": likeness, "adherence": 0.95, "memorisation": 0.0, "diversity": 0.9, "usefulness": 0.7}
    axes = {name: Estimate(value=values[name], low=None, high=None, raw=None, n=8) for name in AXES}
    return Score(score_id=score_id, scoring_id="s1", file=f"a-{epoch:06d}.safetensors", file_sha256="0", epoch=epoch,
                 step=epoch, strength=1.0, stage=stage, num_images=8, axes=axes,
                 details={"detect_rate": 1.0, "memo_gap_low": -0.2}, replicates={}, verdict="good", notes=(),
                 elapsed_s=1.0)


@pytest.fixture
def sweep_dir(tmp_path):
    """20 trials of rising likeness that were scored; the user calls them good from .45 on, underfit below."""
    folder = tmp_path / "results" / "alex"
    write_entry(folder / "sweep.yaml", SweepEntry(
        name="alex", command="", started="2026-11-21T02:00:00+00:00", question={"scoring": "pocket 123456"},
        swept_keys=("network_dim",), trigger="alexq", class_noun="man", base_model="pocket", dataset="photos",
        num_photos=14, hardware="", versions={}, commit=None, note=""))
    ids = {}
    for number in range(1, 21):
        trial = Trial(number=number, train_id=f"{number:012x}", settings={"network_dim": number}, config={},
                      num_steps=9)
        append_jsonl(folder / "trials.jsonl", to_json(trial))
        place, final = trial_folder(folder.parent, trial.train_id), score(0.26 + 0.025 * number, f"x{number}")
        write_json(place.status, to_json(Status(status=DONE, phase="", step=9, num_steps=9, is_trained=True,
                                                attributed_s=1.0)))
        write_json(place.scores / f"{final.score_id}.json", to_json(final))
        write_json(place.answer("s1"), to_json(Answer(file=final.file, epoch=3, step=3, strength=1.0, score=final,
                                                      reason="")))
        ids[trial.train_id] = "s1"
    add_facts(folder, Facts(scoring_ids=ids))
    return folder


def say(sweep_dir, numbers):
    for number in numbers:
        words = "good" if 0.26 + 0.025 * number >= 0.45 else "underfit, I think"
        add_note(trial_folder(sweep_dir.parent, f"{number:012x}").root, words)


def test_a_users_notes_become_thresholds_that_the_scoring_takes(sweep_dir, capsys):
    say(sweep_dir, range(1, 21))
    add_note(trial_folder(sweep_dir.parent, f"{1:012x}").root, "which one was this?")
    assert main([str(sweep_dir)]) == 0
    said = capsys.readouterr().out
    assert "20 notes that name a verdict" in said and "agree with 14 of 20" in said
    assert 'read as good: trial 8 of alex, "good"' in said
    assert 'read as underfit: trial 7 of alex, "underfit, I think"' in said
    assert 'left out: trial 1 of alex, "which one was this?": begin it with one of memorised' in said
    path = sweep_dir / "thresholds.yaml"
    assert f"scoring.thresholds_file={path}" in said
    scoring = build(ScoringConfig, {**TREE, "thresholds_file": str(path)}, "scoring")
    assert scoring.thresholds_file is None and 0.42 < scoring.thresholds.underfit_likeness < 0.47
    others = dataclasses.replace(scoring.thresholds, underfit_likeness=SCORING.thresholds.underfit_likeness)
    assert others == SCORING.thresholds, "nothing else was said"


def test_scores_of_an_older_version_are_left_out_with_the_reason(sweep_dir, capsys):
    say(sweep_dir, range(1, 21))
    place = trial_folder(sweep_dir.parent, f"{20:012x}")
    old = dataclasses.replace(score(0.9, "old"), details={"detect_rate": 1.0})
    write_json(place.scores / "old.json", to_json(old))
    write_json(place.answer("s1"), to_json(Answer(file=old.file, epoch=3, step=3, strength=1.0, score=old, reason="")))
    append_jsonl(sweep_dir / RATINGS, {"question": "likeness", "cell": "c", "choice": "left", "left": {
        "train_id": f"{20:012x}", "score_id": "old"}, "right": {"train_id": f"{1:012x}", "score_id": "x1"}})
    main([str(sweep_dir)])
    said = capsys.readouterr().out
    assert "19 notes that name a verdict and 0 rated pairs" in said
    assert 'trial 20 of alex, "good": the score of a-000003.safetensors is an older version\'s, which lacks' in said
    assert "1 rated pairs of alex: their scores are gone, can't be known or are an older version's" in said


def test_below_fifteen_notes_nothing_is_written(sweep_dir, capsys):
    say(sweep_dir, range(1, 15))
    assert main([str(sweep_dir.parent)]) == 0
    assert "The defaults stay: uncalibrated: 14 different files" in capsys.readouterr().out
    assert not list(sweep_dir.parent.rglob("thresholds.yaml"))


def test_ratings_count_and_what_is_gone_is_said(sweep_dir, capsys):
    def side(number):
        return {"train_id": f"{number:012x}", "score_id": f"x{number}", "usefulness": 0.5}

    for number in range(1, 17):
        append_jsonl(sweep_dir / RATINGS, {"question": "likeness", "cell": "c", "choice": "right",
                                           "left": side(number), "right": side(number + 4)})
    append_jsonl(sweep_dir / RATINGS, {"question": "likeness", "cell": "c", "choice": "left",
                                       "left": side(1), "right": {**side(2), "score_id": "gone"}})
    main([str(sweep_dir)])
    said = capsys.readouterr().out
    assert "0 notes that name a verdict and 16 rated pairs" in said
    assert "1 rated pairs of alex: their scores are gone" in said


def test_one_pair_of_files_rated_at_many_prompts_is_one_pair(sweep_dir, capsys):
    sides = [{"train_id": f"{number:012x}", "score_id": f"x{number}", "usefulness": 0.5} for number in (4, 16)]
    for cell in range(10):
        for question in ("likeness", "adherence"):
            left, right = sides if cell % 2 else reversed(sides)
            append_jsonl(sweep_dir / RATINGS, {"question": question, "cell": f"c{cell}", "left": left, "right": right,
                                               "choice": "right" if cell % 2 else "left"})
    main([str(sweep_dir)])
    said = capsys.readouterr().out
    assert "1 rated pairs (20 answers)" in said
    assert "The defaults stay: uncalibrated: 1 different files or pairs" in said


def test_a_file_of_thresholds_is_checked(tmp_path):
    path = tmp_path / "mine.yaml"
    with pytest.raises(ScoringError, match="sweep.calibrate"):
        build(ScoringConfig, {**TREE, "thresholds_file": str(path)}, "scoring")
    path.write_text(yaml.safe_dump({**TREE["thresholds"], "good_adherense": 0.7}))
    with pytest.raises(ConfigError, match='Did you mean "good_adherence"'):
        build(ScoringConfig, {**TREE, "thresholds_file": str(path)}, "scoring")
