"""How many images are done of all, for whoever watches."""

from __future__ import annotations

from sweep.evaluation.generate import OnProgress


class Progress:
    """Images done of all; what the cache holds counts as done."""

    def __init__(self, on_progress: OnProgress | None, total: int):
        self.on_progress, self.total, self.done = on_progress, total, 0

    def add(self, count: int) -> None:
        """So many more are done for good."""
        self.done += count
        self.show(0)

    def ask(self) -> None:
        """Tell no more than before, for whoever wants to end it: the anchors count as nothing, being drawn once."""
        if self.on_progress is not None:
            self.on_progress(min(self.done, self.total), self.total)

    def show(self, num_drawn: int) -> None:
        """Tell how many are done, with those of the group that is being drawn."""
        done = min(self.done + num_drawn, self.total)
        if self.on_progress is not None and done:
            self.on_progress(done, self.total)
