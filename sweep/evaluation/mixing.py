"""Beside a second LoRA, does it still look like the subject?

The two are added into one file at equal strengths (network/tools), which is scored on the refining cells beside the
first one alone at the same strength; the difference of their likeness is paired by prompt.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.comparison import Interval
from sweep.errors import ConfigError
from sweep.evaluation.lora_files import FoundLora, find_loras
from sweep.evaluation.paired import FaceUnit, change_of, face_units, told, told_change
from sweep.evaluation.table import mean_of
from sweep.files import sha256_of, stable_hash
from sweep.schema import bounds
from sweep.trial import Answer, Score

if TYPE_CHECKING:
    from sweep.evaluation.generate import OnProgress
    from sweep.evaluation.scorer import Scorer, ScoreRequest

_STAGE = "refine"
_WHOLE_RANK = 1 << 20  # leaves nothing of a sum out


@dataclass(frozen=True, slots=True, kw_only=True)
class MixConfig:
    """file: the second LoRA; null = not asked."""

    file: str | None
    strengths: tuple[float, ...] = bounds(above=0)
    # of both alike
    words: str
    # what the second one needs in a prompt


@dataclass(frozen=True, slots=True)
class Mixed:
    """One strength. alone, beside: scores of the named file, and of it with the other one. change: of likeness."""

    strength: float
    alone: Score
    beside: Score
    change: float | None
    interval: Interval

    def words(self) -> str:
        likeness, alone = (score.axes["likeness"] for score in (self.beside, self.alone))
        if likeness.value is None:
            return f"{self.strength:g}: likeness can't be known ({likeness.reason})"
        return (f"{self.strength:g}: likeness {told(likeness)}, alone {told(alone)}: "
                f"{told_change(self.change, self.interval)}; {self.beside.verdict}")


def check_mix(config: MixConfig) -> None:
    """Raises AdapterFileError or ConfigError."""
    if config.file is None:
        return
    found, _ = find_loras(config.file)
    if len(found) != 1:
        raise ConfigError(f"uses.mix.file={config.file} matches {len(found)} LoRA files; give one.")
    if not config.strengths:
        raise ConfigError("uses.mix.strengths is empty; give at least one, e.g. [0.6,0.7].")


def score_mix(config: MixConfig, lora: FoundLora, answer: Answer, scorer: Scorer, folder: Path,
              on_progress: OnProgress | None = None) -> list[Mixed]:
    """One row for each strength, at the answer's guidance. The sums lie in folder/mixed.

    Raises AdapterFileError if the two can't be added.
    """
    from sweep.evaluation.scorer import ScoreRequest

    assert config.file is not None
    [other] = find_loras(config.file)[0]
    scorer = _with_words(scorer, config.words)
    requests: list[ScoreRequest] = []
    for strength in config.strengths:
        alone = ScoreRequest(file=lora.path, epoch=lora.epoch, step=lora.step, scores_dir=folder / "scores",
                             images_dir=folder / "images", strength=strength,
                             guidance_scale=answer.guidance_scale)
        requests += [alone, replace(alone, file=_sum_of(lora.path, other.path, strength, folder / "mixed", scorer),
                                    strength=1.0)]
    scores = scorer.score(requests, _STAGE, on_progress)
    ceiling = mean_of(scorer.anchors.real.ceiling_faces)
    faces = [_faces(each, scorer) for each in requests]
    return [Mixed(strength, scores[i], scores[i + 1], *change_of(faces[i], faces[i + 1], ceiling))
            for strength, i in zip(config.strengths, range(0, len(scores), 2), strict=True)]


def _with_words(scorer: Scorer, words: str) -> Scorer:
    """One whose prompts end with the second LoRA's own words, with anchors of its own."""
    if not words:
        return scorer
    prompts = tuple(replace(prompt, text=f"{prompt.text}, {words}") for prompt in scorer.scoring.prompts)
    return scorer.under(replace(scorer.scoring, prompts=prompts))


def _sum_of(lora: Path, other: Path, strength: float, folder: Path, scorer: Scorer) -> Path:
    """In fp32, whatever kind of LoRA either is."""
    import torch

    from sweep.network.tools.make import merge

    key = stable_hash([sha256_of(lora), sha256_of(other)], num_digits=8)
    out = folder / key / f"{lora.stem}+{other.stem}-{strength:g}.safetensors"
    out.parent.mkdir(parents=True, exist_ok=True)
    merge([lora, other], [strength, strength], out, scorer.targets, rank=_WHOLE_RANK, dtype=torch.float32)
    return out


def _faces(request: ScoreRequest, scorer: Scorer) -> dict[int, FaceUnit]:
    """By prompt, where the face counts."""
    images = [m for m in scorer.measured(request, _STAGE).images
              if m.kind == "prompt" and scorer.scoring.prompts[m.index].face]
    return face_units(images, scorer.anchors.base_on(_STAGE))
