"""Learning rates against what sd-scripts computed (tests/assets/kohya)."""

import json
from pathlib import Path

import pytest

from sweep.training.scheduler import Constant, CosineWithRestarts, Polynomial, learning_rate

GOLDEN = json.loads((Path(__file__).parents[2] / "assets/kohya/lr_schedules.json").read_text())
OURS = {
    "constant": (Constant(name="constant"), 0),
    "constant_with_warmup": (Constant(name="constant"), 10),
    "cosine_with_restarts_1": (CosineWithRestarts(name="cosine_with_restarts", num_cycles=1), 10),
    "cosine_with_restarts_3": (CosineWithRestarts(name="cosine_with_restarts", num_cycles=3), 10),
    "polynomial_1": (Polynomial(name="polynomial", power=1, lr_end=1e-7), 10),
    "polynomial_2": (Polynomial(name="polynomial", power=2, lr_end=1e-7), 10),
}


@pytest.mark.parametrize("name", OURS)
def test_rates_are_sd_scripts(name: str) -> None:
    scheduler, warmup = OURS[name]
    rates = [learning_rate(scheduler, 1e-4, step, 100, warmup) for step in range(101)]
    assert rates == pytest.approx(GOLDEN[name]["lr_used_at_step_1_to_101"], rel=1e-9, abs=1e-15)


def test_a_part_that_is_not_trained_has_no_rate() -> None:
    assert learning_rate(Polynomial(name="polynomial", power=1, lr_end=1e-7), 0.0, 50, 100, 0) == 0
