"""A pack's scoring: each checkpoint as it comes, together over the trials, and each trial's answer at its end."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from sweep.files import append_jsonl
from sweep.stopping import Stopped
from sweep.trial import DIVERGED, DONE, PRUNED, RUNNING, to_json
from sweep.worker.checkpoints import unscored
from sweep.worker.pack_trials import PackTrials
from sweep.worker.trial_run import TrialRun

if TYPE_CHECKING:
    from sweep.evaluation.scorer import Scorer

ScorerOf = Callable[[TrialRun], "Scorer | None"]


class PackScores:
    """Scores the trials of a pack. scorer_of: what scores a trial; None where scoring is off."""

    def __init__(self, trials: PackTrials, scorer_of: ScorerOf):
        self.trials, self._scorer_of = trials, scorer_of
        self._told: set[str] = set()  # trials whose photos were spoken of

    def screen(self, runs: Iterable[TrialRun]) -> None:
        """Score the checkpoints that have no score yet, together. After the state is saved: a kill in here costs no
        step, and a resume makes up for it. What can't be scored stays unscored until the next call."""
        self._by_scorer(runs, self._screen, _say_unscored)

    def finish(self, runs: Sequence[TrialRun]) -> None:
        """Score trained trials to the end and say which file to use; then they are done."""
        if not runs:
            return
        for run in runs:
            run.update(phase="scoring")
        self.screen(runs)
        self._by_scorer(runs, self._finish, TrialRun.fail)
        for run in runs:
            if run.status.status == RUNNING:
                reason = run.status.diverged or run.status.pruned
                status = DIVERGED if run.status.diverged else PRUNED if run.status.pruned else DONE
                run.update(status=status, phase="", reason=reason)
            self.trials.release(run)

    def _screen(self, scorer: Scorer, runs: Sequence[TrialRun]) -> None:
        pairs = [(run, request) for run in runs for request in unscored(run, scorer.scoring_id)]
        if not pairs:
            return
        started = time.perf_counter()
        about_photos = scorer.notes
        for run in runs:
            if run.trial.train_id not in self._told:
                for line in about_photos:
                    run.say(line)
                self._told.add(run.trial.train_id)
        scores = scorer.screen([request for _, request in pairs], on_progress=self.trials.stop_if_asked)
        share_s = (time.perf_counter() - started) / len(pairs)
        for (run, _), score in zip(pairs, scores, strict=True):
            run.update(attributed_s=run.status.attributed_s + share_s, newest_score=score.score_id)
            append_jsonl(run.folder.metrics, {"kind": "score", "step": score.step, "epoch": score.epoch,
                                              "score": to_json(score), "attributed_s": run.status.attributed_s})

    def _finish(self, scorer: Scorer, runs: Sequence[TrialRun]) -> None:
        started = time.perf_counter()
        scorer.finish([run.requests for run in runs], on_progress=self.trials.stop_if_asked)
        share_s = (time.perf_counter() - started) / len(runs)
        for run in runs:
            run.update(attributed_s=run.status.attributed_s + share_s)

    def _by_scorer(self, runs: Iterable[TrialRun], score: Callable[[Scorer, Sequence[TrialRun]], None],
                   on_error: Callable[[TrialRun, Exception], None]) -> None:
        """Trials on the same photos are scored together; without scoring there is no group. An error, also of making
        a scorer, is the matter of its own photos' trials: the others are scored, and all go on training."""
        groups: dict[int, tuple[Scorer, list[TrialRun]]] = {}
        for run in runs:
            if not run.requests:
                continue
            try:
                scorer = self._scorer_of(run)
            except Exception as error:
                on_error(run, error)
                continue
            if scorer is not None:
                groups.setdefault(id(scorer), (scorer, []))[1].append(run)
        for scorer, group in groups.values():
            try:
                score(scorer, group)
            except Stopped:
                raise
            except Exception as error:
                for run in group:
                    on_error(run, error)


def _say_unscored(run: TrialRun, error: Exception) -> None:
    run.say("checkpoints could not be scored, which is tried again at the next one and at the end:\n"
            + "".join(traceback.format_exception(error)))
