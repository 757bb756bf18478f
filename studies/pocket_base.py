"""What the pocket's denoiser draws, as scoring has it draw: how it follows prompts, whose likeness can be told.

Legend: B pictures, C channels, H W pixels, D width of an embedding, P people, R photos of one person.
"""

from __future__ import annotations

import functools
import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image
from torch import Tensor

from studies.estimates import Figure, accuracy, mean, share, spread
from sweep.command_line import CONF_DIR
from sweep.comparison import jackknife_interval
from sweep.evaluation.backends.pocket import PocketFace, load_face
from sweep.evaluation.generate import Row, generate
from sweep.evaluation.likeness import dprime, leave_one_out, mean_pairwise
from sweep.evaluation.settings import ScoringConfig
from sweep.files import sha256_of
from sweep.model.base import Base, BaseModelConfig
from sweep.model.loading import load_base
from sweep.pocket import SUBJECT_DIR, models
from sweep.pocket.captions import Caption, attribute_words, describe
from sweep.pocket.render import render
from sweep.pocket.subject import subject_shots
from sweep.pocket.world import (
    ATTRIBUTES,
    NUM_HELD_OUT_PEOPLE,
    People,
    Shots,
    draw_people,
    draw_shots,
    held_out_people,
)
from sweep.schema import build

NUM_PROMPTS = 500
NUM_CHOICES = 100
SEEDS_PER_PROMPT = 4
PHOTOS_PER_PERSON = 8
PROMPT_SEED = 26
UNSEEN_SEED = 910_000  # of people beside the train people and the held-out ones
ALWAYS_SAID = dict.fromkeys(("hair_colour", "clothes_colour", "clothes_type", "expression", "scene", "framing"), True)


@dataclass(frozen=True, slots=True)
class Studio:
    """A weight set and how scoring uses it."""

    base: Base
    face: PocketFace
    scoring: ScoringConfig

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """A picture per prompt and seed by the base alone, B x C x H x W, with the sampler that scoring uses."""
        rows = [Row(None, 0.0, prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]
        return generate(self.base, [], rows, self.scoring.sampler, resolution=self.base.resolution,
                        batch_size=self.scoring.batch_size)  # fmt: skip

    def faces(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings B x D, and where a face was found, B."""
        faces_B = [faces for part in images_BCHW.split(100) for faces in self.face.faces(part)]
        width = max(faces.embeddings_FD.shape[1] for faces in faces_B)
        embeddings = [faces.embeddings_FD[0] if len(faces) else torch.zeros(width) for faces in faces_B]
        return torch.stack(embeddings), torch.tensor([len(faces) > 0 for faces in faces_B])

    def round_trip(self, images_BCHW: Tensor) -> Tensor:
        """Through the base's autoencoder, by the posterior's mean."""
        latents = [self.base.encode_moments(part * 2 - 1)[:, : self.base.latent_channels]
                   for part in images_BCHW.split(50)]  # fmt: skip
        return torch.cat([self.base.decode(part * self.base.scaling_factor) for part in latents])


def open_studio(folder: Path, name: str = "pocket") -> Studio:
    """The base `name` (pocket or pocket_rv) of the weight set in `folder` under conf/scoring/pocket.yaml."""
    tree = yaml.safe_load((CONF_DIR / "scoring" / "pocket.yaml").read_text(encoding="utf-8"))
    config = BaseModelConfig(name=name, path=str(folder / "sd"), resolution=64)
    base = load_base(config, sha256_of(folder / "weights.json"))
    scoring = build(ScoringConfig, tree, "scoring")
    return Studio(base, load_face(str(folder), scoring.face_confidence), scoring)


def unseen_pictures(
    num: int, seed: int, per_person: int = 1, photos_only: bool = False
) -> tuple[Tensor, People, Shots]:
    """Person index, people and shots of `num` pictures of people whom no model was trained on."""
    person_N = torch.arange(math.ceil(num / per_person)).repeat_interleave(per_person)[:num]
    people = draw_people(int(person_N[-1]) + 1, UNSEEN_SEED + seed)[person_N]
    return person_N, people, draw_shots(people, seed, photos_only=photos_only)


def full_prompts(num: int) -> tuple[list[Caption], Shots]:
    """Captions that ask for nearly everything at once, each of another unseen person, and the shots behind them."""
    _person_N, _people, shots = unseen_pictures(num, PROMPT_SEED)
    rng = random.Random(PROMPT_SEED)
    return [describe(attribute_words(shots, row), rng, say=ALWAYS_SAID) for row in range(num)], shots


def adherence_figures(studio: Studio, folder: Path, num_prompts: int) -> tuple[dict[str, Figure], Tensor, list[str]]:
    """What the judge finds of each attribute that a prompt names; the pictures and their prompts."""
    prompts, shots = full_prompts(num_prompts)
    texts = [prompt.text for prompt in prompts]
    images = studio.draw(texts, range(num_prompts))
    found = models.load_judge(folder / "judge.safetensors").attributes(images)
    figures = {}
    for name in ATTRIBUTES:
        named = torch.tensor([name in prompt.mentioned for prompt in prompts])
        figures[f"base_{name}"] = accuracy(found[name].argmax(dim=1)[named], getattr(shots, name)[named])
    figures["base_face_confidence"] = mean(studio.face.model.locate(images)[1])
    if num_prompts >= NUM_CHOICES:
        _, people, _ = unseen_pictures(num_prompts, PROMPT_SEED)
        figures["base_retrieval"] = retrieval(folder, images, texts)
        figures["renders_retrieval"] = retrieval(folder, render(people, shots).images_BCHW, texts)
    return figures, images, texts


def retrieval(folder: Path, images_BCHW: Tensor, prompts: Sequence[str]) -> Figure:
    """How often CLIP finds a picture's own prompt the nearest of NUM_CHOICES; what is left over of the last is cut."""
    clip, tokenizer = models.load_clip(folder / "clip")
    similarity_BB = models.clip_image_features(clip, images_BCHW) @ models.clip_text_features(
        clip, tokenizer, list(prompts)).T
    hits = [similarity_BB[rows][:, rows].argmax(dim=1) == torch.arange(len(rows))
            for rows in torch.arange(len(prompts)).split(NUM_CHOICES) if len(rows) == NUM_CHOICES]
    return share(torch.cat(hits))


@dataclass(frozen=True, slots=True)
class Photos:
    """Real photos of one person, as scoring refers to them."""

    faces_RD: Tensor
    ceiling: list[float]
    """Likeness to the other photos after the autoencoder."""

    @classmethod
    def of(cls, studio: Studio, images_RCHW: Tensor) -> Photos:
        """From pictures; those whose face is not found count for nothing, as in scoring."""
        return next(cls.of_several(studio, images_RCHW, len(images_RCHW)))

    @classmethod
    def of_several(cls, studio: Studio, images_BCHW: Tensor, per_person: int) -> Iterator[Photos]:
        """Of one person after the other."""
        faces_BD, found_B = studio.faces(images_BCHW)
        drawn_BD, drawn_found_B = studio.faces(studio.round_trip(images_BCHW))
        both_B = found_B & drawn_found_B
        for rows in torch.arange(len(images_BCHW)).split(per_person):
            kept = rows[both_B[rows]]
            yield cls(faces_BD[rows[found_B[rows]]], leave_one_out(drawn_BD[kept], faces_BD[kept]))

    def renders(self) -> list[float]:
        """Likeness to the other photos before the autoencoder."""
        return leave_one_out(self.faces_RD, self.faces_RD)


@dataclass(frozen=True, slots=True)
class Drawn:
    """Faces that the base draws by itself on scoring's face prompts."""

    faces_BD: Tensor
    prompt_B: Tensor

    @classmethod
    def by(cls, studio: Studio, noun: str) -> Drawn:
        """Asking for "a man" or "a woman"."""
        subject = studio.scoring.class_subject.replace("{class_noun}", noun)
        texts = [prompt.text.replace("{subject}", subject) for prompt in studio.scoring.prompts if prompt.face]
        prompt_B = torch.arange(len(texts)).repeat_interleave(SEEDS_PER_PROMPT)
        seeds = list(range(SEEDS_PER_PROMPT)) * len(texts)
        faces_BD, found_B = studio.faces(studio.draw([texts[i] for i in prompt_B.tolist()], seeds))
        return cls(faces_BD[found_B], prompt_B[found_B])

    def floor(self, photos: Photos) -> Tensor:
        """Likeness to a person of each of these faces, B."""
        return mean_pairwise(self.faces_BD, photos.faces_RD)


def likeness_figures(studio: Studio) -> tuple[dict[str, Figure], dict[str, Figure]]:
    """The likeness scale of the default subject, and of each held-out person by sex as its distribution."""
    drawn = {sex: Drawn.by(studio, sex) for sex in ATTRIBUTES["sex"]}
    people = held_out_people()
    everybody = list(Photos.of_several(studio, photos_of_everybody(), PHOTOS_PER_PERSON))
    distributions: dict[str, Figure] = {}
    for index, sex in enumerate(ATTRIBUTES["sex"]):
        chosen = [everybody[person] for person in (people.sex_N == index).nonzero()[:, 0].tolist()]
        floors = [drawn[sex].floor(photos) for photos in chosen]
        columns = {
            "floor": [float(floor_B.mean()) for floor_B in floors],
            "ceiling": [float(np.mean(photos.ceiling)) for photos in chosen],
            "renders": [float(np.mean(photos.renders())) for photos in chosen],
            "dprime": [dprime(floor_B.tolist(), p.ceiling) for floor_B, p in zip(floors, chosen, strict=True)],
        }
        distributions |= {f"likeness_{name}_{sex}": spread(torch.tensor(values)) for name, values in columns.items()}
        least = studio.scoring.validity.min_dprime
        distributions[f"likeness_dprime_{sex}"]["measurable"] = share(torch.tensor(columns["dprime"]) >= least)
    lost = torch.tensor([float(np.mean(photos.renders()) - np.mean(photos.ceiling)) for photos in everybody])
    return subject_figures(studio, drawn) | {"vae_likeness_loss": mean(lost)}, distributions


def photos_of_everybody() -> Tensor:
    """Photos of each held-out person like those that a subject's folder holds out."""
    pictures = []
    for person in range(NUM_HELD_OUT_PEOPLE):
        _, shots = subject_shots(person, 1, num_holdout=PHOTOS_PER_PERSON)
        pictures.append(render(held_out_people()[torch.full((PHOTOS_PER_PERSON,), person)], shots).images_BCHW)
    return torch.cat(pictures)


def subject_figures(studio: Studio, drawn: dict[str, Drawn]) -> dict[str, Figure]:
    """d' of the default subject, its floor and its ceiling; the interval of d' is a jackknife over prompts."""
    facts = json.loads((SUBJECT_DIR / "subject.json").read_text(encoding="utf-8"))
    photos = Photos.of(studio, read_photos(SUBJECT_DIR / "holdout"))
    own = drawn[facts["sex"]]
    floor_B = own.floor(photos)
    distance = functools.partial(dprime, ceiling=photos.ceiling)
    replicates = [distance(floor_B[own.prompt_B != prompt].tolist()) for prompt in own.prompt_B.unique()]
    interval = jackknife_interval(distance(floor_B.tolist()), replicates)
    assert interval.low is not None and interval.high is not None, "conf/scoring has many face prompts"
    return {
        "subject_dprime": {"value": round(distance(floor_B.tolist()), 2), "low": round(interval.low, 2),
                           "high": round(interval.high, 2), "n": interval.n},
        "subject_floor": mean(floor_B, own.prompt_B),
        "subject_ceiling": mean(torch.tensor(photos.ceiling)),
    }  # fmt: skip


def read_photos(folder: Path) -> Tensor:
    """The PNGs of a folder in [0, 1], R x C x H x W."""
    pixels = [np.array(Image.open(path).convert("RGB")) for path in sorted(folder.glob("*.png"))]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
