"""Learning rates against what sd-scripts computed (tests/assets/kohya)."""

import json
from pathlib import Path

import pytest

from sweep.training.scheduler import (
    Constant,
    ConstantWithWarmup,
    Cosine,
    CosineAnnealingWarmRestarts,
    CosineWithRestarts,
    Linear,
    Polynomial,
    learning_rate,
)

GOLDEN = json.loads((Path(__file__).parents[2] / "assets/kohya/lr_schedules.json").read_text())
OURS = {
    "constant": (Constant(name="constant"), 0),
    "constant_with_warmup": (ConstantWithWarmup(name="constant_with_warmup"), 10),
    "linear": (Linear(name="linear"), 10),
    "cosine": (Cosine(name="cosine", min_lr_ratio=0), 10),
    "cosine_warmup_ratio": (Cosine(name="cosine", min_lr_ratio=0), 0.1),
    "cosine_with_min_lr": (Cosine(name="cosine", min_lr_ratio=0.1), 10),
    "cosine_with_restarts_1": (CosineWithRestarts(name="cosine_with_restarts", num_cycles=1), 10),
    "cosine_with_restarts_3": (CosineWithRestarts(name="cosine_with_restarts", num_cycles=3), 10),
    "polynomial_1": (Polynomial(name="polynomial", power=1, lr_end=1e-7), 10),
    "polynomial_2": (Polynomial(name="polynomial", power=2, lr_end=1e-7), 10),
}


def test_every_schedule_of_sd_scripts_is_here() -> None:
    assert {name for name, entry in GOLDEN.items() if "error" not in entry} == set(OURS)


@pytest.mark.parametrize("name", OURS)
def test_rates_are_sd_scripts(name: str) -> None:
    scheduler, warmup = OURS[name]
    rates = [learning_rate(scheduler, 1e-4, step, 100, warmup) for step in range(101)]
    assert rates == pytest.approx(GOLDEN[name]["lr_used_at_step_1_to_101"], rel=1e-9, abs=1e-15)


def test_a_part_that_is_not_trained_has_no_rate() -> None:
    assert learning_rate(Polynomial(name="polynomial", power=1, lr_end=1e-7), 0.0, 50, 100, 0) == 0


def test_each_warm_restart_rises_and_falls_to_a_lower_peak() -> None:
    """Three cycles of 100 steps: up over the first 20, peaks 1, 1/2, 1/4 of the rate, never under a tenth of it."""
    scheduler = CosineAnnealingWarmRestarts(name="x", num_cycles=3, warmup_frac=0.2, gamma=0.5, min_lr_ratio=0.1)
    rates = [learning_rate(scheduler, 2.0, step, 300, 0) for step in range(301)]
    for cycle, peak in enumerate((2.0, 1.0, 0.5)):
        one = rates[100 * cycle:100 * cycle + 100]
        assert one[0] == pytest.approx(0.2)
        assert one[10] == pytest.approx((0.2 + peak) / 2)
        assert one[20] == pytest.approx(peak) and max(one) == pytest.approx(peak)
        assert one[60] == pytest.approx((0.2 + peak) / 2)
        assert one[20:] == sorted(one[20:], reverse=True)
    assert rates[300] == pytest.approx(0.2)
