"""The default subject can be told from whom the shipped base draws by itself, or no likeness could be measured."""

from __future__ import annotations

from pathlib import Path

import yaml

from sweep.data.folder import read_dataset
from sweep.evaluation.scorer import Scorer
from sweep.evaluation.settings import ScoringConfig
from sweep.schema import build
from tests.conftest import ROOT, dataset_config

CLEARLY = 3.0
"""Standard deviations between floor and ceiling: half as many again as scoring asks for, and the aim of the figures."""


def test_likeness_of_the_default_subject_can_be_measured(base, targets, tmp_path: Path) -> None:
    tree = yaml.safe_load((ROOT / "conf" / "scoring" / "pocket.yaml").read_text(encoding="utf-8"))
    one_seed = {"first_seed": 0, "num_seeds": 1, "num_varied": 0, "num_captions": 0, "num_bare": 0}
    tree |= {stage: tree[stage] | one_seed for stage in ("screen", "refine", "confirm")}
    tree["validity"]["min_dprime"] = max(CLEARLY, tree["validity"]["min_dprime"])
    scoring = build(ScoringConfig, tree, "scoring")
    own = read_dataset(dataset_config(), trigger=None, class_noun=None, repeats=None)
    anchors = Scorer(base, targets, scoring, own, tmp_path).anchors
    assert anchors.likeness_problem(scoring) == ""
