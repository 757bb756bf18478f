import itertools
import random
from collections.abc import Sequence

import pytest
from record_examples import result

from sweep.record.importance import MIN_TRIALS, importance_lines, importances, method
from sweep.record.sentences import learned
from sweep.trial import TrialResult

SWINGS = [0.02, -0.02, -0.03, 0.02, 0.01, -0.01, 0.02, 0.03, -0.02, 0.01, 0.0, -0.02]


def grid(noise: float, swings: Sequence[float] = (0.0,) * 12, third: str = "seed") -> list[TrialResult]:
    """Rank matters, the rate does not; on top come noise and one swing per trial."""
    chance = random.Random(1)
    cells = itertools.product((8, 32, 128), (1e-4, 1e-3), (1, 2))
    useful = [(0.3 + 0.0025 * dim + chance.gauss(0, noise) + swing, dim, rate, seed)
              for (dim, rate, seed), swing in zip(cells, swings, strict=True)]
    return [result(i, (u, u - 0.05, u + 0.05), settings={"network_dim": dim, "unet_lr": rate, third: seed})
            for i, (u, dim, rate, seed) in enumerate(useful, start=1)]


def test_the_setting_that_matters_comes_first_with_an_interval() -> None:
    first, *rest = importances(("network_dim", "unet_lr", "seed"), grid(0.02))
    assert first.key == "network_dim" and first.share > 0.6
    assert all(0 <= each.low <= each.share <= each.high <= 1.0001 for each in (first, *rest))
    assert all(each.high < first.low for each in rest)
    [line] = importance_lines(("network_dim", "unet_lr", "seed"), grid(0.02))
    assert line.index("network_dim") < line.index("unet_lr") and method() in line and "over 12 trials" in line
    assert not line.startswith("exploratory")


def test_of_one_training_seed_it_is_exploratory() -> None:
    [line] = importance_lines(("network_dim", "unet_lr", "repeats"), grid(0.02, third="repeats"))
    assert line.startswith("exploratory: How much") and line.endswith("so what it does is not known.")


def test_few_trials_or_one_setting_say_nothing() -> None:
    assert importances(("network_dim", "unet_lr"), grid(0.02)[:MIN_TRIALS - 1]) == []
    assert importances(("network_dim",), grid(0.02)) == []


def test_without_scikit_learn_ped_anova_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweep.record.importance.method", lambda: "PED-ANOVA")
    found = importances(("network_dim", "unet_lr", "seed"), grid(0.02))
    assert found[0].key == "network_dim"


def test_the_mean_of_pairs_has_an_interval_and_may_be_called_chance() -> None:
    lines = learned(("network_dim", "unet_lr", "repeats"), grid(0.0, SWINGS, third="repeats"))
    up = next(line for line in lines if line.startswith("network_dim 32 -> 128"))
    assert "usefulness +0.2" in up and "(+0." in up and "holds 0" not in up
    rate = next(line for line in lines if line.startswith("unet_lr"))
    assert "the interval of the mean holds 0, so it may be chance" in rate and "not of the setting" in rate


def test_where_seeds_were_swept_it_is_a_claim_about_the_setting() -> None:
    lines = learned(("network_dim", "unet_lr", "seed"), grid(0.0, SWINGS))
    up = next(line for line in lines if line.startswith("network_dim 32 -> 128"))
    assert "usefulness is higher in 2, lower in 0" in up and "not of the setting" not in up
    rate = next(line for line in lines if line.startswith("unet_lr"))
    assert "higher in 0, lower in 0, and can't be told apart in 3" in rate


def test_too_few_trials_are_said_to_be_too_few() -> None:
    [line] = importance_lines(("network_dim", "unet_lr"), grid(0.02)[:MIN_TRIALS - 1])
    assert f"not said of {MIN_TRIALS - 1} scored trials: it takes {MIN_TRIALS}" in line
    assert importance_lines(("network_dim",), grid(0.02)) == [], "one setting has nothing to share with"
