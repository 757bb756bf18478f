"""X/Y/Z grids: checkpoint x strength x guidance, a page for each prompt and seed, scores beneath each image.

Shapes: B images, C H W pixels in [0, 1].
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.errors import ScoringError
from sweep.evaluation.cells import Cell, subject_words
from sweep.evaluation.drawing import Drawer
from sweep.evaluation.figures import scores_of
from sweep.evaluation.generate import OnProgress, Row
from sweep.evaluation.lora_files import FoundLora
from sweep.evaluation.measure import Measured, Observer
from sweep.evaluation.page import Page, write_page
from sweep.evaluation.settings import Sampler, ScoringConfig
from sweep.files import sha256_of, write_text
from sweep.network.file_kinds import kind_of_file
from sweep.network.trained_file import read_trained
from sweep.schema import bounds, one_of

if TYPE_CHECKING:
    from torch import Tensor

    from sweep.evaluation.scorer import Scorer


@dataclass(frozen=True, slots=True, kw_only=True)
class NoGrid:
    """Nothing is shown beside the ranking."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BestGrid:
    """The ranking's best files, drawn as the scores are, so that most of the images are there already."""

    name: str
    num_files: int = bounds(1, 100)
    num_prompts: int = bounds(1, 100)


@dataclass(frozen=True, slots=True, kw_only=True)
class GridSampler:
    """How a grid is drawn; the guidance scale is an axis of it."""

    name: str = one_of("dpmpp_2m_karras", "euler_a")
    num_steps: int = bounds(2, 1000)
    negative_prompt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GridConfig:
    """What a grid shows."""

    name: str
    prompts: tuple[str, ...]
    seeds: tuple[int, ...] = bounds(0)
    strengths: tuple[float, ...] = bounds(above=0)
    guidance_scales: tuple[float, ...] = bounds(1, 50)
    sampler: GridSampler

    def __post_init__(self) -> None:
        for axis in ("prompts", "seeds", "strengths"):
            if not getattr(self, axis):
                raise ScoringError(f"grid.{axis} is empty; a grid needs at least one value on each axis.")


GRIDS: dict[str, type] = {"none": NoGrid, "best": BestGrid, "plain": GridConfig, "tutorial": GridConfig}


def grid_of_best(config: BestGrid, scoring: ScoringConfig, loras: Sequence[FoundLora]) -> GridConfig:
    """The first prompts that files are screened on, by the strengths and guidance scales of the choice.

    loras: those that will be shown; of whole checkpoints and embeddings alone, strength 1 is: they have no other.
    """
    sampler, choice = scoring.sampler, scoring.choice
    has_strengths = any(kind_of_file(lora.path) == "lora" for lora in loras)
    prompts = scoring.prompts_of("screen")[:config.num_prompts]
    return GridConfig(
        name=config.name, prompts=tuple(scoring.prompts[i].text for i in prompts),
        seeds=(scoring.screen.first_seed,), strengths=choice.strengths if has_strengths else (1.0,),
        guidance_scales=choice.guidance_scales,
        sampler=GridSampler(name=sampler.name, num_steps=sampler.num_steps, negative_prompt=sampler.negative_prompt))


def draw_grid(config: GridConfig, loras: Sequence[FoundLora], scorer: Scorer, folder: Path,
              on_progress: OnProgress | None = None) -> list[Path]:
    """Draw, measure and write all pages and `grid.csv`; returns the pages' paths."""
    pages, rows = [], []
    with_trigger, without = subject_words(scorer.scoring, scorer.dataset)
    for p, prompt in enumerate(config.prompts):
        for seed in config.seeds:
            typed, class_text = (prompt.replace("{subject}", words) for words in (with_trigger, without))
            cell = Cell("bare", p, seed, typed, class_text)
            blocks = []
            for guidance in config.guidance_scales or (scorer.scoring.sampler.guidance_scale,):
                sampler = Sampler(name=config.sampler.name, num_steps=config.sampler.num_steps, guidance_scale=guidance,
                                  negative_prompt=config.sampler.negative_prompt)
                images, measured = _block(config, loras, scorer, sampler, cell, on_progress)
                blocks.append((f"guidance {guidance:g}", images, [_words(m, scorer.scoring) for m in measured]))
                arms = [(lora, strength) for lora in loras for strength in config.strengths]
                rows += [_row(lora, strength, guidance, cell, m, scorer)
                         for (lora, strength), m in zip(arms, measured, strict=True)]
            path = folder / f"grid-{p + 1}-seed{seed}.png"
            write_page(path, Page(title=f"{cell.text}   (seed {seed})", columns=[f"{s:g}" for s in config.strengths],
                                  rows=[lora.called.removesuffix(".safetensors") for lora in loras], blocks=blocks))
            pages.append(path)
    write_text(folder / "grid.csv", _csv(rows))
    return pages


def _block(config: GridConfig, loras: Sequence[FoundLora], scorer: Scorer, sampler: Sampler, cell: Cell,
           on_progress: OnProgress | None) -> tuple[list[Tensor], list[Measured]]:
    """One page's images at one guidance scale, file by file, and what was measured of them."""
    shared = scorer.drawer
    drawer = Drawer(scorer.base, scorer.targets, scorer.scoring, scorer.results_dir, clip_skip=shared.clip_skip,
                    max_token_length=shared.max_token_length, sampler=sampler)
    files = {lora.path: (read_trained(lora.path, scorer.targets), sha256_of(lora.path)) for lora in loras}
    rows = [Row(files[lora.path][0], strength, scorer.typed(cell.text, files[lora.path][0]), cell.seed)
            for lora in loras for strength in config.strengths]
    digests = [files[lora.path][1] for lora in loras for _ in config.strengths]
    images = drawer.draw(rows, digests, on_progress)
    observer: Observer = scorer.observer
    return list(images), list(observer.look(images, [cell] * len(rows)).images)


def _words(image: Measured, scoring: ScoringConfig) -> str:
    return scores_of(image, scoring) + ("" if image.is_broken else f", nearest {image.nearest:.2f}")


def _row(lora: FoundLora, strength: float, guidance: float, cell: Cell, image: Measured,
         scorer: Scorer) -> dict[str, object]:
    return {"file": lora.called, "epoch": lora.epoch, "step": lora.step, "strength": strength, "guidance": guidance,
            "prompt": cell.text, "seed": cell.seed, "is_broken": image.is_broken, "likeness_raw": image.face,
            "clip": image.clip, "nearest": image.nearest,
            "nearest_photo": scorer.dataset.photos[image.nearest_photo].path.name,
            **{f"look_{kind}": value for kind, value in image.look.items()}}


def _csv(rows: Sequence[dict[str, object]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: f"{value:.4f}" if isinstance(value, float) else value for key, value in row.items()}
                     for row in rows)
    return buffer.getvalue()

