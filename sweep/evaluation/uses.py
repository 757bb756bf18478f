"""What else the named file is good for: from afar, beside a second LoRA, for inpainting. `uses` of evaluate.py.

Each use asks for likeness on images of its own, drawn at the answer's strength through the same gallery, and measured
against the base on the same cells. uses.json holds what came out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.evaluation.framing_use import FramingConfig, check_framing, score_framings
from sweep.evaluation.inpainting import InpaintConfig, check_inpainting, score_inpainting
from sweep.evaluation.lora_files import FoundLora
from sweep.evaluation.mixing import MixConfig, check_mix, score_mix
from sweep.files import sha256_of, write_json
from sweep.trial import Answer

if TYPE_CHECKING:
    from sweep.evaluation.generate import OnProgress
    from sweep.evaluation.scorer import Scorer


@dataclass(frozen=True, slots=True, kw_only=True)
class UsesConfig:
    """Each is off until it is asked for."""

    framing: FramingConfig
    mix: MixConfig
    inpaint: InpaintConfig

    @property
    def any(self) -> bool:
        return bool(self.framing.words or self.mix.file is not None or self.inpaint.num_pictures)


def check_uses(config: UsesConfig) -> None:
    """Raises AdapterFileError, ConfigError or ScoringError before anything is loaded."""
    check_framing(config.framing)
    check_mix(config.mix)
    check_inpainting(config.inpaint)


def chosen(loras: Sequence[FoundLora], answer: Answer) -> FoundLora:
    """The file that the answer names."""
    return next(lora for lora in loras if lora.path.name == answer.file
                and sha256_of(lora.path) == answer.score.file_sha256)


def score_uses(config: UsesConfig, lora: FoundLora, answer: Answer, scorer: Scorer, folder: Path,
               on_progress: OnProgress | None = None) -> dict[str, Any]:
    """Score each use that is asked for, print it, and write uses.json; returns what stands there."""
    told: dict[str, Any] = {"file": answer.file, "strength": answer.strength, "guidance_scale": answer.guidance_scale}
    if config.framing.words:
        rows = score_framings(config.framing, lora, answer, scorer, on_progress)
        print(f"\nFrom near to far, at strength {answer.at}:")
        _tell("framing", rows, told)
    if config.mix.file is not None:
        mixed = score_mix(config.mix, lora, answer, scorer, folder, on_progress)
        print(f"\nBeside {config.mix.file}, both at:")
        _tell("mix", mixed, told)
    if config.inpaint.num_pictures:
        print(f"\nInpainting, at strength {answer.at}:")
        _tell("inpaint", score_inpainting(config.inpaint, lora, answer, scorer, folder, on_progress), told)
    write_json(folder / "uses.json", told)
    return told


def _tell(name: str, rows: Sequence[Any], told: dict[str, Any]) -> None:
    for row in rows:
        print(f"  {row.words()}")
    told[name] = [{**dataclasses.asdict(row), "words": row.words()} for row in rows]
