"""Verdicts: the words of the diary. First match wins; every point matches exactly one (scores.md, Verdicts)."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sweep.evaluation.settings import Thresholds
from sweep.trial import Estimate

INVALID = "invalid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What a verdict depends on. None = not measured at this stage; rules about it then do not fire."""

    likeness: float
    adherence: float
    diversity: float | None
    memorisation: float
    bleed: float = 0.0
    is_burnt: bool = False
    detect_rate: float = 1.0
    memo_rate: float = 0.0
    memo_gap_low: float = -1.0  # lower bound of memo_gap, in LPIPS
    hair: float | None = None
    drift: float | None = None
    leak: float = 0.0


def point_of(axes: Mapping[str, Estimate], details: Mapping[str, float | None]) -> Point | None:
    """What a score's figures say; None if one that a verdict needs can't be known."""
    likeness, adherence, memorisation = (axes[name].value for name in ("likeness", "adherence", "memorisation"))
    if likeness is None or adherence is None or memorisation is None or not axes["usefulness"].is_valid:
        return None
    gap_low = details.get("memo_gap_low")
    return Point(likeness=likeness, adherence=adherence, diversity=axes["diversity"].value, memorisation=memorisation,
                 is_burnt=(details.get("burn") or 0.0) > 1, detect_rate=details.get("detect_rate") or 0.0,
                 memo_rate=details.get("memo_rate") or 0.0, memo_gap_low=-1.0 if gap_low is None else gap_low,
                 hair=details.get("probe_hair"), drift=details.get("drift_to_natural"),
                 leak=details.get("leak") or 0.0, bleed=details.get("bleed") or 0.0)


Rule = Callable[[Point, Thresholds], bool]


def _is_varied(p: Point, limit: float) -> bool:
    return p.diversity is None or p.diversity >= limit


def _drifts(p: Point, t: Thresholds) -> bool:
    return p.hair is not None and p.drift is not None and p.hair < t.overfit_hair and p.drift > t.overfit_drift


RULES: tuple[tuple[str, Rule], ...] = (
    ("memorised", lambda p, t: p.memo_rate > t.memorised_rate or p.memo_gap_low > 0),
    ("does not look like the subject",
     lambda p, t: (p.likeness < t.unlike_likeness or p.detect_rate < t.min_detect_rate)
     and p.adherence >= t.overtrained_adherence and not p.is_burnt),
    ("broken", lambda p, t: p.likeness < t.broken_likeness and (p.adherence < t.overtrained_adherence or p.is_burnt)),
    ("overtrained", lambda p, t: p.adherence < t.overtrained_adherence or not _is_varied(p, t.overtrained_diversity)
     or p.is_burnt),
    ("mildly overfit", lambda p, t: p.likeness >= t.overfit_likeness
     and (p.adherence < t.good_adherence or _drifts(p, t))),
    ("underfit", lambda p, t: p.likeness < t.underfit_likeness),
    ("very good", lambda p, t: p.adherence >= t.good_adherence and p.likeness >= t.very_good_likeness
     and _is_varied(p, t.good_diversity) and p.memorisation <= t.good_memorisation
     and p.leak < t.very_good_leak and p.bleed < t.very_good_bleed),
    ("good", lambda p, t: p.adherence >= t.good_adherence and _is_varied(p, t.good_diversity)
     and p.memorisation <= t.good_memorisation),
    ("partly copied", lambda p, t: p.memorisation > t.good_memorisation),
    ("low variety", lambda p, t: not _is_varied(p, t.good_diversity)),
    ("mildly overfit", lambda p, t: True),  # only with an overfit_likeness above underfit_likeness
)
# The field of `Point` that each threshold is compared with; `bleeds` and `leaks` are no part of the rules.
FIELD_OF: Mapping[str, str] = {
    "memorised_rate": "memo_rate", "unlike_likeness": "likeness", "min_detect_rate": "detect_rate",
    "broken_likeness": "likeness", "overtrained_adherence": "adherence", "overtrained_diversity": "diversity",
    "overfit_likeness": "likeness", "good_adherence": "adherence", "overfit_hair": "hair", "overfit_drift": "drift",
    "underfit_likeness": "likeness", "very_good_likeness": "likeness", "good_diversity": "diversity",
    "good_memorisation": "memorisation", "very_good_bleed": "bleed", "very_good_leak": "leak"}
VERDICTS = (INVALID, *dict.fromkeys(name for name, _ in RULES))


def verdict(point: Point, thresholds: Thresholds) -> str:
    """The first rule that matches."""
    return next(name for name, rule in RULES if rule(point, thresholds))


def possible_verdicts(point: Point, bounds: Mapping[str, tuple[float, float]], thresholds: Thresholds) -> list[str]:
    """All verdicts inside the intervals (field of `Point` -> low, high), in the order of the rules; of yes or no, False
    and True are the bounds.

    More than one means: unsure.
    """
    names = list(bounds)
    regions = itertools.product(*(_told_apart(name, getattr(point, name), *bounds[name], thresholds)
                                  for name in names))
    found = {verdict(dataclasses.replace(point, **dict[str, Any](zip(names, region, strict=True))), thresholds)
             for region in regions}
    return [name for name in VERDICTS if name in found]


def _told_apart(name: str, value: float, low: float, high: float, thresholds: Thresholds) -> list[float]:
    """One value for each side of a threshold (of 0 where the field has none) that the interval reaches to."""
    limits = [getattr(thresholds, limit) for limit, field in FIELD_OF.items() if field == name] or [0.0]
    beside = [math.nextafter(limit, towards) for limit in limits for towards in (-math.inf, math.inf)]
    regions = {tuple((at > limit) - (at < limit) for limit in limits): at
               for at in (low, high, *(at for at in beside if low <= at <= high), value)}
    return list(regions.values())


def additions(point: Point, bounds: Mapping[str, tuple[float, float]], thresholds: Thresholds) -> list[str]:
    """What is said beside the verdict; only what the whole interval says."""
    rules = {"bleed": (thresholds.bleeds, "bleeds into the class"),
             "leak": (thresholds.leaks, "memorised the clothes or the background")}
    return [words for name, (limit, words) in rules.items()
            if (bounds[name][0] if name in bounds else getattr(point, name)) > limit]
