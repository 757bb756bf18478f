"""What else the named file is good for: from afar, beside a second LoRA, for inpainting. `uses` of evaluate.py.

Each use asks for likeness on images of its own, drawn at the answer's strength through the same gallery, and measured
against the base on the same cells. uses.json holds what came out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.errors import AdapterFileError, ScoringError
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
    return next(lora for lora in loras if sha256_of(lora.path) == answer.score.file_sha256)


def score_uses(config: UsesConfig, lora: FoundLora, answer: Answer, scorer: Scorer, folder: Path,
               on_progress: OnProgress | None = None) -> dict[str, Any]:
    """Score each use that is asked for, print it, and write uses.json; returns what stands there.

    A use that can't be scored (LoRAs that can't be added, a base that draws no face to mask) is told with its reason;
    the others are scored.
    """
    told: dict[str, Any] = {"file": answer.file, "strength": answer.strength, "guidance_scale": answer.guidance_scale}
    asked: list[tuple[str, str, Callable[[], Sequence[Any]]]] = []
    if config.framing.words:
        asked.append(("framing", f"From near to far, at strength {answer.at}:",
                      lambda: score_framings(config.framing, lora, answer, scorer, on_progress)))
    if config.mix.file is not None:
        asked.append(("mix", f"Beside {config.mix.file}, both at:",
                      lambda: score_mix(config.mix, lora, answer, scorer, folder, on_progress)))
    if config.inpaint.num_pictures:
        asked.append(("inpaint", f"Inpainting, at strength {answer.at}:",
                      lambda: score_inpainting(config.inpaint, lora, answer, scorer, folder, on_progress)))
    for name, title, score in asked:
        try:
            rows = score()
            lines = [row.words() for row in rows]
            told[name] = [{**dataclasses.asdict(row), "words": row.words()} for row in rows]
        except (AdapterFileError, ScoringError) as error:
            lines = [f"can't be scored: {error}"]
            told[name] = {"reason": str(error)}
        print("\n".join(["", title, *(f"  {line}" for line in lines)]))
        write_json(folder / "uses.json", told)
    return told
