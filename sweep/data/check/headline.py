"""The first lines of a plan: what is worth mending before anything is started. Loads no model and no picture."""

from __future__ import annotations

from collections.abc import Sequence

from sweep.data.check.findings import Finding
from sweep.data.check.report import headline
from sweep.data.check.training import training_findings
from sweep.data.dataset import Dataset
from sweep.train_config import TrainConfig

MOST_LINES = 8


def headlines(trials: Sequence[tuple[Dataset, TrainConfig, int]]) -> list[str]:
    """Each kind of finding once, with the first trial's figures, problems first.

    trials: photos, settings and steps of each. What several of them share of photos and settings is looked at once.
    """
    by_kind: dict[str, list[Finding]] = {}
    seen = set()
    for dataset, config, num_steps in trials:
        found = [f for f in training_findings(dataset.photos, config, num_steps) if f.level != "note"]
        key = (dataset.identity, dataset.trigger, config.dataset, config.base_model)
        if key not in seen:
            seen.add(key)
            found = [*headline(dataset, config), *found]
        for finding in found:
            by_kind.setdefault(finding.kind, []).append(finding)
    ordered = sorted(by_kind.values(), key=lambda found: found[0].level != "problem")
    lines = []
    for findings in ordered[:MOST_LINES]:
        others = len({finding.text for finding in findings}) - 1
        more = f" ({others} more like this among the trials)" if others else ""
        lines.append(f"{'!' if findings[0].level == 'problem' else '-'} {findings[0].text}{more}")
    if lines:
        dataset, config, _ = trials[0]
        folder = config.dataset.dir or dataset.photos[0].path.parent
        lines.append(f"  who advises this, and what the pixels say: python -m sweep.data.check \"{folder}\"")
    return lines
