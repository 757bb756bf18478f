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
from sweep.data.dataset import Dataset
from sweep.evaluation.adherence import contrast_captions, probe
from sweep.evaluation.backends.interface import Backends, Faces, VectorBackend, squared_distances
from sweep.evaluation.burn import looks
from sweep.evaluation.cells import Cell
from sweep.evaluation.copies import TrainingPhotos
from sweep.evaluation.diversity import mean_pairwise_distance
from sweep.evaluation.keys import reference_photos
from sweep.evaluation.leak import without_faces
from sweep.evaluation.likeness import leave_one_out, mean_pairwise
from sweep.evaluation.memorisation import without_duplicates
from sweep.evaluation.references import duplicate_notes, face_notes, holdout_notes
from sweep.evaluation.settings import ScoringConfig

if TYPE_CHECKING:
    from torch import Tensor

    from sweep.model.base import Base

CHUNK = 32  # images that the backends see at once
_FLAT = 0.004  # standard deviation; an image whose pixels vary by less than one of 256 levels holds nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One image. A broken one (not finite, or one flat colour) has nothing else measured."""

    kind: str
    index: int
    seed: int
    is_broken: bool
    face: float | None  # mean cosine of the largest face to the reference faces; None = no face found
    clones: int  # further faces that are the subject's too
    clip: float  # cosine with the prompt, the trigger replaced by the class noun
    probes: Mapping[str, Mapping[str, float]]  # attribute -> value -> probability
    nearest: float  # distance to the nearest training photo
    nearest_photo: int  # which one, an index into the dataset's photos
    nearest_way: str  # how it is nearest: "whole", "mirrored", "cropped", "recoloured" ...
    context: float  # mean cosine to the training photos, faces covered in both: clothes and background
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
    unseen_nearest: tuple[float, ...]  # distance of held-out photos (or each training photo) to the nearest (other) one
    trained_nearest: tuple[float, ...]  # distance of each training photo to the nearest other one
    trained_context: tuple[float, ...]  # mean cosine of each training photo to the other ones, faces covered
    notes: tuple[str, ...]  # what is wrong with the photos, in words


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
    """Looks at images through the backends, beside one dataset's photos at the base's resolution.

    base: None where images are looked at that no known base has drawn; the photos are then taken at `resolution`.
    """

    def __init__(self, scoring: ScoringConfig, backends: Backends, dataset: Dataset, base: Base | None,
                 resolution: int = 512):
        self.scoring, self.backends, self.dataset, self.base = scoring, backends, dataset, base
        self.resolution = resolution if base is None else base.resolution
        self.attributes = list(scoring.attributes)
        self.values = {name: list(attribute.values) for name, attribute in scoring.attributes.items()}
        self._probe_texts = {name: self._probe_features(name) for name in self.attributes}
        photos_RCHW = self._pixels([photo.path for photo in dataset.photos])
        vectors_RP = self._vectors(photos_RCHW, self.backends.copies)
        self.kept = without_duplicates(squared_distances(vectors_RP, vectors_RP), scoring.copies.duplicate_distance)
        self.photos = TrainingPhotos(photos_RCHW[self.kept], backends.copies, scoring.copies)
        self.context_RD = self._context(self.photos.photos_RCHW)
        self.references_RCHW = self._pixels(reference_photos(dataset)) if dataset.holdout else photos_RCHW[self.kept]
        self.references_R = self._subjects(self.references_RCHW)
        self.reference_faces_RD = _stacked([faces_FD[0] for faces_FD in self.references_R if len(faces_FD)])

    def look(self, images_BCHW: Tensor, cells: Sequence[Cell]) -> MeasuredSet:
        """Measure images that were drawn for these cells."""
        import torch

        is_broken_B = [not bool(torch.isfinite(image).all()) or is_flat(image) for image in images_BCHW]
        clean_BCHW = torch.nan_to_num(images_BCHW, nan=0.5)
        rows: list[Measured] = []
        for start in range(0, len(cells), CHUNK):
            span = slice(start, start + CHUNK)
            rows += self._look_at(clean_BCHW[span], cells[span], is_broken_B[span])
        return MeasuredSet(images=tuple(rows), variety=self._variety(clean_BCHW, cells, is_broken_B))

    def real_photos(self) -> RealPhotos:
        """Measure the reference photos, and how near unseen photos come to the training photos."""
        features_RD = self.backends.prompt.image_features(self.references_RCHW)
        prompts = [prompt.text.replace("{subject}", self.scoring.class_subject)
                   .replace("{class_noun}", self.dataset.class_noun) for prompt in self.scoring.prompts]
        cosines_RT = features_RD @ self.backends.prompt.text_features(prompts).T
        probes = self._probe(features_RD)
        num_kept = len(self.kept)
        trained = self.photos.nearest(self.photos.photos_RCHW, range(num_kept)) if num_kept > 1 else []
        unseen = self.photos.nearest(self.references_RCHW) if self.dataset.holdout else trained
        num = len(probes)
        return RealPhotos(
            num_faces=len(self.reference_faces_RD),
            duplicates=tuple(i for i in range(len(self.dataset.photos)) if i not in set(self.kept)),
            ceiling_faces=tuple(self._ceiling()),
            probes={name: {v: sum(row[name][v] for row in probes) / num for v in self.values[name]}
                    for name in self.attributes},
            clip=dict(enumerate(cosines_RT.mean(dim=0).tolist())),
            unseen_nearest=tuple(near.distance for near in unseen),
            trained_nearest=tuple(near.distance for near in trained),
            trained_context=tuple(leave_one_out(self.context_RD, self.context_RD)),
            notes=tuple(self._notes([near.distance for near in unseen])))

    def _notes(self, unseen: Sequence[float]) -> list[str]:
        """What is wrong with the photos. unseen: the held-out photos' distances, if there are any."""
        paths = [photo.path for photo in self.dataset.photos]
        duplicates = [i for i in range(len(paths)) if i not in set(self.kept)]
        notes = duplicate_notes(paths, duplicates)
        if self.dataset.holdout:
            notes += holdout_notes(self.dataset.holdout, unseen, self.scoring.copies.duplicate_distance)
        if self.backends.face is not None:
            everyone = [*self.dataset.holdout, *paths]
            faces_R = [faces.embeddings_FD for faces in self._faces(self._pixels(everyone))]
            notes += face_notes(everyone, faces_R, self._same_face)
        return notes

    @property
    def _same_face(self) -> float:
        if self.scoring.same_face is not None:
            return self.scoring.same_face
        return self.backends.face.SAME_FACE if self.backends.face is not None else 1.0

    def _ceiling(self) -> list[float]:
        """Likeness of the reference photos after the base's autoencoder, which no image of a LoRA gets around.

        (The pocket's draws 64 pixels: likeness of the held-out photos .94 before it, .75 after.)
        """
        import torch

        if self.base is None:
            return leave_one_out(self.reference_faces_RD, self.reference_faces_RD)
        drawn = [self.base.decode(self.base.encode_moments(chunk * 2 - 1)[:, :self.base.latent_channels]
                                  .to(self.base.device) * self.base.scaling_factor)
                 for chunk in self.references_RCHW.split(CHUNK)]
        drawn_R = self._subjects(torch.cat(drawn))
        both = [(new_FD[0], old_FD[0]) for new_FD, old_FD in zip(drawn_R, self.references_R, strict=True)
                if len(new_FD) and len(old_FD)]
        return leave_one_out(_stacked([new for new, _ in both]), _stacked([old for _, old in both]))

    def _look_at(self, images_BCHW: Tensor, cells: Sequence[Cell], is_broken_B: Sequence[bool]) -> list[Measured]:
        faces_B = self._faces(images_BCHW)
        similarity_B = [mean_pairwise(subject_FD, self.reference_faces_RD).tolist()
                        for subject_FD in self._subjects(images_BCHW, faces_B)]
        features_BD = self.backends.prompt.image_features(images_BCHW)
        texts = sorted({cell.class_text for cell in cells})
        texts_TD = self.backends.prompt.text_features(texts)
        clip_B = [float(features_BD[i] @ texts_TD[texts.index(cell.class_text)]) for i, cell in enumerate(cells)]
        near_B = self.photos.nearest(images_BCHW)
        context_B = mean_pairwise(self._context(images_BCHW, faces_B), self.context_RD).tolist()
        probes_B, looks_B = self._probe(features_BD), looks(images_BCHW)
        same = self._same_face
        return [Measured(kind=cell.kind, index=cell.index, seed=cell.seed, is_broken=is_broken_B[i],
                         face=similarity_B[i][0] if similarity_B[i] and not is_broken_B[i] else None,
                         clones=sum(similarity >= same for similarity in similarity_B[i][1:]), clip=clip_B[i],
                         probes=probes_B[i], nearest=near_B[i].distance, nearest_photo=self.kept[near_B[i].photo],
                         nearest_way=near_B[i].way, context=context_B[i], look=looks_B[i])
                for i, cell in enumerate(cells)]

    def _faces(self, images_BCHW: Tensor) -> list[Faces]:
        """None in any image if the subject has no face to look for."""
        return self.backends.face.faces(images_BCHW) if self.backends.face is not None else []

    def _subjects(self, images_BCHW: Tensor, faces_B: Sequence[Faces] | None = None) -> list[Tensor]:
        """What likeness is measured on, of each image [F, D]: its faces, or the whole image as one."""
        if self.backends.subject is not None:
            return list(self.backends.subject.image_features(images_BCHW)[:, None])
        return [faces.embeddings_FD for faces in (self._faces(images_BCHW) if faces_B is None else faces_B)]

    def _context(self, images_BCHW: Tensor, faces_B: Sequence[Faces] | None = None) -> Tensor:
        """Features [B, D] of clothes and background: the images with their faces covered."""
        faces_B = self._faces(images_BCHW) if faces_B is None else faces_B
        covered_BCHW = without_faces(images_BCHW, [faces.boxes_F4 for faces in faces_B]) if faces_B else images_BCHW
        return self.backends.prompt.image_features(covered_BCHW)

    def _probe_features(self, name: str) -> Tensor:
        """Text features of the attribute's values [V, D], each the normalised mean over its captions."""
        import torch

        captions = contrast_captions(self.scoring.attributes[name], self.dataset.class_noun)
        means = [self.backends.prompt.text_features(captions[value]).mean(dim=0) for value in self.values[name]]
        return torch.nn.functional.normalize(torch.stack(means), dim=1)

    def _probe(self, features_BD: Tensor) -> list[dict[str, dict[str, float]]]:
        by_name = {name: probe(features_BD, self._probe_texts[name], self.backends.prompt.logit_scale).tolist()
                   for name in self.attributes}
        return [{name: dict(zip(self.values[name], by_name[name][i], strict=True)) for name in self.attributes}
                for i in range(len(features_BD))]

    def _pixels(self, paths: Sequence[Path]) -> Tensor:
        import torch

        return torch.stack([load_pixels(path, self.resolution) for path in paths])

    def _vectors(self, images_BCHW: Tensor, backend: VectorBackend) -> Tensor:
        import torch

        return torch.cat([backend.vectors(chunk) for chunk in images_BCHW.split(CHUNK)])

    def _variety(self, images_BCHW: Tensor, cells: Sequence[Cell], is_broken_B: Sequence[bool]) -> dict[int, float]:
        """Mean pairwise LPIPS over the seeds of each prompt that has several whole images."""
        variety = {}
        for index in sorted({cell.index for cell in cells if cell.kind == "prompt"}):
            rows = [i for i, cell in enumerate(cells)
                    if cell.kind == "prompt" and cell.index == index and not is_broken_B[i]]
            if len(rows) > 1:
                vectors_BP = self._vectors(images_BCHW[rows], self.backends.perceptual)
                distance = mean_pairwise_distance(squared_distances(vectors_BP, vectors_BP))
                assert distance is not None
                variety[index] = distance
        return variety


def is_flat(image_CHW: Tensor) -> bool:
    """Grey or coloured: each channel by itself holds one value."""
    return float(image_CHW.flatten(1).std(dim=1).max()) < _FLAT


def _stacked(rows_D: Sequence[Tensor]) -> Tensor:
    """[R, D]; [0, 1] of nothing."""
    import torch

    return torch.stack(list(rows_D)) if rows_D else torch.zeros(0, 1)
