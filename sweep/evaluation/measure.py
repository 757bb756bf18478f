"""From images to numbers: one `Measured` per image, which holds all that scores are computed from.

Shapes: B images, C H W pixels in [0, 1], R reference photos, V values of an attribute, D P widths of embeddings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.data.cache import load_pixels
from sweep.data.folder import Dataset
from sweep.evaluation.adherence import contrast_captions, probe
from sweep.evaluation.backends import PocketBackends, perceptual_distances
from sweep.evaluation.burn import looks
from sweep.evaluation.cells import Cell
from sweep.evaluation.diversity import mean_pairwise_distance
from sweep.evaluation.likeness import leave_one_out, mean_pairwise
from sweep.evaluation.memorisation import nearest, nearest_other, without_duplicates
from sweep.evaluation.settings import ScoringConfig, reference_photos

if TYPE_CHECKING:
    from torch import Tensor

    from sweep.model.base import Base

CHUNK = 32  # images that the backends see at once
_FLAT = 0.004  # an image whose pixels vary less than one grey level holds nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One image. A broken one (not finite, or one flat colour) has nothing else measured."""

    kind: str
    index: int
    seed: int
    is_broken: bool
    face: float | None  # mean cosine to the reference faces; None = no face found
    clip: float  # cosine with the prompt, the trigger replaced by the class noun
    probes: Mapping[str, Mapping[str, float]]  # attribute -> value -> probability
    nearest: float  # LPIPS to the nearest training photo
    nearest_photo: int  # which one, an index into the dataset's photos
    look: Mapping[str, float]

    @property
    def key(self) -> tuple[str, int, int]:
        return self.kind, self.index, self.seed


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredSet:
    """The images of one file at one strength on the cells of one stage."""

    images: tuple[Measured, ...]
    variety: Mapping[int, float]  # prompt -> mean pairwise LPIPS over its seeds, where it has several


@dataclass(frozen=True, slots=True, kw_only=True)
class RealPhotos:
    """What the anchors need to know of real photos; the reference ones are those of `reference_photos`."""

    num_faces: int  # reference photos with a face
    duplicates: tuple[int, ...]  # training photos left out as near-duplicates
    ceiling_faces: tuple[float, ...]  # likeness of each reference photo, as the base can draw it, to the others
    probes: Mapping[str, Mapping[str, float]]  # mean over the reference photos
    clip: Mapping[int, float]  # prompt -> mean cosine of the reference photos
    unseen_nearest: tuple[float, ...]  # LPIPS of held-out photos (or each training photo) to the nearest (other) one
    trained_nearest: tuple[float, ...]  # LPIPS of each training photo to the nearest other one


def set_from_json(tree: Mapping[str, Any]) -> MeasuredSet:
    return MeasuredSet(images=tuple(Measured(**row) for row in tree["images"]),
                       variety={int(k): v for k, v in tree["variety"].items()})


def set_to_json(measured: MeasuredSet) -> dict[str, Any]:
    return {"images": [dataclasses.asdict(row) for row in measured.images],
            "variety": {str(k): v for k, v in measured.variety.items()}}


def real_from_json(tree: Mapping[str, Any]) -> RealPhotos:
    return RealPhotos(**{**tree, **{k: tuple(v) for k, v in tree.items() if isinstance(v, list)},
                         "clip": {int(k): v for k, v in tree["clip"].items()}})


class Observer:
    """Looks at images through the backends, beside one dataset's photos at the base's resolution."""

    def __init__(self, scoring: ScoringConfig, backends: PocketBackends, dataset: Dataset, base: Base):
        self.scoring, self.backends, self.dataset, self.base = scoring, backends, dataset, base
        self.attributes = list(scoring.attributes)
        self.values = {name: list(attribute.values) for name, attribute in scoring.attributes.items()}
        self._probe_texts = {name: self._probe_features(name) for name in self.attributes}
        photos_RCHW = self._pixels([photo.path for photo in dataset.photos])
        vectors_RP = self._vectors(photos_RCHW)
        self.kept = without_duplicates(perceptual_distances(vectors_RP, vectors_RP), scoring.copies.duplicate_distance)
        self.vectors_RP = vectors_RP[self.kept]
        self.references_RCHW = self._pixels(reference_photos(dataset)) if dataset.holdout else photos_RCHW[self.kept]
        self.faces_RD, self.found_R = backends.faces(self.references_RCHW, scoring.face_confidence)
        self.reference_faces_RD = self.faces_RD[self.found_R]

    def look(self, images_BCHW: Tensor, cells: Sequence[Cell]) -> MeasuredSet:
        """Measure images that were drawn for these cells."""
        import torch

        is_broken_B = [not bool(torch.isfinite(image).all()) or float(image.std()) < _FLAT for image in images_BCHW]
        clean_BCHW = torch.nan_to_num(images_BCHW, nan=0.5)
        rows: list[Measured] = []
        vectors = []
        for start in range(0, len(cells), CHUNK):
            span = slice(start, start + CHUNK)
            vectors_BP = self._vectors(clean_BCHW[span])
            rows += self._look_at(clean_BCHW[span], vectors_BP, cells[span], is_broken_B[span])
            vectors.append(vectors_BP)
        return MeasuredSet(images=tuple(rows), variety=_variety(torch.cat(vectors), cells, is_broken_B))

    def real_photos(self) -> RealPhotos:
        """Measure the reference photos, and how near unseen photos come to the training photos."""
        features_RD = self.backends.image_features(self.references_RCHW)
        prompts = [prompt.text.replace("{subject}", self.scoring.class_subject)
                   .replace("{class_noun}", self.dataset.class_noun) for prompt in self.scoring.prompts]
        cosines_RT = features_RD @ self.backends.text_features(prompts).T
        probes = self._probe(features_RD)
        trained_nearest = nearest_other(perceptual_distances(self.vectors_RP, self.vectors_RP))
        unseen = trained_nearest
        if self.dataset.holdout:
            unseen = nearest(perceptual_distances(self._vectors(self.references_RCHW), self.vectors_RP))[0]
        num = len(probes)
        return RealPhotos(
            num_faces=len(self.reference_faces_RD),
            duplicates=tuple(i for i in range(len(self.dataset.photos)) if i not in set(self.kept)),
            ceiling_faces=tuple(self._ceiling()),
            probes={name: {v: sum(row[name][v] for row in probes) / num for v in self.values[name]}
                    for name in self.attributes},
            clip=dict(enumerate(cosines_RT.mean(dim=0).tolist())),
            unseen_nearest=tuple(unseen), trained_nearest=tuple(trained_nearest))

    def _ceiling(self) -> list[float]:
        """Likeness of the reference photos after the base's autoencoder, which no image of a LoRA gets around.

        (The pocket's draws 64 pixels: likeness of the held-out photos .94 before it, .75 after.)
        """
        import torch

        drawn = [self.base.decode(self.base.encode_moments(chunk * 2 - 1)[:, :self.base.latent_channels]
                                  .to(self.base.device) * self.base.scaling_factor)
                 for chunk in self.references_RCHW.split(CHUNK)]
        faces_RD, found_R = self.backends.faces(torch.cat(drawn), self.scoring.face_confidence)
        both_R = found_R & self.found_R
        return leave_one_out(faces_RD[both_R], self.faces_RD[both_R])

    def _look_at(self, images_BCHW: Tensor, vectors_BP: Tensor, cells: Sequence[Cell],
                 is_broken_B: Sequence[bool]) -> list[Measured]:
        faces_BD, found_B = self.backends.faces(images_BCHW, self.scoring.face_confidence)
        similarity_B = mean_pairwise(faces_BD, self.reference_faces_RD).tolist()
        features_BD = self.backends.image_features(images_BCHW)
        texts = sorted({cell.class_text for cell in cells})
        texts_TD = self.backends.text_features(texts)
        clip_B = [float(features_BD[i] @ texts_TD[texts.index(cell.class_text)]) for i, cell in enumerate(cells)]
        near_B, photo_B = nearest(perceptual_distances(vectors_BP, self.vectors_RP))
        probes_B, looks_B = self._probe(features_BD), looks(images_BCHW)
        return [Measured(kind=cell.kind, index=cell.index, seed=cell.seed, is_broken=is_broken_B[i],
                         face=similarity_B[i] if bool(found_B[i]) and not is_broken_B[i] else None, clip=clip_B[i],
                         probes=probes_B[i], nearest=near_B[i], nearest_photo=self.kept[photo_B[i]], look=looks_B[i])
                for i, cell in enumerate(cells)]

    def _probe_features(self, name: str) -> Tensor:
        """Text features of the attribute's values [V, D], each the normalised mean over its captions."""
        import torch

        captions = contrast_captions(self.scoring.attributes[name], self.dataset.class_noun)
        means = [self.backends.text_features(captions[value]).mean(dim=0) for value in self.values[name]]
        return torch.nn.functional.normalize(torch.stack(means), dim=1)

    def _probe(self, features_BD: Tensor) -> list[dict[str, dict[str, float]]]:
        by_name = {name: probe(features_BD, self._probe_texts[name], self.backends.logit_scale).tolist()
                   for name in self.attributes}
        return [{name: dict(zip(self.values[name], by_name[name][i], strict=True)) for name in self.attributes}
                for i in range(len(features_BD))]

    def _pixels(self, paths: Sequence[Path]) -> Tensor:
        import torch

        return torch.stack([load_pixels(path, self.base.resolution) for path in paths])

    def _vectors(self, images_BCHW: Tensor) -> Tensor:
        import torch

        return torch.cat([self.backends.perceptual_vectors(chunk) for chunk in images_BCHW.split(CHUNK)])


def _variety(vectors_BP: Tensor, cells: Sequence[Cell], is_broken_B: Sequence[bool]) -> dict[int, float]:
    """Mean pairwise LPIPS over the seeds of each prompt that has several whole images."""
    variety = {}
    for index in sorted({cell.index for cell in cells if cell.kind == "prompt"}):
        rows = [i for i, cell in enumerate(cells)
                if cell.kind == "prompt" and cell.index == index and not is_broken_B[i]]
        distance = mean_pairwise_distance(perceptual_distances(vectors_BP[rows], vectors_BP[rows]))
        if distance is not None:
            variety[index] = distance
    return variety
