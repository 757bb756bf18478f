"""The rendered pictures that the models are trained on, and what is said about them.

Rendered once into plain arrays beside the checkpoints, so that every stage reads the same pictures.
Legend: N pictures, C channels, H W pixels, L tokens, B a batch.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap

from sweep.pocket import world
from sweep.pocket.captions import Caption, caption_of
from sweep.pocket.render import Rendered, render
from sweep.pocket.world import ATTRIBUTES, NUM_NAMED_PEOPLE, People, Shots

CAPTIONS_PER_PICTURE = 3
CHUNK = 2048
ATTRIBUTE_NAMES = tuple(ATTRIBUTES)
Renderer = Callable[[People, Shots], Rendered]


@dataclass(slots=True)
class Pictures:
    """Arrays over N train pictures."""

    images_NCHW: np.ndarray
    """uint8, memory-mapped."""
    boxes_N4: torch.Tensor
    person_N: torch.Tensor
    """Index of the person among the train people."""
    people: People
    shots: Shots
    captions: list[list[Caption]]
    """CAPTIONS_PER_PICTURE for each picture."""

    def __len__(self) -> int:
        return len(self.person_N)

    def images(self, rows_B: torch.Tensor) -> torch.Tensor:
        """Float images in [0, 1] of these rows."""
        return as_floats(self.images_NCHW, rows_B)

    def attributes_NA(self) -> torch.Tensor:
        """Attribute indices of every picture, columns in the order of ATTRIBUTES."""
        return torch.stack([getattr(self.shots, name) for name in ATTRIBUTE_NAMES], dim=1)


def picture_plan(seed: int, pictures_per_person: int, more_of_named: int) -> tuple[torch.Tensor, People, Shots]:
    """Who is on each picture (shuffled), and the shots: a function of the arguments alone."""
    person_N = torch.arange(world.NUM_TRAIN_PEOPLE).repeat_interleave(pictures_per_person)
    named = torch.arange(NUM_NAMED_PEOPLE).repeat_interleave(more_of_named)
    person_N = torch.cat([person_N, named])
    person_N = person_N[torch.randperm(len(person_N), generator=torch.Generator().manual_seed(seed))]
    people = world.train_people()[person_N]
    return person_N, people, world.draw_shots(people, seed + 1)


def train_pictures(
    folder: Path, seed: int, pictures_per_person: int, more_of_named: int, draw: Renderer = render
) -> Pictures:
    """The train pictures; rendered by `draw` into `folder` unless they are already there."""
    plan = {"seed": seed, "pictures_per_person": pictures_per_person, "more_of_named": more_of_named}
    person_N, people, shots = picture_plan(**plan)
    done = folder / "pictures.json"
    if not done.is_file() or json.loads(done.read_text(encoding="utf-8")) != plan:
        folder.mkdir(parents=True, exist_ok=True)
        _render_to_disk(folder, people, shots, draw)
        done.write_text(json.dumps(plan), encoding="utf-8")
    rng = random.Random(seed)
    captions = [
        [caption_of(shots, row, rng, person) for _ in range(CAPTIONS_PER_PICTURE)]
        for row, person in enumerate(person_N.tolist())
    ]
    return Pictures(
        images_NCHW=np.load(folder / "images.npy", mmap_mode="r"),
        boxes_N4=torch.from_numpy(np.load(folder / "boxes.npy")),
        person_N=person_N,
        people=people,
        shots=shots,
        captions=captions,
    )


def _render_to_disk(folder: Path, people: People, shots: Shots, draw: Renderer) -> None:
    num = len(people)
    partial = folder / "images.partial.npy"
    images = open_memmap(partial, mode="w+", dtype=np.uint8, shape=(num, 3, 64, 64))
    boxes = np.zeros((num, 4), dtype=np.float32)
    for rows in torch.arange(num).split(CHUNK):
        rendered = draw(people[rows], shots[rows])
        images[rows.numpy()] = to_bytes(rendered.images_BCHW).numpy()
        boxes[rows.numpy()] = rendered.face_box_B4.numpy()
    images.flush()
    del images
    np.save(folder / "boxes.npy", boxes)
    # Last, in one go: another process may be reading the pictures of the same plan.
    partial.replace(folder / "images.npy")


def as_floats(images_NCHW: np.ndarray, rows_B: torch.Tensor) -> torch.Tensor:
    """These rows of uint8 images as floats in [0, 1]."""
    return torch.from_numpy(images_NCHW[rows_B.numpy()]).float() / 255


def to_bytes(images: torch.Tensor) -> torch.Tensor:
    """[0, 1] to uint8, rounded."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


def held_out_pictures(per_person: int, seed: int, photos_only: bool = True) -> tuple[torch.Tensor, People, Shots]:
    """Person index, people and shots of pictures of the held-out people; render them where they are needed."""
    person_N = torch.arange(world.NUM_HELD_OUT_PEOPLE).repeat_interleave(per_person)
    people = world.held_out_people()[person_N]
    return person_N, people, world.draw_shots(people, seed, photos_only=photos_only)
