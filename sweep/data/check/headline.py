"""The first lines of a plan: what is worth mending before anything is started. Loads no model and no picture."""

from __future__ import annotations

from collections.abc import Sequence

from sweep.data.check.findings import Finding
from sweep.data.check.report import headline
from sweep.data.folder import Dataset
from sweep.train_config import TrainConfig

MOST_LINES = 8


def headlines(trials: Sequence[tuple[Dataset, TrainConfig]]) -> list[str]:
    """Each kind of finding once, with the first trial's figures, problems first."""
    by_kind: dict[str, list[Finding]] = {}
    for dataset, config in trials:
        for finding in headline(dataset, config):
            by_kind.setdefault(finding.kind, []).append(finding)
    ordered = sorted(by_kind.values(), key=lambda found: found[0].level != "problem")
    lines = []
    for found in ordered[:MOST_LINES]:
        others = len({finding.text for finding in found}) - 1
        more = f" ({others} more like this among the trials)" if others else ""
        lines.append(f"{'!' if found[0].level == 'problem' else '-'} {found[0].text}{more}")
    if lines:
        dataset, config = trials[0]
        folder = config.dataset.dir or dataset.photos[0].path.parent
        lines.append(f"  who advises this, and what the pixels say: python -m sweep.data.check \"{folder}\"")
    return lines
