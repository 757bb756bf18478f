"""What each stage cost: training, anchors, screening, refining, confirming; in seconds and images, from the record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sweep.files import read_json
from sweep.trial import PRUNED, REFUSED, TrialResult, trial_folder

TRAINING, ANCHORS = "training", "anchors"
TOGETHER = f"{TRAINING} and {ANCHORS}"
STAGE_NAMES = {"screen": "screening", "refine": "refining", "confirm": "confirming"}


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one stage. Images that were there already cost no seconds and are counted."""

    stage: str
    elapsed_s: float
    num_images: int


def costs(results: Sequence[TrialResult], results_dir: Path | None = None) -> list[Cost]:
    """In the order in which they come; a stage that no trial had is left out.

    Training is what the rest leaves of a trial's share of its packs, so it holds caching and saving too.
    results_dir: where the anchors' cost is read. Without it they can't be told from training, and the rest is called
    both; so it is for one trial, as its pack's trials share its anchors.
    """
    found = []
    for stage, name in STAGE_NAMES.items():
        scores = [score for result in results for score in result.scores if score.stage == stage]
        if scores:
            found.append(Cost(name, sum(s.elapsed_s for s in scores), sum(s.num_images for s in scores)))
    anchors = [] if results_dir is None else _anchors(results, results_dir)
    if anchors:
        found.insert(0, Cost(ANCHORS, sum(c.elapsed_s for c in anchors), sum(c.num_images for c in anchors)))
    rest = sum(result.attributed_s for result in results) - sum(cost.elapsed_s for cost in found)
    has_anchors = bool(found) and results_dir is None
    return [Cost(TOGETHER if has_anchors else TRAINING, max(rest, 0.0), 0), *found]


def _anchors(results: Sequence[TrialResult], results_dir: Path) -> list[Cost]:
    """Written once, beside the scores of the trial that needed them first."""
    ids = {(result.trial.train_id, score.scoring_id) for result in results for score in result.scores}
    paths = [trial_folder(results_dir, train_id).anchors_cost(scoring_id) for train_id, scoring_id in sorted(ids)]
    rows = [read_json(path) for path in paths if path.exists()]
    return [Cost(ANCHORS, float(row["elapsed_s"]), int(row["num_images"])) for row in rows]


def saved_words(results: Sequence[TrialResult]) -> str:
    """What pruning and early_stop saved of the sweep's steps, as a sentence; empty if nothing ended early."""
    asked = [result for result in results if result.status != REFUSED]
    early: dict[str, list[TrialResult]] = {"Pruning": [], "early_stop": []}
    for result in asked:
        if result.status == PRUNED:  # the reason is search.pruning's
            early["early_stop" if "early_stop=" in result.reason else "Pruning"].append(result)
    parts = [f"{by} saved {sum(one.trial.num_steps - one.step for one in ended)} of "
             f"{sum(one.trial.num_steps for one in asked)} steps, in {len(ended)} of {len(asked)} trials"
             for by, ended in early.items() if ended]
    return f"{'; '.join(parts)}." if parts else ""


def cost_words(stages: Sequence[Cost]) -> str:
    """"training 3.1 minutes, screening 0.4 (80 images, 13 % of training), ..."; shares where training is told apart."""
    training_s = next((cost.elapsed_s for cost in stages if cost.stage == TRAINING), 0.0)
    parts = []
    for i, cost in enumerate(stages):
        facts = [f"{cost.num_images} images"] if cost.num_images else []
        if training_s and cost.stage != TRAINING:
            facts.append(f"{cost.elapsed_s / training_s:.0%} of training".replace("%", " %"))
        parts.append(f"{cost.stage} {cost.elapsed_s / 60:.1f}" + (" minutes" if i == 0 else "")
                     + (f" ({', '.join(facts)})" if facts else ""))
    return ", ".join(parts)
