"""Which training photo is nearest to an image, whole or as copies come: mirrored, cropped, recoloured.

Shapes: B images, R training photos, P width of a vector, W ways in which a photo is compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from sweep.evaluation.backends.interface import VectorBackend, squared_distances
from sweep.evaluation.settings import Copies

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 32  # images that the backend sees at once
CANDIDATES = 4  # pairs of photo and way whose crops are compared too: those that are nearest whole
# Further than so many copy distances from a whole photo, an image is no crop of it (a tenth off: 95 % below 4.3).
FAR = 5.0
CROPS = ((0.5, 0.5), (0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0))  # x, y along the slack: the middle and the corners
WHOLE = "whole"


@dataclass(frozen=True, slots=True)
class Nearest:
    """photo: index into the photos; way: "whole", or e.g. "mirrored", "recoloured, cropped"."""

    distance: float
    photo: int
    way: str


class TrainingPhotos:
    """The photos [R, C, H, W] among which copies are looked for."""

    def __init__(self, photos_RCHW: Tensor, backend: VectorBackend, copies: Copies):
        self.photos_RCHW, self.backend, self.copies = photos_RCHW, backend, copies
        self.ways = [(is_mirrored, is_evened) for is_evened in ((False, True) if copies.recoloured else (False,))
                     for is_mirrored in ((False, True) if copies.flips else (False,))]
        self.vectors_WRP = [self._vectors(_mirrored(photos_RCHW, way[0]), way[1]) for way in self.ways]
        self._crops = lru_cache(maxsize=32)(self._crop_vectors)

    def nearest(self, images_BCHW: Tensor, leave_out: Sequence[int] | None = None) -> list[Nearest]:
        """leave_out: for each image, the photo that it is not compared with."""
        import torch

        found: list[Nearest] = []
        for start in range(0, len(images_BCHW), CHUNK):
            span = slice(start, start + CHUNK)
            vectors = {is_evened: self._vectors(images_BCHW[span], is_evened) for is_evened in
                       dict.fromkeys(way[1] for way in self.ways)}
            distances_WBR = torch.stack([squared_distances(vectors[way[1]], photos_RP)
                                         for way, photos_RP in zip(self.ways, self.vectors_WRP, strict=True)])
            if leave_out is not None:
                for i, photo in enumerate(leave_out[span]):
                    distances_WBR[:, i, photo] = float("inf")
            found += [self._nearest(distances_WBR[:, i], {key: rows[i:i + 1] for key, rows in vectors.items()})
                      for i in range(distances_WBR.shape[1])]
        return found

    def _nearest(self, distances_WR: Tensor, vectors: dict[bool, Tensor]) -> Nearest:
        """The best whole photo, or a crop of one of the best few."""
        num_photos = distances_WR.shape[1]
        order = (distances_WR.flatten() * 1e4).round().argsort(stable=True)[:CANDIDATES].tolist()  # of equals: whole
        way, photo = self.ways[order[0] // num_photos], order[0] % num_photos
        best = Nearest(float(distances_WR.min()), photo, _words(way, is_cropped=False))
        if self.copies.crop_frac == 0 or best.distance < self.copies.copy_distance / 2:
            return best
        for place in order:
            if float(distances_WR.flatten()[place]) > FAR * self.copies.copy_distance:
                break
            way, photo = self.ways[place // num_photos], place % num_photos
            distance = float(squared_distances(vectors[way[1]], self._crops(photo, way)).min())
            if distance < best.distance:
                best = Nearest(distance, photo, _words(way, is_cropped=True))
        return best

    def _crop_vectors(self, photo: int, way: tuple[bool, bool]) -> Tensor:
        image_CHW = _mirrored(self.photos_RCHW[photo:photo + 1], way[0])
        return self._vectors(crops(image_CHW, self.copies.crop_frac), way[1])

    def _vectors(self, images_BCHW: Tensor, is_evened: bool) -> Tensor:
        import torch

        chunks = images_BCHW.split(CHUNK)
        return torch.cat([self.backend.vectors(evened(chunk) if is_evened else chunk) for chunk in chunks])


def crops(image_1CHW: Tensor, crop_frac: float) -> Tensor:
    """Crops that lack `crop_frac` of each side, scaled back to the whole size, [5, C, H, W]."""
    import torch
    import torch.nn.functional as F

    height, width = image_1CHW.shape[-2:]
    kept = 1 - crop_frac
    matrices = torch.tensor([[[kept, 0, crop_frac * (2 * x - 1)], [0, kept, crop_frac * (2 * y - 1)]]
                             for x, y in CROPS])
    grid = F.affine_grid(matrices, [len(matrices), image_1CHW.shape[1], height, width], align_corners=False)
    return F.grid_sample(image_1CHW.expand(len(matrices), -1, -1, -1), grid, align_corners=False,
                         padding_mode="border")


def evened(images_BCHW: Tensor) -> Tensor:
    """Each colour channel of each image at mean .5 and standard deviation .2: what a change of light or tint leaves."""
    mean = images_BCHW.mean(dim=(2, 3), keepdim=True)
    spread = images_BCHW.std(dim=(2, 3), keepdim=True)
    return ((images_BCHW - mean) / spread.clamp(min=0.02) * 0.2 + 0.5).clamp(0, 1)


def _mirrored(images_BCHW: Tensor, is_mirrored: bool) -> Tensor:
    return images_BCHW.flip(3) if is_mirrored else images_BCHW


def _words(way: tuple[bool, bool], *, is_cropped: bool) -> str:
    parts = [word for word, is_so in (("mirrored", way[0]), ("recoloured", way[1]), ("cropped", is_cropped)) if is_so]
    return ", ".join(parts) or WHOLE
