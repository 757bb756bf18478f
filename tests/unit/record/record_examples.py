"""Results made by hand, for the tests of the record."""

from __future__ import annotations

from typing import Any

from sweep.comparison import t_quantile
from sweep.record.entry import SweepEntry
from sweep.trial import AXES, DONE, Answer, Estimate, Score, Trial, TrialResult

_BLEED = {"bleed": 0.34, "bleed_low": 0.16, "bleed_high": 0.53}  # only the last stage draws class prompts


def entry(**changes: Any) -> SweepEntry:
    values: dict[str, Any] = {
        "name": "alex", "command": "python train.py -m network_dim=8,32", "started": "2026-11-21T02:00:00+00:00",
        "question": {"unet_lr": 1e-4, "network_alpha": 32.0, "betas": [0.9, 0.999]}, "swept_keys": ("network_dim",),
        "trigger": "alexq", "class_noun": "man", "base_model": "pocket", "dataset": "photos/", "num_photos": 14,
        "hardware": "2 cores", "versions": {"torch": "2.13.0"}, "commit": "abc", "note": ""}
    return SweepEntry(**{**values, **changes})


def trial(number: int, **settings: Any) -> Trial:
    settings = settings or {"network_dim": 8}
    return Trial(number=number, train_id=f"id{number:04d}", settings=settings,
                 config={**settings, "optimizer": {"name": "adamw", "betas": [0.9, 0.99]}}, num_steps=100)


def score(useful: tuple[float, float, float] | None, *, verdict: str = "good", epoch: int = 3, stage: str = "confirm",
          scoring_id: str = "s1", score_id: str = "x1", pattern: int = 1, **axes: float) -> Score:
    """useful: value and interval of usefulness. Scores of the same pattern swing together over the prompts, those of
    different patterns (1 to 7) independently."""
    estimates = {name: _estimate(axes.get(name, 0.8)) for name in AXES}
    estimates["usefulness"] = (
        Estimate(value=useful[0], low=useful[1], high=useful[2], raw=useful[0], n=8) if useful
        else Estimate(value=None, low=None, high=None, raw=None, n=0, reason="no face in the references"))
    return Score(score_id=score_id, scoring_id=scoring_id, file=f"alexq-{epoch:06d}.safetensors", file_sha256="0" * 64,
                 epoch=epoch, step=epoch * 10, strength=0.8, stage=stage, num_images=8, axes=estimates,
                 details={"detect_rate": 0.9, "hair": None, **(_BLEED if stage == "confirm" else {})}, verdict=verdict,
                 notes=(), elapsed_s=1.0,
                 replicates=_replicates(useful, pattern) if useful else {})


def result(number: int, useful: tuple[float, float, float] | None = None, *, status: str = DONE, reason: str = "",
           settings: dict[str, Any] | None = None, is_scored: bool = True, **score_changes: Any) -> TrialResult:
    answer = None
    if is_scored and status == DONE:
        measured = score(useful, **{"pattern": number, **score_changes})
        answer = Answer(file=measured.file, epoch=measured.epoch, step=measured.step, strength=0.8, score=measured,
                        reason="epochs 4 and 5 can't be told apart from it")
    return TrialResult(trial=trial(number, **(settings or {"network_dim": 8 * number})), status=status, step=100,
                       attributed_s=90.0, answer=answer, scores=(), reason=reason)


def _replicates(useful: tuple[float, float, float], pattern: int) -> dict[str, float]:
    """Of 8 prompts, swinging as a row of the Hadamard matrix, such that the jackknife interval has this width."""
    value, low, high = useful
    size = (high - low) / 2 / t_quantile(7) / 7**0.5
    return {str(p): value + size * (-1) ** (p & pattern).bit_count() for p in range(8)}


def _estimate(value: float) -> Estimate:
    return Estimate(value=value, low=value - 0.05, high=value + 0.05, raw=value, n=8)
