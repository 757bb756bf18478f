"""`python -m sweep.calibrate SWEEP`: fit the verdicts' thresholds to your notes and ratings of its files.

Notes come from `python -m sweep.record.note`: one that begins with a verdict (or names only one) counts, "epoch 7:
overtrained" is about that epoch, otherwise it is about the file that the diary names. Ratings come from `python -m
sweep.record.rate`. Writes thresholds.yaml, which train.py and evaluate.py take as scoring.thresholds_file=FILE.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from sweep.errors import ConfigError
from sweep.evaluation.calibration import Calibration, Judgement, Named, Preferred, calibrate
from sweep.evaluation.settings import ScoringConfig, Thresholds
from sweep.evaluation.spoken import named_epoch, named_verdict
from sweep.evaluation.verdict import VERDICTS, Point, point_of
from sweep.files import write_text
from sweep.record.command import run_command
from sweep.record.facts import Record, find_sweep, read_record
from sweep.record.notes import read_notes
from sweep.record.ratings import QUESTIONS, read_ratings
from sweep.record.results import read_score
from sweep.trial import Score, TrialResult, trial_folder

FILE = "thresholds.yaml"


@dataclass(frozen=True, slots=True)
class Said:
    """What was found in the record.

    num_pairs: different pairs of files; one is rated at several prompts. read_as: each note that counts, behind the
    verdict that it was read as. left_out: notes and ratings that can't be used, each with the reason.
    """

    judgements: tuple[Judgement, ...]
    num_notes: int
    num_pairs: int
    read_as: tuple[str, ...]
    left_out: tuple[str, ...]


def said_in(records: Sequence[Record]) -> Said:
    """All notes and ratings of these sweeps; a trial of several sweeps counts once, its newest note on a file too."""
    notes: dict[tuple[str, str], tuple[Named, str]] = {}
    pairs: list[Preferred] = []
    left_out: list[str] = []
    for record in records:
        for result in record.results:
            for key, found, line in _notes_on(record, result):
                if found is None:
                    left_out += [line] if line not in left_out else []
                else:
                    notes[key] = found, line
        pairs += _pairs(record, left_out)
    return Said((*(found for found, _ in notes.values()), *pairs), len(notes), len({pair.about for pair in pairs}),
                tuple(line for _, line in notes.values()), tuple(left_out))


def _notes_on(record: Record, result: TrialResult) -> Iterator[tuple[tuple[str, str], Named | None, str]]:
    """Each note of a trial: what it is about, the judgement if it can be used, and a line on how it was read or why it
    can't be."""
    for note in read_notes(trial_folder(record.results_dir, result.trial.train_id).root):
        where = f'trial {result.trial.number} of {record.dir.name}, "{" ".join(note.split())[:60]}"'
        words, score = named_verdict(note), _noted_file(result, named_epoch(note))
        point = None if score is None else _point(score)
        if words is None:
            problem = f"{where}: begin it with one of {', '.join(VERDICTS[1:])}"
        elif score is None:
            problem = f"{where}: there is no score of that file"
        elif not isinstance(point, Point):
            problem = f"{where}: the score of {score.file} {point}"
        else:
            judgement = Named(point, words, _about((result.trial.train_id, score)))
            yield (result.trial.train_id, score.score_id), judgement, f"{words}: {where}"
            continue
        yield ("", ""), None, problem


def _noted_file(result: TrialResult, epoch: int | None) -> Score | None:
    if epoch is None:
        return result.answer.score if result.answer else None
    return next((score for score in result.scores if score.stage == "screen" and score.epoch == epoch), None)


def _pairs(record: Record, left_out: list[str]) -> Iterator[Preferred]:
    num_lost = 0
    for row in read_ratings(record.dir):
        left, right = row["left"], row["right"]
        if row["choice"] == "right":
            left, right = right, left
        try:
            scores = [read_score(record.results_dir, side["train_id"], side["score_id"]) for side in (left, right)]
        except FileNotFoundError:
            scores = []
        points = [point for score in scores if not isinstance(point := _point(score), str)]
        if len(points) == 2 and row["question"] in QUESTIONS:
            about = _about((left["train_id"], scores[0]), (right["train_id"], scores[1]))
            yield Preferred(points[0], points[1], row["question"], about, is_same=row["choice"] == "same")
        else:
            num_lost += 1
    if num_lost:
        left_out.append(f"{num_lost} rated pairs of {record.dir.name}: their scores are gone, can't be known or are an "
                        "older version's")


def _point(score: Score) -> Point | str:
    """What the rules go by, or why they can't: an older version's scores do not say how sure a copy is, and a file that
    counts as memorised would pass for one that is not."""
    point = point_of(score.axes, score.details)
    if point is None:
        return "can't be known"
    if "memo_gap_low" not in score.details:
        return ("is an older version's, which lacks memo_gap_low; the sweep's own command judges its files again, and "
                "draws nothing anew")
    return point


def _about(*files: tuple[str, Score]) -> frozenset[str]:
    """The trials' files, at whatever strength and on whatever cells they were scored."""
    return frozenset(f"{train_id}/{score.file}" for train_id, score in files)


def shipped(name: str) -> Thresholds:
    """The thresholds of conf/scoring/NAME.yaml. Raises ConfigError for a name that is no scoring."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from sweep.command_line import CONF_DIR
    from sweep.evaluation.settings import SCORINGS
    from sweep.schema import build

    known = [key for key, kind in SCORINGS.items() if kind is ScoringConfig]
    if name not in known:
        raise ConfigError(f"{name!r} is no scoring with thresholds. Give --scoring with one of: {', '.join(known)}.")
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        tree = OmegaConf.to_container(compose("evaluate", [f"scoring={name}"]).scoring.thresholds)
    return build(Thresholds, tree, "scoring.thresholds")


def _scoring_of(records: Sequence[Record]) -> str:
    names = sorted({str(record.entry.question.get("scoring", "?")).split()[0] for record in records})
    if len(names) != 1:
        raise ConfigError(f"These sweeps were scored as {', '.join(names)}; thresholds are fitted to one of them. "
                          "Name sweeps of one scoring, or choose with --scoring.")
    return names[0]


def text_of(calibration: Calibration, defaults: Thresholds, said: Said) -> str:
    """The file, with what it is made of in its first lines."""
    assert calibration.left_out is not None
    lines = [f"# Thresholds of the verdicts, fitted to {said.num_notes} notes and {said.num_pairs} rated pairs.",
             f"# Agreement: defaults {calibration.default_agreement:g} of {calibration.num} answers, fitted without "
             f"the files that are asked about {calibration.left_out:g} of {calibration.num}.",
             "# Use: scoring.thresholds_file=THIS_FILE with train.py or evaluate.py."]
    for field in fields(Thresholds):
        value, default = getattr(calibration.thresholds, field.name), getattr(defaults, field.name)
        lines.append(f"{field.name}: {value:g}{'' if value == default else f'  # default {default:g}'}")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sweep.calibrate", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", metavar="SWEEP|RESULTS", nargs="+",
                        help="sweeps' names or folders, or a results folder for all sweeps in it")
    parser.add_argument("--results-dir", type=Path, default=Path("results"))
    parser.add_argument("--scoring", help="whose thresholds to start from; default: the sweep's own scoring")
    parser.add_argument("--out", type=Path, help=f"where to write; default: {FILE} in the first folder named")
    given = parser.parse_args(arguments)
    found = [_folders(name, given.results_dir) for name in given.sweep]
    records = [read_record(folder) for folders in found for folder in folders]
    name = given.scoring or _scoring_of(records)
    if given.scoring:
        records = [record for record in records if _scoring_of([record]) == name]
    defaults, said = shipped(name), said_in(records)
    for line in said.read_as:
        print(f"read as {line}")
    for line in said.left_out:
        print(f"left out: {line}")
    calibration = calibrate(said.judgements, defaults)
    print(f"{said.num_notes} notes that name a verdict and {said.num_pairs} rated pairs "
          f"({calibration.num - said.num_notes} answers) of scoring={name}. The defaults agree with "
          f"{calibration.default_agreement:g} of {calibration.num}.")
    if calibration.left_out is not None:
        print(f"Fitted without the files that are asked about: {calibration.left_out:g} of {calibration.num}.")
    if calibration.why_default:
        print(f"The defaults stay: {calibration.why_default}.")
        return 0
    first = Path(given.sweep[0])
    out = given.out or (first if len(found[0]) > 1 else found[0][0]) / FILE
    write_text(out, text_of(calibration, defaults, said))
    for field in fields(Thresholds):
        value, default = getattr(calibration.thresholds, field.name), getattr(defaults, field.name)
        if value != default:
            print(f"  {field.name}: {default:g} -> {value:g}")
    print(f"Use them with train.py (under a new sweep.name) or evaluate.py: scoring.thresholds_file={out}\n"
          "Nothing is trained or drawn again for it, only judged again.")
    return 0


def _folders(name: str, results_dir: Path) -> list[Path]:
    """A results folder's sweeps, or one sweep. Raises ConfigError if there is none."""
    inside = sorted(path.parent for path in Path(name).glob("*/sweep.yaml")) if Path(name).is_dir() else []
    return inside or [find_sweep(name, results_dir)]


if __name__ == "__main__":
    run_command(main)
