"""Images whose truth is known: the pocket renderer in the place of a LoRA that draws what it is told to.

Every image goes through the base's autoencoder and eight bits, as a drawn one does.
Shapes: B images, C H W pixels in [0, 1], R photos.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
import yaml
from torch import Tensor

from sweep.command_line import CONF_DIR
from sweep.data.folder import read_dataset
from sweep.data.settings import DatasetConfig
from sweep.evaluation.cells import Cell, cells_of
from sweep.evaluation.copies import crop_of
from sweep.evaluation.gallery import quantised
from sweep.evaluation.score import Judgement, judge
from sweep.evaluation.scorer import Scorer
from sweep.evaluation.settings import ScoringConfig
from sweep.model.base import Base
from sweep.network.targets import find_targets
from sweep.pocket.captions import EXPRESSION_PHRASES, FRAMING_PHRASES, SCENE_PHRASES
from sweep.pocket.render import render
from sweep.pocket.subject import subject_shots, write_subject
from sweep.pocket.world import ATTRIBUTES, People, Shots, draw_shots, held_out_people
from sweep.schema import build

SWAPPED = ("hair_colour", "clothes_colour", "clothes_type", "scene", "expression")
COPIES = ("whole", "mirrored", "cropped", "recoloured")
STAGE = "confirm"


@dataclass(frozen=True, slots=True)
class Truth:
    """One subject, its photos, the scores that it is measured by, and the shots of those photos."""

    identity: int
    scorer: Scorer
    cells: Sequence[Cell]
    train: Shots
    clothes: tuple[str, str] | None

    @property
    def photos_RCHW(self) -> Tensor:
        return self.scorer.observer.photos.photos_RCHW

    def judge(self, images_BCHW: Tensor, cells: Sequence[Cell] | None = None) -> Judgement:
        """As if a LoRA had drawn these images for the cells."""
        measured = self.scorer.observer.look(images_BCHW, self.cells if cells is None else cells)
        return judge(measured, self.scorer.anchors, self.scorer.scoring, STAGE)

    def drawn(self, images_BCHW: Tensor) -> Tensor:
        """Through the autoencoder and eight bits."""
        base = self.scorer.base
        with torch.no_grad():
            latents = [base.encode_moments(part * 2 - 1)[:, :base.latent_channels] for part in images_BCHW.split(50)]
            return quantised(torch.cat([base.decode(part * base.scaling_factor) for part in latents]))

    def show(self, people: People, shots: Shots) -> Tensor:
        return self.drawn(render(people, shots).images_BCHW)


def truth(base: Base, scoring: ScoringConfig, identity: int, folder: Path, *, num_photos: int = 25,
          clothes: tuple[str, str] | None = None) -> Truth:
    """Photos of held-out person `identity` in `folder`, and the anchors beside them. clothes: those of all photos."""
    name = f"{identity}-{clothes[0] if clothes else 'varied'}"
    photos = folder / "photos" / name
    write_subject(identity, photos, num_photos, clothes=clothes)
    config = build(DatasetConfig, _folder_settings(photos))
    dataset = read_dataset(config, trigger=None, class_noun=None, repeats=None)
    scorer = Scorer(base, find_targets(base), scoring, dataset, folder)
    cells = [cell for cell in cells_of(scoring, STAGE, dataset) if cell.kind == "prompt"]
    return Truth(identity, scorer, cells, subject_shots(identity, num_photos, clothes)[0], clothes)


def _folder_settings(photos: Path) -> dict[str, object]:
    tree: dict[str, object] = yaml.safe_load((CONF_DIR / "dataset" / "folder.yaml").read_text(encoding="utf-8"))
    return {**tree, "dir": str(photos / "train"), "holdout_dir": str(photos / "holdout")}


def person(identity: int, num: int) -> People:
    """The same one in every row."""
    return held_out_people()[torch.full((num,), identity)]


def between(identity: int, stranger: int, frac: float, num: int) -> People:
    """Someone who has `frac` of the subject; sex and hair are the subject's."""
    subject, other = person(identity, num), person(stranger, num)
    return People(subject.params_NP * frac + other.params_NP * (1 - frac), subject.sex_N, subject.natural_hair_N)


def strangers(identity: int, num: int) -> list[int]:
    """Held-out people of the subject's sex, the first so many."""
    everyone = held_out_people()
    same = (everyone.sex_N == everyone.sex_N[identity]).nonzero()[:, 0].tolist()
    return [index for index in same if index != identity][:num]


def asked_for(cells: Sequence[Cell], people: People, seed: int) -> Shots:
    """Shots that show what each cell's prompt says, and what it leaves open as photos usually are."""
    shots = draw_shots(people, seed, photos_only=True)
    shots.hair_colour = people.natural_hair_N.clone()
    shots.glasses.zero_()
    shots.hat.zero_()
    for row, cell in enumerate(cells):
        for name, value in words_of(cell.class_text).items():
            getattr(shots, name)[row] = ATTRIBUTES[name].index(value)
    return shots


def words_of(prompt: str) -> dict[str, str]:
    """What a prompt of conf/scoring/pocket.yaml says: attribute -> value.

    >>> words_of("sketch of a man wearing a red suit, on a beach")
    {'style': 'sketch', 'clothes_colour': 'red', 'clothes_type': 'suit', 'scene': 'beach'}
    """
    said = {"style": next((style for style in ATTRIBUTES["style"] if prompt.startswith(style)), "photo")}
    if found := re.search(r"with (\w+) hair", prompt):
        said["hair_colour"] = found[1]
    types = "|".join(ATTRIBUTES["clothes_type"])
    if found := re.search(rf"an? (\w+) ({types})", prompt):
        said |= {"clothes_colour": found[1], "clothes_type": found[2]}
    phrases = {"scene": SCENE_PHRASES, "framing": FRAMING_PHRASES, "expression": EXPRESSION_PHRASES}
    phrases |= {name: {value: (value,) for value in ATTRIBUTES[name][1:]} for name in ("glasses", "hat")}
    for name, values in phrases.items():
        for value, texts in values.items():
            if any(re.search(rf"\b{text}\b", prompt) for text in texts):
                said[name] = value
    return said


def swapped(shots: Shots, seed: int, also: Sequence[str] = ()) -> Shots:
    """Every attribute of SWAPPED another one, glasses on or off. also: "hat", "framing", which hide the face or make it
    small. The pose is kept; no sunglasses, which hide the eyes, and no other style, where likeness is not measured."""
    generator = torch.Generator().manual_seed(seed)
    changed = {}
    for name in (*SWAPPED, *also):
        values = getattr(shots, name)
        step = torch.randint(1, len(ATTRIBUTES[name]), values.shape, generator=generator)
        changed[name] = (values + step) % len(ATTRIBUTES[name])
    glasses = torch.tensor([1, 0, 0])[shots.glasses]  # none, glasses, sunglasses
    return replace(shots, **changed, glasses=glasses, noise_seed=shots.noise_seed + 1)


def disobeying(shots: Shots, share: float, seed: int) -> Shots:
    """So many of the images show another hair colour, other clothes and no glasses, in another scene."""
    generator = torch.Generator().manual_seed(seed)
    other = swapped(shots, seed)
    other.glasses = torch.zeros_like(other.glasses)
    return mixed(shots, other, share, generator)


def mixed(shots: Shots, other: Shots, share: float, generator: torch.Generator) -> Shots:
    """`share` of the rows from the second."""
    is_other = torch.zeros(len(shots), dtype=torch.bool)
    is_other[torch.randperm(len(shots), generator=generator)[:round(share * len(shots))]] = True
    return Shots(**{f.name: torch.where(is_other.view(-1, *[1] * (getattr(shots, f.name).dim() - 1)),
                                        getattr(other, f.name), getattr(shots, f.name)) for f in fields(Shots)})


def in_the_photos_place(train: Shots, num: int, seed: int) -> Shots:
    """The photos' hair, clothes and scenes again, in other poses, light and details."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.arange(num) % len(train)
    again = train[rows]
    return replace(again, pose=torch.rand(num, 6, generator=generator) * 2 - 1,
                   light=torch.rand(num, 4, generator=generator) * 2 - 1,
                   noise_seed=torch.randint(2**31 - 1, (num,), generator=generator))


def copied(photos_RCHW: Tensor, num: int, way: str, seed: int) -> Tensor:
    """Copies [num, C, H, W] of the photos as `way` of COPIES says; crops lack a tenth, anywhere."""
    generator = torch.Generator().manual_seed(seed)
    copies = photos_RCHW[torch.randint(len(photos_RCHW), (num,), generator=generator)]
    if way == "mirrored":
        return copies.flip(3)
    if way == "cropped":
        places = torch.rand(num, 2, generator=generator).tolist()
        return torch.cat([crop_of(copy[None], 0.1, (x, y)) for copy, (x, y) in zip(copies, places, strict=True)])
    if way == "recoloured":
        gains = 0.8 + 0.4 * torch.rand(num, 3, 1, 1, generator=generator)
        return (copies * gains).clamp(0, 1)
    assert way == "whole", way
    return copies
