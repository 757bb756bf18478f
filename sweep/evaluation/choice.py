"""Which file, at which strength: the best by mean - 1 standard error, and what can't be told apart from it."""

from __future__ import annotations

from collections.abc import Sequence

from sweep.comparison import are_tied, cautious
from sweep.trial import Score, spoken_arm

_GONE_TOO_FAR = ("memorised", "overtrained", "broken")


def best_of(scores: Sequence[Score], count: int = 1) -> list[int]:
    """Indices of the best few, best first; of equals the later one last."""
    order = sorted(range(len(scores)), key=lambda i: -cautious(scores[i]))
    return order[:count]


def label(score: Score, scores: Sequence[Score]) -> str:
    """"epoch 4", or "step 500" where epochs don't tell the files apart, or else the file's name."""
    num_files = len({s.file for s in scores})
    if score.epoch > 0 and len({s.epoch for s in scores}) == num_files:
        return f"epoch {score.epoch}"
    if score.step > 0 and len({s.step for s in scores}) == num_files:
        return f"step {score.step}"
    return score.file.removesuffix(".safetensors")


def reason(chosen: Score, screened: Sequence[Score], *, tied_arms: Sequence[Score], num_confirmed: int) -> str:
    """A sentence: "epoch 4 at 0.8; epochs 3 to 5 cannot be told apart; from epoch 8 on: overtrained".

    tied_arms: those of the chosen file that can't be told apart, itself among them. num_confirmed: arms that were drawn
    on fresh images, of which it is the best; 0 = none was.
    """
    name, at = label(chosen, screened), spoken_arm(chosen.strength, chosen.guidance_scale)
    parts = [f"{name} at {at}"]
    usefulness = chosen.axes["usefulness"]
    if usefulness.value is None:
        return f"{name} at {at}, the last one: no file can be preferred while usefulness can't be known"
    best = next((i for i, score in enumerate(screened)
                 if (score.file, score.file_sha256) == (chosen.file, chosen.file_sha256)), None)
    if best is not None:
        tied = [i for i, score in enumerate(screened)
                if i == best or are_tied(screened[best], score)]
        if len(tied) > 1:
            parts.append(f"{_spread([label(screened[i], screened) for i in tied], tied)} cannot be told apart")
        far = _too_far_from(screened, best)
        if far is not None:
            parts.append(f"from {label(screened[far], screened)} on: {screened[far].verdict}")
    if len(tied_arms) > 1:
        arms = sorted(tied_arms, key=lambda score: (score.strength, score.guidance_scale or 0.0))
        listed = ", ".join(spoken_arm(score.strength, score.guidance_scale) for score in arms)
        parts.append(f"strengths {listed} cannot be told apart")
    if num_confirmed > 1:
        parts.append(f"the best of {num_confirmed} on fresh images, so its own figure leans a little high")
    if not num_confirmed:
        parts.append("chosen and measured on the same images, so its score is optimistic")
    return "; ".join(parts)


def _spread(labels: Sequence[str], indices: Sequence[int]) -> str:
    """"epochs 3 to 5" for neighbours, else "epochs 2, 4 and 5", or the files' names."""
    unit = labels[0].split()[0]
    if unit not in ("epoch", "step") or any(not text.startswith(f"{unit} ") for text in labels):
        return f"{', '.join(labels[:-1])} and {labels[-1]}"
    numbers = [text.split()[1] for text in labels]
    if len(numbers) > 2 and list(indices) == list(range(indices[0], indices[-1] + 1)):
        return f"{unit}s {numbers[0]} to {numbers[-1]}"
    return f"{unit}s {', '.join(numbers[:-1])} and {numbers[-1]}"


def _too_far_from(screened: Sequence[Score], best: int) -> int | None:
    """The first checkpoint after the best from which on all are overtrained, memorised or broken. Files of several
    trainings, of which two are of one step, are no such row."""
    if len({score.step for score in screened}) < len(screened):
        return None
    first = len(screened)
    while first > best + 1 and screened[first - 1].verdict in _GONE_TOO_FAR:
        first -= 1
    return first if first < len(screened) else None
