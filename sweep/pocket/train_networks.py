"""Stages `judge`, `face` and `perceptual`: the small convolutional networks.

Legend: B pictures, C channels, H W pixels, D width of an embedding, A attributes, P identity parameters.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from sweep.pocket import world
from sweep.pocket.dataset import ATTRIBUTE_NAMES, Pictures, as_floats
from sweep.pocket.fit import fit
from sweep.pocket.networks import EMBEDDING_WIDTH, FaceRecogniser, Judge, PerceptualBackbone
from sweep.pocket.recipe import DECODED_FRAC, Stage
from sweep.pocket.render import render
from sweep.pocket.world import ATTRIBUTES, IDENTITY_PARAMETERS

PICTURES_PER_PERSON_IN_BATCH = 4
TEMPERATURE = 0.1


def soften(images_BCHW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """What a VAE and a sampler do to a picture: some blur, some noise, some shift of brightness, per picture."""
    num = len(images_BCHW)
    blurred = F.avg_pool2d(F.pad(images_BCHW, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    amount = torch.rand(num, 1, 1, 1, generator=generator) * 1.2 - 0.4
    mixed = images_BCHW + amount.clamp(0, 0.8) * (blurred - images_BCHW)
    noise = torch.randn(mixed.shape, generator=generator)
    level = (torch.rand(num, 1, 1, 1, generator=generator) * 0.08 - 0.02).clamp(min=0)
    gain = 1 + 0.1 * (torch.rand(num, 1, 1, 1, generator=generator) - 0.5)
    return ((mixed + noise * level - 0.5) * gain + 0.5).clamp(0, 1)


def _attribute_loss(logits: dict[str, torch.Tensor], targets_BA: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
    losses, figures = [], {}
    for name, target in zip(ATTRIBUTE_NAMES, targets_BA.T, strict=True):
        losses.append(F.cross_entropy(logits[name].float(), target, label_smoothing=0.02))
        figures[name] = (logits[name].argmax(dim=1) == target).float().mean().item()
    return torch.stack(losses).mean(), figures


def train_judge(pictures: Pictures, stage: Stage, folder: Path) -> Judge:
    """Cross entropy on every attribute of softened pictures."""
    torch.manual_seed(2)
    judge = Judge()
    attributes_NA = pictures.attributes_NA()

    def loss_function(generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        rows = torch.randint(len(pictures), (stage.batch_size,), generator=generator)
        return _attribute_loss(judge(soften(pictures.images(rows), generator)), attributes_NA[rows])

    fit("judge", stage, judge, loss_function, folder)
    return judge


def _empty_scenes(num: int, generator: torch.Generator) -> torch.Tensor:
    """Pictures without a face: bare scenes, noise, and what a broken sampler draws."""
    seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
    people = world.draw_people(num, seed)
    scenes = render(people, world.draw_shots(people, seed + 1), torch.zeros(num, dtype=torch.bool)).images_BCHW
    third = num // 3
    scenes[:third] = torch.rand(third, 3, 64, 64, generator=generator)
    blobs = torch.randn(third, 3, 8, 8, generator=generator) * 0.5 + 0.5
    scenes[third : 2 * third] = F.interpolate(blobs, (64, 64), mode="bilinear").clamp(0, 1)
    return scenes


class TrainFace(nn.Module):
    """The recogniser with the regression head that only its training needs."""

    def __init__(self) -> None:
        super().__init__()
        self.face = FaceRecogniser()
        self.regression = nn.Linear(EMBEDDING_WIDTH, len(IDENTITY_PARAMETERS))


def train_face(pictures: Pictures, decoded_path: Path, stage: Stage, folder: Path) -> FaceRecogniser:
    """Locate by regression, recognise by supervised contrast (Khosla et al. 2020) and identity regression.

    A share of the pictures is seen as the autoencoder gives them back, which is how every drawn face is seen: a person
    should look alike on both.
    """
    torch.manual_seed(3)
    module = TrainFace()
    decoded_NCHW = np.load(decoded_path, mmap_mode="r")
    is_photo = pictures.shots.style == 0
    rows_of = _rows_by_person(pictures, is_photo)
    facial_P = torch.tensor([not name.startswith(("hair", "fringe", "parting", "neck", "shoulder", "ear"))
                             for name in IDENTITY_PARAMETERS]).float()  # fmt: skip

    def loss_function(generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        num_people = stage.batch_size // PICTURES_PER_PERSON_IN_BATCH
        chosen = torch.randperm(len(rows_of), generator=generator)[:num_people]
        slots = torch.randint(rows_of.shape[1], (num_people, PICTURES_PER_PERSON_IN_BATCH), generator=generator)
        rows = rows_of[chosen].gather(1, slots).flatten()
        is_decoded = torch.rand(len(rows), generator=generator) < DECODED_FRAC
        images = torch.where(is_decoded[:, None, None, None], as_floats(decoded_NCHW, rows), pictures.images(rows))
        images, boxes = soften(images, generator), pictures.boxes_N4[rows]
        embeddings = module.face.embed_crops(module.face.crop(images, _jitter(boxes, generator)))
        contrast, hit = _supervised_contrast(embeddings, pictures.person_N[rows], rows)
        predicted = module.regression(embeddings * EMBEDDING_WIDTH**0.5).float()
        gap = (predicted - pictures.people.params_NP[rows]).square() * facial_P
        empty = _empty_scenes(stage.batch_size // 4, generator)
        located, logit = module.face.locate_raw(torch.cat([images, empty]))
        target = torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], dim=1) / 64
        box_error = (located[: len(images)] - target).abs().mean()
        is_face = torch.cat([torch.ones(len(images)), torch.zeros(len(empty))])
        presence = F.binary_cross_entropy_with_logits(logit, is_face)
        loss = contrast + gap.mean() * 10 + box_error * 10 + presence
        return loss, {"nearest_is_same": hit, "box_error_px": box_error.item() * 64, "presence": presence.item(),
                      "regression": gap.mean().item()}  # fmt: skip

    fit("face", stage, module, loss_function, folder)
    return module.face


def _rows_by_person(pictures: Pictures, keep_N: torch.Tensor) -> torch.Tensor:
    """People x 8: rows of kept pictures of each person (repeated where there are fewer)."""
    rows: dict[int, list[int]] = {}
    for row in keep_N.nonzero()[:, 0].tolist():
        rows.setdefault(int(pictures.person_N[row]), []).append(row)
    return torch.tensor([(own * 8)[:8] for own in rows.values() if len(own) >= 4])


def _jitter(boxes_B4: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The locator's own error, so that the embedding bears it: 4 % of the box's size."""
    size = (boxes_B4[:, 2:] - boxes_B4[:, :2]).repeat(1, 2)
    return boxes_B4 + size * torch.randn(boxes_B4.shape, generator=generator) * 0.04


def _supervised_contrast(
    embeddings_BD: torch.Tensor, person_B: torch.Tensor, rows_B: torch.Tensor
) -> tuple[torch.Tensor, float]:
    """Eq. 2 of Khosla et al. 2020; the same picture drawn twice counts for nothing."""
    similarity = embeddings_BD @ embeddings_BD.T / TEMPERATURE
    itself = rows_B[:, None] == rows_B[None]
    similarity = similarity.masked_fill(itself, -1e4)
    positive = (person_B[:, None] == person_B[None]) & ~itself
    log_p = similarity - similarity.logsumexp(dim=1, keepdim=True)
    num = positive.sum(dim=1)
    loss = -(log_p * positive).sum(dim=1)[num > 0] / num[num > 0]
    nearest = person_B[similarity.argmax(dim=1)]
    return loss.mean(), (nearest == person_B).float().mean().item()


class TrainPerceptual(nn.Module):
    """The backbone under heads that need both what a picture shows and who is on it."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = PerceptualBackbone()
        width = PerceptualBackbone.WIDTHS[-1] * 16
        self.heads = nn.ModuleDict({name: nn.Linear(width, len(values)) for name, values in ATTRIBUTES.items()})
        self.regression = nn.Linear(width, len(IDENTITY_PARAMETERS))


def train_perceptual(pictures: Pictures, stage: Stage, folder: Path) -> PerceptualBackbone:
    """Features that tell attributes and people apart; `calibrate` then weights the stages."""
    torch.manual_seed(4)
    module = TrainPerceptual()
    attributes_NA = pictures.attributes_NA()

    def loss_function(generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        rows = torch.randint(len(pictures), (stage.batch_size,), generator=generator)
        last = module.backbone(soften(pictures.images(rows), generator))[-1]
        features = F.avg_pool2d(last, 2).flatten(1)
        loss, figures = _attribute_loss({n: head(features) for n, head in module.heads.items()}, attributes_NA[rows])
        gap = (module.regression(features).float() - pictures.people.params_NP[rows]).square().mean()
        return loss + gap * 5, {"regression": gap.item(), "scene": figures["scene"], "hair": figures["hair_colour"]}

    fit("perceptual", stage, module, loss_function, folder)
    return module.backbone


@torch.no_grad()
def calibrate(backbone: PerceptualBackbone, num: int = 512) -> None:
    """Set the stages' weights so that each gives an equal share of 1 between two unrelated pictures."""
    backbone.eval()
    people = world.draw_people(2 * num, seed=8)
    first, second = render(people, world.draw_shots(people, seed=9)).images_BCHW.split(num)
    stage_means = backbone.stage_distances(first, second).mean(dim=0)
    backbone.get_buffer("stage_weights").copy_(1 / (stage_means * len(stage_means)))
