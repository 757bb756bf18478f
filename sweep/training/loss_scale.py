"""A trial's own loss scale for fp16: small gradients would vanish in half precision (Micikevicius et al. 2018, 3.2).

Always a power of two, so that multiplying and dividing by it changes no bit, and one per trial: with a common one a
trial that overflows would make its companions skip their steps.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST = 2.0**16
LOWEST = 2.0**-10  # gradients that overflow even here will not come back
HIGHEST = 2.0**24
GOOD_STEPS_TO_GROW = 2000


@dataclass(slots=True)
class LossScale:
    """Halved when a gradient overflows, doubled after a long row of good steps."""

    value: float = FIRST
    num_good: int = 0

    @property
    def is_exhausted(self) -> bool:
        return self.value < LOWEST

    def note_overflow(self) -> None:
        self.value, self.num_good = self.value / 2, 0

    def note_good(self) -> None:
        self.num_good += 1
        if self.num_good == GOOD_STEPS_TO_GROW:
            self.value, self.num_good = min(2 * self.value, HIGHEST), 0
