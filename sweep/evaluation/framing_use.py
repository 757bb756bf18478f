"""Does it still look like the subject from afar? One prompt at several framings, on the same seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.comparison import Interval
from sweep.errors import ScoringError
from sweep.evaluation.cells import Cell, subject_words
from sweep.evaluation.generate import Row
from sweep.evaluation.lora_files import FoundLora
from sweep.evaluation.paired import change_of, face_units, likeness_of, told, told_change
from sweep.evaluation.table import mean_of
from sweep.files import sha256_of
from sweep.schema import bounds
from sweep.trial import Answer, Estimate

if TYPE_CHECKING:
    from sweep.evaluation.generate import OnProgress
    from sweep.evaluation.scorer import Scorer


@dataclass(frozen=True, slots=True, kw_only=True)
class FramingConfig:
    """words: from near to far; none = not asked."""

    words: tuple[str, ...]
    prompt: str
    num_seeds: int = bounds(3, 1000)


@dataclass(frozen=True, slots=True)
class FramingResult:
    """detect_rate: images with a face. change: of likeness against the first framing."""

    framing: str
    likeness: Estimate
    detect_rate: float
    change: float | None
    interval: Interval

    def words(self) -> str:
        found = f"a face in {self.detect_rate:.0%}"
        if self.likeness.value is None:
            return f"{self.framing}: likeness can't be known ({self.likeness.reason}), {found}"
        change = f", {told_change(self.change, self.interval)}" if self.change is not None else ""
        return f"{self.framing}: likeness {told(self.likeness)}, {found}{change}"


def check_framing(config: FramingConfig) -> None:
    """Raises ScoringError for a prompt that shows nothing of it."""
    for part in ("{subject}", "{framing}"):
        if config.words and part not in config.prompt:
            raise ScoringError(f"uses.framing.prompt = {config.prompt!r} lacks {part}.")


def score_framings(config: FramingConfig, lora: FoundLora, answer: Answer, scorer: Scorer,
                   on_progress: OnProgress | None = None) -> list[FramingResult]:
    """One row for each framing, the first one without a change."""
    from sweep.network.trained_file import read_trained

    with_trigger, without = subject_words(scorer.scoring, scorer.dataset)
    seeds = range(scorer.scoring.confirm.first_seed, scorer.scoring.confirm.first_seed + config.num_seeds)
    file, digest = read_trained(lora.path, scorer.targets), sha256_of(lora.path)
    problem, ceiling_faces = scorer.anchors.likeness_problem(scorer.scoring), scorer.anchors.real.ceiling_faces
    ceiling = mean_of(ceiling_faces)
    results: list[FramingResult] = []
    first = None
    for framing in config.words:
        text = config.prompt.replace("{framing}", framing)
        cells = [Cell("bare", i, seed, text.replace("{subject}", with_trigger), text.replace("{subject}", without))
                 for i, seed in enumerate(seeds)]
        base_rows = [Row(None, 0.0, cell.class_text, cell.seed) for cell in cells]
        own_rows = [Row(file, answer.strength, scorer.typed(cell.text, file), cell.seed, answer.guidance_scale)
                    for cell in cells]
        images = scorer.drawer.draw([*base_rows, *own_rows], [""] * len(cells) + [digest] * len(cells), on_progress)
        base, own = (scorer.observer.look(half, cells).images for half in images.split(len(cells)))
        units = face_units(own, {m.key: m for m in base})
        change, interval = change_of(first, units, ceiling) if first is not None else (None, Interval(None, None, 0))
        first = units if first is None else first
        results.append(FramingResult(framing, likeness_of(units, ceiling_faces, problem),
                                     mean_of([float(m.face is not None) for m in own]), change, interval))
    return results
