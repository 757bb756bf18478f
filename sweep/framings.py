"""How far away the subject is in a picture, and where a score has its likeness told apart by that. Imports no torch."""

from __future__ import annotations

from sweep.trial import Score

FRAMINGS = ("close-up", "portrait", "upper body", "full body", "far away")  # the nearest first


def framing_key(framing: str) -> str:
    """Under which name `Score.details` has the likeness at this framing; `_low` and `_high` are beside it."""
    return f"likeness_{framing.replace(' ', '_').replace('-', '_')}"


def framing_words(score: Score) -> str:
    """"likeness by framing: close-up 0.84 (0.78 to 0.90), upper body 0.41"; empty if it was not told apart."""
    shown = []
    for framing in FRAMINGS:
        value, low, high = (score.details.get(f"{framing_key(framing)}{end}") for end in ("", "_low", "_high"))
        if value is not None:
            shown.append(f"{framing} {value:.2f}" + ("" if low is None or high is None
                                                     else f" ({low:.2f} to {high:.2f})"))
    return f"likeness by framing: {', '.join(shown)}" if shown else ""
