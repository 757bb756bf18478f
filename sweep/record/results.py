"""A trial's result, read back from its folder: the only truth that every view is made of."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from sweep.files import read_json, sha256_of
from sweep.trial import (
    DIVERGED,
    FAILED,
    FINISHED,
    PRUNED,
    REFUSED,
    WAITING,
    Score,
    Status,
    Trial,
    TrialResult,
    answer_from_json,
    score_from_json,
    status_from_json,
    trial_folder,
)


def read_status(results_dir: Path, trial: Trial) -> Status:
    """Where a trial stands; one that was never started waits, and one whose status is damaged, with that reason."""
    if trial.refused:
        return Status(status=REFUSED, phase="", step=0, num_steps=trial.num_steps, is_trained=False, attributed_s=0.0,
                      reason=trial.refused)
    path, reason = trial_folder(results_dir, trial.train_id).status, ""
    if path.exists():
        try:
            return status_from_json(read_json(path))
        except (ValueError, TypeError) as error:  # a power cut, a disk's fault
            reason = f"{path} can't be read ({type(error).__name__}); the trial goes on from what else its folder holds"
    return Status(status=WAITING, phase="", step=0, num_steps=trial.num_steps, is_trained=False, attributed_s=0.0,
                  reason=reason)


def is_complete(results_dir: Path, trial: Trial, scoring_id: str | None, *, counts_pruned: bool = True) -> bool:
    """Whether nothing is left to do: trained, and scored as this sweep scores. A failed trial is tried again.

    scoring_id: None if the sweep does not score. counts_pruned: a trial that was ended early is not gone on with.
    """
    status = read_status(results_dir, trial)
    if status.status not in FINISHED or status.status == FAILED or (status.status == PRUNED and not counts_pruned):
        return False
    folder = trial_folder(results_dir, trial.train_id)
    has_files = any(folder.checkpoints.glob("*.safetensors"))
    ended_without = status.status in (DIVERGED, PRUNED) and not has_files  # before its first checkpoint
    return ended_without or (has_files if scoring_id is None else folder.answer(scoring_id).exists())


def read_result(results_dir: Path, trial: Trial, scoring_id: str | None) -> TrialResult:
    """A trial's row of the record under one scoring."""
    status = read_status(results_dir, trial)
    folder = trial_folder(results_dir, trial.train_id)
    scores: list[Score] = []
    answer = None
    if scoring_id is not None:
        found = (score_from_json(read_json(path)) for path in sorted(folder.scores.glob("*.json"))
                 if not path.name.startswith("answer-"))
        present = {path.name: sha256_of(path) for path in folder.checkpoints.glob("*.safetensors")}
        # a training that was rolled back may have left scores of files that are no more
        mine = [s for s in found if s.scoring_id == scoring_id and present.get(s.file) == s.file_sha256]
        # an arm that went on to all refining prompts has a score of the first of them too: the whole one counts, and
        # what both cost
        largest = {_arm(s): s for s in sorted(mine, key=lambda s: s.num_images)}
        whole = [replace(s, elapsed_s=math.fsum(part.elapsed_s for part in mine if _arm(part) == arm))
                 for arm, s in largest.items()]
        scores = sorted(whole, key=lambda s: (s.step, s.stage, s.strength, s.guidance_scale or 0.0))
        if folder.answer(scoring_id).exists():
            answer = answer_from_json(read_json(folder.answer(scoring_id)))
    return TrialResult(trial=trial, status=status.status, step=status.step, attributed_s=status.attributed_s,
                       answer=answer, scores=tuple(scores), reason=status.reason)


def _arm(score: Score) -> tuple[str, float, float | None, str]:
    return score.file, score.strength, score.guidance_scale, score.stage


@lru_cache(maxsize=1024)
def read_score(results_dir: Path, train_id: str, score_id: str) -> Score:
    """One score; it never changes once it is written."""
    return score_from_json(read_json(trial_folder(results_dir, train_id).scores / f"{score_id}.json"))
