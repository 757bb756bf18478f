"""From measured images and anchors to a score with intervals and a verdict. Pure: no model, no files.

Not measured yet, and therefore taken as none: bleed into the class (B = 0) and leak of clothes and background.

Shapes: P prompts of the stage.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sweep.comparison import Interval, jackknife_interval
from sweep.evaluation.adherence import ProbeTable, adherence, drop_failed_probes
from sweep.evaluation.anchors import Anchors
from sweep.evaluation.burn import KINDS, burn, log_ratios
from sweep.evaluation.diversity import diversity
from sweep.evaluation.intervals import rate_interval, standard_error, widened
from sweep.evaluation.likeness import likeness
from sweep.evaluation.measure import Measured, MeasuredSet
from sweep.evaluation.memorisation import memo_gap, memo_rate, memorisation, normalised_gap
from sweep.evaluation.settings import ScoringConfig
from sweep.evaluation.usefulness import usefulness
from sweep.evaluation.verdict import INVALID, Point, additions, possible_verdicts, verdict
from sweep.trial import AXES, Estimate

Floats = NDArray[np.float64]
Keep = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Judgement:
    """All of a score but where the file lies."""

    axes: dict[str, Estimate]
    details: dict[str, float | None]
    verdict: str
    notes: tuple[str, ...]
    replicates: dict[str, float]


@dataclass(frozen=True, slots=True)
class Table:
    """Per-prompt means over the seeds; NaN where a prompt does not measure it."""

    prompts: list[int]
    face_gen_P: Floats
    face_base_P: Floats
    probes: dict[str, ProbeTable]
    clip_gen_P: Floats
    clip_base_P: Floats
    clip_real_P: Floats
    variety_gen_P: Floats
    variety_base_P: Floats
    near_gen_P: Floats
    near_base_P: Floats
    copies_P: Floats
    drift_P: Floats
    ratios: list[list[dict[str, float]]]  # of each prompt's images, burn's log-ratios


def judge(measured: MeasuredSet, anchors: Anchors, scoring: ScoringConfig, stage: str) -> Judgement:
    """Normalise, combine, and put into words."""
    base = anchors.base_on(stage)
    images = [m for m in measured.images if m.key in base and not m.is_broken]
    num_broken = sum(m.is_broken for m in measured.images)
    if not images:
        return _all_broken(num_broken)
    table, notes = _table(measured, images, anchors, scoring, stage)
    axes_at = _axes_at(table, anchors, scoring)
    everything = np.arange(len(table.prompts))
    values = axes_at(everything)
    left_out = [axes_at(np.delete(everything, i)) for i in everything]
    reasons = _invalid_axes(values, anchors, scoring, num_broken / max(len(measured.images), 1))
    axes = {name: _estimate(name, values, left_out, table, images, anchors, scoring, reasons.get(name, ""))
            for name in AXES}
    details = _details(measured, images, values, table, anchors, scoring)
    details["broken_frac"] = num_broken / max(len(measured.images), 1)
    words, more = _words(axes, details, reasons, _gap_interval(values, left_out, anchors), scoring)
    replicates = {str(p): row["usefulness"] for p, row in zip(table.prompts, left_out, strict=True)}
    if axes["usefulness"].value is None or not all(math.isfinite(value) for value in replicates.values()):
        replicates = {}
    return Judgement(axes=axes, details=details, verdict=words, notes=(*more, *notes), replicates=replicates)


def _all_broken(num_broken: int) -> Judgement:
    """A file whose images all hold nothing, e.g. after its weights became NaN; or a base that draws nothing."""
    reason = (f"all {num_broken} images are broken (not finite, or one flat colour)" if num_broken
              else "all images of the base model itself are broken (not finite, or one flat colour)")
    nothing = Estimate(value=None, low=None, high=None, raw=None, n=0, reason=reason)
    return Judgement(axes=dict.fromkeys(AXES, nothing), details={"broken_frac": 1.0}, verdict=INVALID, notes=(reason,),
                     replicates={})


def _table(measured: MeasuredSet, images: Sequence[Measured], anchors: Anchors, scoring: ScoringConfig,
           stage: str) -> tuple[Table, list[str]]:
    """Lay out the stage's prompts, each image beside the base's on the same cell; says what is left out."""
    on_cell = anchors.base_on(stage)
    prompts = sorted({m.index for m in images})
    gen = [[m for m in images if m.index == p] for p in prompts]
    base = [[on_cell[m.key] for m in rows] for rows in gen]
    base_face = [_mean([m.face for m in rows if m.face is not None]) for rows in base]
    floor = _mean([m.face for rows in base for m in rows if m.face is not None and scoring.prompts[m.index].face])
    base_face = [floor if math.isnan(face) else face for face in base_face]
    is_face = np.array([scoring.prompts[p].face for p in prompts], dtype=bool)
    face_gen = np.array([_mean([face if m.face is None else m.face for m in rows])  # no face counts as the floor
                         for rows, face in zip(gen, base_face, strict=True)])
    probes, notes = {}, []
    for name in scoring.attributes:
        probes[name], dropped = drop_failed_probes(_probe_table(name, prompts, gen, base, anchors, scoring),
                                                   scoring.validity.min_probe_range)
        if dropped:
            asked = ", ".join(scoring.prompts[prompts[i]].probes[name] for i in dropped)
            notes.append(f"dropped the {name} probes that the base itself fails: {asked}")
    if measured.variety == {}:
        notes.append("diversity not measured: one seed per prompt")
    base_variety = anchors.base[stage].variety
    return Table(
        prompts=prompts, probes=probes,
        face_gen_P=np.where(is_face, face_gen, np.nan), face_base_P=np.where(is_face, base_face, np.nan),
        clip_gen_P=_array([[m.clip for m in rows] for rows in gen]),
        clip_base_P=_array([[m.clip for m in rows] for rows in base]),
        clip_real_P=np.array([anchors.real.clip[p] for p in prompts]),
        variety_gen_P=np.array([measured.variety.get(p, math.nan) for p in prompts]),
        variety_base_P=np.array([base_variety.get(p, math.nan) for p in prompts]),
        near_gen_P=_array([[m.nearest for m in rows] for rows in gen]),
        near_base_P=_array([[m.nearest for m in rows] for rows in base]),
        copies_P=_array([[float(m.nearest < scoring.copies.copy_distance) for m in rows] for rows in gen]),
        drift_P=_drift(prompts, gen, base, anchors, scoring),
        ratios=[[log_ratios(m.look, on_cell[m.key].look) for m in rows] for rows in gen]), notes


def _probe_table(name: str, prompts: Sequence[int], gen: Sequence[Sequence[Measured]],
                 base: Sequence[Sequence[Measured]], anchors: Anchors, scoring: ScoringConfig) -> ProbeTable:
    targets = [scoring.prompts[p].probes.get(name) for p in prompts]

    def column(images: Sequence[Sequence[Measured]]) -> Floats:
        return _array([[m.probes[name][t] for m in rows] if t is not None else []
                       for rows, t in zip(images, targets, strict=True)])

    real = np.array([anchors.real.probes[name][t] if t is not None else math.nan for t in targets])
    return ProbeTable(column(gen), column(base), real)


def natural_hair(anchors: Anchors, scoring: ScoringConfig) -> str | None:
    """The hair colour that a LoRA drifts to: the configured one, or the likeliest on the reference photos."""
    if "hair" not in scoring.attributes:
        return None
    photos = anchors.real.probes["hair"]
    return scoring.attributes["hair"].natural or max(photos, key=lambda value: photos[value])


def _drift(prompts: Sequence[int], gen: Sequence[Sequence[Measured]], base: Sequence[Sequence[Measured]],
           anchors: Anchors, scoring: ScoringConfig) -> Floats:
    """drift_to_natural: probability of the subject's own hair colour where another is asked for, less the base's."""
    natural = natural_hair(anchors, scoring)
    asked = [scoring.prompts[p].probes.get("hair") for p in prompts]
    return np.array([_mean([m.probes["hair"][natural] for m in g]) - _mean([m.probes["hair"][natural] for m in b])
                     if natural is not None and a is not None and a != natural else math.nan
                     for a, g, b in zip(asked, gen, base, strict=True)])


def _axes_at(table: Table, anchors: Anchors, scoring: ScoringConfig) -> Callable[[Keep], dict[str, float]]:
    """All axes as a function of which prompts are kept; NaN where they can't be known."""
    ceiling = _mean(anchors.real.ceiling_faces)
    unseen = anchors.real.unseen_nearest

    def at(keep: Keep) -> dict[str, float]:
        face = keep[~np.isnan(table.face_gen_P[keep])]
        varied = keep[~np.isnan(table.variety_gen_P[keep]) & ~np.isnan(table.variety_base_P[keep])]
        values = {f"probe_{name}": probes.value(keep) for name, probes in table.probes.items()}
        values["likeness"] = (likeness(table.face_gen_P[face], table.face_base_P[face], ceiling)
                              if len(face) else math.nan)
        values["clip_retained"] = _retained(table, keep, scoring.validity.min_clip_range)
        retained = None if math.isnan(values["clip_retained"]) else values["clip_retained"]
        values["adherence"] = adherence({name: values[f"probe_{name}"] for name in table.probes}, retained,
                                        scoring.weights.probes)
        values["diversity"] = (diversity(table.variety_gen_P[varied], table.variety_base_P[varied])
                               if len(varied) else math.nan)
        values["drift_to_natural"] = _mean(table.drift_P[keep])
        values["memo_rate"] = _mean(table.copies_P[keep])
        values["memo_gap"] = memo_gap(table.near_gen_P[keep].tolist(), unseen) if unseen else math.nan
        values["memo_gap_norm"] = normalised_gap(values["memo_gap"], unseen) if unseen else math.nan
        values["memorisation"] = (memorisation(values["memo_rate"], values["memo_gap_norm"],
                                               scoring.weights.memo_rate_full) if unseen else math.nan)
        ratios = [row for i in keep for row in table.ratios[i]]
        values["burn"] = burn(ratios, dataclasses.asdict(scoring.burn)) if ratios else math.nan
        for kind in KINDS:
            values[f"burn_{kind}"] = _mean([row[kind] for row in ratios])
        values["usefulness"] = usefulness(
            values["likeness"], values["adherence"], None if math.isnan(values["diversity"]) else values["diversity"],
            values["memorisation"], 0.0, scoring.weights)
        return values

    return at


def _retained(table: Table, keep: Keep, min_range: float) -> float:
    """CLIP-T between photos that ignore the prompt (0) and the base (1)."""
    span = float(np.mean(table.clip_base_P[keep] - table.clip_real_P[keep]))
    if not span >= min_range:
        return math.nan
    return float(np.mean(table.clip_gen_P[keep] - table.clip_real_P[keep])) / span


def _invalid_axes(values: dict[str, float], anchors: Anchors, scoring: ScoringConfig,
                  broken_frac: float) -> dict[str, str]:
    """Why an axis can't be known, by axis; `usefulness` carries all that it needs."""
    reasons: dict[str, str] = {}
    problem = anchors.likeness_problem(scoring)
    if problem or math.isnan(values["likeness"]):
        reasons["likeness"] = problem or ("on the prompts that count for likeness no image is whole, or the base model "
                                          "draws no face")
    if math.isnan(values["adherence"]):
        reasons["adherence"] = ("the base model fails every probe: nothing in its images is more often what the prompt "
                                f"asks for than in the photos (by at least {scoring.validity.min_probe_range:g})")
    if math.isnan(values["diversity"]):
        reasons["diversity"] = "diversity needs at least two seeds per prompt"
    if math.isnan(values["memo_gap"]):
        reasons["memorisation"] = "there is one training photo and none held out, so nothing to compare copies with"
    if broken_frac > scoring.validity.max_broken_frac:
        broken = f"{broken_frac:.0%} of the images are broken (not finite, or one flat colour)"
        reasons.update(dict.fromkeys(AXES, broken))
    missing = [f"{name}: {reasons[name]}" for name in ("likeness", "adherence", "memorisation") if name in reasons]
    if missing and "usefulness" not in reasons:
        reasons["usefulness"] = "; ".join(missing)
    return reasons


def _estimate(name: str, values: dict[str, float], left_out: Sequence[dict[str, float]], table: Table,
              images: Sequence[Measured], anchors: Anchors, scoring: ScoringConfig, reason: str) -> Estimate:
    raw = {"likeness": _mean(table.face_gen_P), "diversity": _mean(table.variety_gen_P),
           "adherence": _mean(table.clip_gen_P)}.get(name, values.get("memo_rate" if name == "memorisation" else name))
    column = {"likeness": table.face_gen_P, "diversity": table.variety_gen_P}.get(name)
    measuring = [i for i in range(len(table.prompts)) if column is None or not math.isnan(column[i])]
    raw = None if raw is None or math.isnan(raw) else raw
    if reason:
        return Estimate(value=None, low=None, high=None, raw=raw, n=len(measuring), reason=reason)
    if name == "memorisation":
        gap = _gap_interval(values, left_out, anchors)
        interval = _memorisation_interval(values, gap, anchors, len(images), scoring)
    else:
        interval = jackknife_interval(values[name], [left_out[i][name] for i in measuring])
    low, high = interval.low, interval.high
    if name in ("memorisation", "usefulness") and low is not None and high is not None:
        low, high = max(low, 0.0), min(high, 1.0)
    return Estimate(value=values[name], low=low, high=high, raw=raw, n=interval.n, reason=interval.reason)


def _gap_interval(values: dict[str, float], left_out: Sequence[dict[str, float]], anchors: Anchors) -> Interval:
    """Of memo_gap, a difference of two means: the unseen photos are few too, so their spread counts as well."""
    return widened(jackknife_interval(values["memo_gap"], [row["memo_gap"] for row in left_out]), values["memo_gap"],
                   standard_error(anchors.real.unseen_nearest))


def _memorisation_interval(values: dict[str, float], gap: Interval, anchors: Anchors, num_images: int,
                           scoring: ScoringConfig) -> Interval:
    """M rises in each of its parts, so the parts' bounds bound it."""
    rate = rate_interval(round(values["memo_rate"] * num_images), num_images)
    if rate.low is None or rate.high is None or gap.low is None or gap.high is None:
        return Interval(None, None, gap.n, rate.reason or gap.reason)
    full, unseen = scoring.weights.memo_rate_full, anchors.real.unseen_nearest
    return Interval(memorisation(rate.low, normalised_gap(gap.low, unseen), full),
                    memorisation(rate.high, normalised_gap(gap.high, unseen), full), gap.n)


def _details(measured: MeasuredSet, images: Sequence[Measured], values: dict[str, float], table: Table,
             anchors: Anchors, scoring: ScoringConfig) -> dict[str, float | None]:
    """Everything that stands behind the axes, by name."""
    details = dict(values)
    for name in AXES:
        del details[name]
    faces = [m for m in images if scoring.prompts[m.index].face]
    found = [m.face for m in faces if m.face is not None]
    details["detect_rate"] = len(found) / len(faces) if faces else math.nan
    details["face_similarity_detected"] = _mean(found)
    details["likeness_floor"] = _mean(table.face_base_P)
    details["likeness_ceiling"] = _mean(anchors.real.ceiling_faces)
    details["nearest_prompts"] = _mean([m.nearest for m in images])
    details["nearest_prompts_base"] = _mean(table.near_base_P)
    details["nearest_unseen_photos"] = _mean(anchors.real.unseen_nearest)
    for kind in ("bare", "caption"):
        near = [m.nearest for m in measured.images if m.kind == kind and not m.is_broken]
        if near:
            details[f"nearest_{kind}"] = _mean(near)
            details[f"memo_rate_{kind}"] = memo_rate(near, scoring.copies.copy_distance)
            details[f"memo_gap_{kind}"] = memo_gap(near, anchors.real.unseen_nearest)
    return {name: None if math.isnan(value) else float(value) for name, value in details.items()}


def _words(axes: dict[str, Estimate], details: dict[str, float | None], reasons: dict[str, str],
           gap: Interval, scoring: ScoringConfig) -> tuple[str, list[str]]:
    """The verdict and its notes."""
    if "usefulness" in reasons:
        return INVALID, [reasons["usefulness"]]
    value = {name: estimate.value for name, estimate in axes.items()}
    assert value["likeness"] is not None and value["adherence"] is not None and value["memorisation"] is not None
    point = Point(likeness=value["likeness"], adherence=value["adherence"], diversity=value["diversity"],
                  memorisation=value["memorisation"], is_burnt=(details["burn"] or 0.0) > 1,
                  detect_rate=details["detect_rate"] or 0.0, memo_rate=details["memo_rate"] or 0.0,
                  memo_gap_low=-1.0 if gap.low is None else gap.low,
                  hair=details.get("probe_hair"), drift=details["drift_to_natural"])
    words = verdict(point, scoring.thresholds)
    known = {name: (axis.low, axis.high) for name, axis in axes.items()
             if name != "usefulness" and axis.low is not None and axis.high is not None}
    others = [name for name in possible_verdicts(point, known, scoring.thresholds) if name != words]
    notes = additions(point, scoring.thresholds)
    if others:
        notes.append(f"unsure: within the intervals it may also be {' or '.join(others)}")
    if (details.get("memo_rate_caption") or 0.0) > scoring.thresholds.memorised_rate:
        notes.append("copies training photos when given their captions")
    if value["likeness"] > 1.0 and axes["likeness"].low is not None and axes["likeness"].low > 1.0:
        notes.append("likeness above that of real photos: a sign of copying")
    return words, notes


def _mean(values: Sequence[float] | Floats) -> float:
    """Mean of what is not NaN; NaN of nothing."""
    x = np.asarray(values, dtype=float)
    x = x[~np.isnan(x)]
    return float(x.mean()) if len(x) else math.nan


def _array(rows: Sequence[Sequence[float]]) -> Floats:
    return np.array([_mean(row) for row in rows])
