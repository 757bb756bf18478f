"""A pack's scoring: each checkpoint as it comes, together over the trials, and each trial's answer at its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from sweep.checkpoints import unscored
from sweep.files import append_jsonl
from sweep.pack_trials import PackTrials
from sweep.stopping import Stopped
from sweep.trial import DIVERGED, DONE, PRUNED, RUNNING, to_json
from sweep.trial_run import TrialRun

if TYPE_CHECKING:
    from sweep.evaluation.scorer import Scorer

ScorerOf = Callable[[TrialRun], "Scorer | None"]


class PackScores:
    """Scores the trials of a pack. scorer_of: what scores a trial; None where scoring is off."""

    def __init__(self, trials: PackTrials, scorer_of: ScorerOf):
        self.trials, self._scorer_of = trials, scorer_of

    def screen(self, runs: Iterable[TrialRun]) -> None:
        """Score the checkpoints that have no score yet, together. After the state is saved: a kill in here costs no
        step, and a resume makes up for it."""
        for scorer, group in self._by_scorer(run for run in runs if run.requests):
            pairs = [(run, request) for run in group for request in unscored(run, scorer.scoring_id)]
            if not pairs:
                continue
            started = time.perf_counter()
            scores = scorer.screen([request for _, request in pairs], on_progress=self.trials.stop_if_asked)
            share_s = (time.perf_counter() - started) / len(pairs)
            for (run, _), score in zip(pairs, scores, strict=True):
                run.update(attributed_s=run.status.attributed_s + share_s, newest_score=score.score_id)
                append_jsonl(run.folder.metrics, {"kind": "score", "step": score.step, "epoch": score.epoch,
                                                  "score": to_json(score), "attributed_s": run.status.attributed_s})

    def finish(self, runs: Sequence[TrialRun]) -> None:
        """Score trained trials to the end and say which file to use; then they are done."""
        if not runs:
            return
        for run in runs:
            run.update(phase="scoring")
        self.screen(runs)
        for scorer, group in self._by_scorer(run for run in runs if run.requests):
            started = time.perf_counter()
            try:
                scorer.finish([run.requests for run in group], on_progress=self.trials.stop_if_asked)
            except Stopped:
                raise
            except Exception as error:  # the other photos' trials still get their answers
                for run in group:
                    run.fail(error)
                continue
            share_s = (time.perf_counter() - started) / len(group)
            for run in group:
                run.update(attributed_s=run.status.attributed_s + share_s)
        for run in runs:
            if run.status.status == RUNNING:
                reason = run.status.diverged or run.status.pruned
                status = DIVERGED if run.status.diverged else PRUNED if run.status.pruned else DONE
                run.update(status=status, phase="", reason=reason)
            self.trials.release(run)

    def _by_scorer(self, runs: Iterable[TrialRun]) -> list[tuple[Scorer, list[TrialRun]]]:
        """Trials on the same photos are scored together; without scoring there is no group."""
        groups: dict[int, tuple[Scorer, list[TrialRun]]] = {}
        for run in runs:
            scorer = self._scorer_of(run)
            if scorer is not None:
                groups.setdefault(id(scorer), (scorer, []))[1].append(run)
        return list(groups.values())
