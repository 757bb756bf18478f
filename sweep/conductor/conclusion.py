"""The last words of a sweep: what did not succeed, why, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import shorten
from typing import TYPE_CHECKING

from sweep.errors import TrialsFailedError
from sweep.record.terminal import say
from sweep.trial import DIVERGED, FAILED, REFUSED, TrialResult

if TYPE_CHECKING:
    from sweep.conductor.sweep import Sweep

_REASON_CHARS = 120
_MOST_NUMBERS = 20


def conclude(sweep: Sweep, results: Sequence[TrialResult]) -> None:
    """Say which cells were refused before the start, by reason: they are no failure.

    Raises TrialsFailedError naming the trials that failed and those that diverged. Where nothing is trained, only
    scored, what diverged at its own time is no news.
    """
    of = {status: [one for one in results if one.status == status] for status in (REFUSED, FAILED, DIVERGED)}
    diary = sweep.dir / "diary.md"
    if of[REFUSED]:
        say(f"{len(of[REFUSED])} of {len(results)} cells were refused before the start; {diary} has the whole reasons:")
        by_reason: dict[str, list[TrialResult]] = {}
        for one in of[REFUSED]:
            by_reason.setdefault(one.reason, []).append(one)
        for reason, some in by_reason.items():
            say(f"  {_numbers(some)}: {shorten(reason, _REASON_CHARS, placeholder=' ...')}")
    lines = []
    if of[FAILED]:
        lines.append(f"{len(of[FAILED])} of {len(results)} trials failed: {_numbers(of[FAILED])}. Each one's reason "
                     f"stands above and in {diary}, its traceback in its train.log. The same command tries them again:"
                     f"\n  {sweep.command}")
    if of[DIVERGED] and sweep.trains:
        lines.append(f"{len(of[DIVERGED])} of {len(results)} trials diverged: {_numbers(of[DIVERGED])}. The same "
                     "command leaves them as they are, since the same settings diverge again. Try others: a lower "
                     "rate, more warm-up steps, a smaller max_grad_norm, mixed_precision=no.")
    if lines:
        raise TrialsFailedError("\n".join(lines))


def _numbers(results: Sequence[TrialResult]) -> str:
    numbers = ", ".join(str(one.trial.number) for one in results[:_MOST_NUMBERS])
    return numbers + (f" and {len(results) - _MOST_NUMBERS} more" if len(results) > _MOST_NUMBERS else "")
