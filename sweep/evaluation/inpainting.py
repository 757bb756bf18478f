"""Inpainting: the head of a picture that the base has drawn becomes the subject's, the rest stays.

The pictures are those of the anchors, so they cost nothing. On the plain base what is drawn inside the mask blends with
the known rest at every step; an inpainting base is told of it (known.py). Floor is that base on the same pictures and
masks, without LoRA and trigger.

Shapes: B pictures, C H W pixels in [0, 1] or latents.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.errors import ScoringError
from sweep.evaluation.cells import Cell, cells_of
from sweep.evaluation.drawing import Drawer
from sweep.evaluation.generate import Row
from sweep.evaluation.known import Box, Known, known_picture
from sweep.evaluation.lora_files import FoundLora
from sweep.evaluation.paired import face_units, likeness_of, told
from sweep.evaluation.settings import STAGES
from sweep.evaluation.sheet import write_sheet
from sweep.evaluation.table import mean_of
from sweep.files import sha256_of, stable_hash
from sweep.model.base import InpaintingConfig
from sweep.schema import bounds, to_tree
from sweep.trial import Answer, Estimate

if TYPE_CHECKING:
    from torch import Tensor

    from sweep.evaluation.generate import OnProgress
    from sweep.evaluation.measure import Measured
    from sweep.evaluation.scorer import Scorer

MIN_PICTURES = 3
OTHER_SEED = 1 << 20  # the mask is filled from other noise than the picture was drawn from
_MIDDLE = 0.5  # share of each side that is masked where there is no face to find
_MOST_MASKED = 0.9  # a picture of which less stays is drawn anew, not inpainted
_SOFT_EDGE = 1  # latents around the mask that its decoded pixels reach into


@dataclass(frozen=True, slots=True, kw_only=True)
class InpaintConfig:
    """num_pictures: 0 = not asked."""

    num_pictures: int = bounds(0, 1000)
    margin: float = bounds(0, 2)
    base_model: str | None
    # an inpainting base; null = latent blending on the plain one


@dataclass(frozen=True, slots=True)
class Picture:
    """box: x0, y0, x1, y1 in pixels, on the grid of the latents."""

    cell: Cell
    image_CHW: Tensor
    box: Box
    known: Known

    @property
    def masked_frac(self) -> float:
        x0, y0, x1, y1 = self.box
        return (x1 - x0) * (y1 - y0) / (self.image_CHW.shape[1] * self.image_CHW.shape[2])


@dataclass(frozen=True, slots=True)
class InpaintResult:
    """Of some pictures. likeness: inside the masks. rest_changed, rest_autoencoded: mean difference per pixel outside
    of them, 0 to 1, and how much of it is the autoencoder's own."""

    pictures: str
    num_pictures: int
    masked_frac: float
    likeness: Estimate
    detect_rate: float
    rest_changed: float | None
    rest_autoencoded: float | None

    def words(self) -> str:
        if self.likeness.value is None:
            return f"{self.pictures}: likeness can't be known ({self.likeness.reason})"
        return (f"{self.pictures} ({self.num_pictures}, {self.masked_frac:.0%} masked): likeness "
                f"{told(self.likeness)}, a face in {self.detect_rate:.0%}; the rest changed by "
                f"{_shown(self.rest_changed)}, of which the autoencoder {_shown(self.rest_autoencoded)}")


def check_inpainting(config: InpaintConfig) -> None:
    """Raises ScoringError for too few pictures."""
    if 0 < config.num_pictures < MIN_PICTURES:
        raise ScoringError(f"uses.inpaint.num_pictures = {config.num_pictures}: an interval needs at least "
                           f"{MIN_PICTURES}; 0 asks for none.")


def score_inpainting(config: InpaintConfig, lora: FoundLora, answer: Answer, scorer: Scorer, folder: Path,
                     on_progress: OnProgress | None = None) -> list[InpaintResult]:
    """Of all pictures, and of the halves in which the mask is larger and smaller; a sheet as folder/inpaint.png.

    Raises ScoringError if the base draws too few pictures with a face.
    """
    import torch

    from sweep.network.trained_file import read_trained

    drawer = _drawer(config, scorer)
    pictures = _pictures(config, scorer, drawer)
    file, digest = read_trained(lora.path, drawer.targets), sha256_of(lora.path)
    base_rows = [Row(None, 0.0, p.cell.class_text, p.cell.seed + OTHER_SEED, known=p.known) for p in pictures]
    own_rows = [Row(file, answer.strength, scorer.typed(p.cell.text, file), p.cell.seed + OTHER_SEED,
                    answer.guidance_scale, p.known) for p in pictures]
    drawn = drawer.draw([*base_rows, *own_rows], [""] * len(pictures) + [digest] * len(pictures), on_progress)
    base_BCHW, own_BCHW = drawn.split(len(pictures))
    base, own = (_looked_at(images_BCHW, pictures, scorer) for images_BCHW in (base_BCHW, own_BCHW))
    before_BCHW = torch.stack([p.image_CHW for p in pictures])
    coded_BCHW = torch.cat([drawer.base.decode(p.known.latents_CHW[None].to(drawer.base.device)) for p in pictures])
    changes = _outside(own_BCHW, before_BCHW, pictures, scorer), _outside(coded_BCHW, before_BCHW, pictures, scorer)
    _write_sheet(folder / "inpaint.png", before_BCHW, own_BCHW, pictures, own, answer)

    def result(name: str, chosen: Sequence[int]) -> InpaintResult:
        units = face_units([own[i] for i in chosen], {base[i].key: base[i] for i in chosen})
        return InpaintResult(
            name, len(chosen), mean_of([pictures[i].masked_frac for i in chosen]),
            likeness_of(units, scorer.anchors.real.ceiling_faces,
                        scorer.anchors.likeness_problem(scorer.scoring)),
            mean_of([float(own[i].face is not None) for i in chosen]),
            *(_known_mean([column[i] for i in chosen]) for column in changes))

    by_size = sorted(range(len(pictures)), key=lambda i: -pictures[i].masked_frac)
    half = len(by_size) // 2
    results = [result("all pictures", by_size)]
    if half >= MIN_PICTURES and pictures[by_size[0]].masked_frac > pictures[by_size[-1]].masked_frac:
        results += [result("the nearer half", by_size[:half]), result("the farther half", by_size[-half:])]
    return results


def inpainting_base(config: InpaintConfig, resolution: int) -> InpaintingConfig | None:
    """None = the plain base."""
    if not config.num_pictures or config.base_model is None:
        return None
    return InpaintingConfig(name="file", path=config.base_model, resolution=resolution, download=False, vae=None,
                            tokenizer=None, prediction_type=None)


def _drawer(config: InpaintConfig, scorer: Scorer) -> Drawer:
    """Of the base that draws inside the masks."""
    own = inpainting_base(config, scorer.base.resolution)
    if own is None:
        return scorer.drawer
    from sweep.identity import base_identity
    from sweep.model.loading import load_base
    from sweep.network.targets import find_layers

    base = load_base(own, base_identity(own, scorer.results_dir), scorer.base.device)
    return Drawer(base, find_layers(base), scorer.scoring, scorer.results_dir, clip_skip=scorer.drawer.clip_skip,
                  max_token_length=scorer.drawer.max_token_length)


def _pictures(config: InpaintConfig, scorer: Scorer, drawer: Drawer) -> list[Picture]:
    """The base's own images of prompts that show the face, each prompt's first seed, with a mask over the largest
    face. drawer: whose base draws inside of it."""
    scoring = scorer.scoring
    cells: dict[int, Cell] = {}
    for cell in (cell for stage in STAGES for cell in cells_of(scoring, stage, scorer.dataset)):
        if cell.kind == "prompt" and scoring.prompts[cell.index].face:
            cells.setdefault(cell.index, cell)
    ordered = [cells[index] for index in sorted(cells)]
    images_BCHW = scorer.drawer.draw([Row(None, 0.0, cell.class_text, cell.seed) for cell in ordered],
                                     [""] * len(ordered))
    boxes = _boxes(images_BCHW, config.margin, scorer)
    found = [i for i, box in enumerate(boxes) if box is not None][:config.num_pictures]
    if len(found) < MIN_PICTURES:
        raise ScoringError(f"uses.inpaint: the base draws a face in {len(found)} of its {len(ordered)} pictures; "
                           f"inpainting needs at least {MIN_PICTURES}.")
    return [_picture(ordered[i], images_BCHW[i], box, scorer, drawer) for i in found if (box := boxes[i]) is not None]


def _boxes(images_BCHW: Tensor, margin: float, scorer: Scorer) -> list[Box | None]:
    """Of each image's largest face and some margin, widened to whole latents; None where there is no face, or nothing
    beside it. The middle of the image where the subject has none."""
    height, width = images_BCHW.shape[-2:]
    if scorer.backends.face is None:
        x, y = (side * (1 - _MIDDLE) / 2 for side in (width, height))
        return [_on_grid(x, y, width - x, height - y, scorer, height, width)] * len(images_BCHW)
    boxes: list[Box | None] = []
    for faces in scorer.backends.face.faces(images_BCHW):
        if not len(faces):
            boxes.append(None)
            continue
        x0, y0, x1, y1 = faces.boxes_F4[0].tolist()
        wide, high = margin * (x1 - x0), margin * (y1 - y0)
        box = _on_grid(x0 - wide, y0 - high, x1 + wide, y1 + high, scorer, height, width)
        boxes.append(box if (box[2] - box[0]) * (box[3] - box[1]) <= _MOST_MASKED * height * width else None)
    return boxes


def _on_grid(x0: float, y0: float, x1: float, y1: float, scorer: Scorer, height: int, width: int) -> Box:
    grid = scorer.base.vae_scale
    return (max(0, int(x0 // grid) * grid), max(0, int(y0 // grid) * grid),
            min(width, -int(-x1 // grid) * grid), min(height, -int(-y1 // grid) * grid))


def _picture(cell: Cell, image_CHW: Tensor, box: Box, scorer: Scorer, drawer: Drawer) -> Picture:
    # the picture is known by how it was drawn, which is not how the rest of it is drawn anew
    key = stable_hash(["inpaint", cell.class_text, cell.seed, list(box), scorer.base.identity,
                       to_tree(scorer.scoring.sampler)])
    return Picture(cell, image_CHW, box, known_picture(drawer.base, image_CHW, box, key))


def _looked_at(images_BCHW: Tensor, pictures: Sequence[Picture], scorer: Scorer) -> list[Measured]:
    """Each picture a unit of its own. Where likeness is of whole images, only the inside of the mask is looked at."""
    import torch

    if scorer.backends.face is None:
        size = images_BCHW.shape[-2:]
        images_BCHW = torch.cat([torch.nn.functional.interpolate(
            image[None, :, y0:y1, x0:x1], size=size, mode="bilinear", antialias=True)
            for image, (x0, y0, x1, y1) in zip(images_BCHW, (p.box for p in pictures), strict=True)])
    cells = [replace(p.cell, kind="bare", index=i) for i, p in enumerate(pictures)]
    return list(scorer.observer.look(images_BCHW, cells).images)


def _outside(images_BCHW: Tensor, before_BCHW: Tensor, pictures: Sequence[Picture], scorer: Scorer) -> list[float]:
    """Mean absolute difference per pixel outside each mask and the edge that it is decoded with."""
    changes = []
    edge = _SOFT_EDGE * scorer.base.vae_scale
    for after_CHW, picture, before_CHW in zip(images_BCHW, pictures, before_BCHW, strict=True):
        x0, y0, x1, y1 = picture.box
        difference_HW = (after_CHW - before_CHW).abs().mean(dim=0)
        is_rest_HW = difference_HW.new_ones(difference_HW.shape)
        is_rest_HW[max(0, y0 - edge):y1 + edge, max(0, x0 - edge):x1 + edge] = 0
        num = float(is_rest_HW.sum())
        changes.append(float((difference_HW * is_rest_HW).sum()) / num if num else float("nan"))
    return changes


def _write_sheet(path: Path, before_BCHW: Tensor, after_BCHW: Tensor, pictures: Sequence[Picture],
                 measured: Sequence[Measured], answer: Answer) -> None:
    """Each picture before and after, side by side."""
    import torch

    both = torch.stack([before_BCHW, after_BCHW], dim=1).flatten(0, 1)
    cells = [cell for p in pictures for cell in (replace(p.cell, text=p.cell.class_text), p.cell)]
    lines = [line for m in measured for line in ("before", "no face" if m.face is None else f"face {m.face:.2f}")]
    write_sheet(path, both, cells, lines, f"{answer.file} at {answer.at}: inpainted heads, before and after")


def _known_mean(values: Sequence[float]) -> float | None:
    mean = mean_of(values)
    return None if math.isnan(mean) else mean


def _shown(value: float | None) -> str:
    return "?" if value is None else f"{value:.3f}"
