"""Which training photo is nearest to an image, whole or as copies come: mirrored, cropped, recoloured.

Whole photos are compared by the backend's vectors. Of the many crops only those are that a thumbnail points to.
Shapes: B images, R training photos, P width of a vector, W ways in which a photo is compared, N crops of all photos,
K crops that one image is compared with, T pixels of a thumbnail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.evaluation.backends.interface import VectorBackend, squared_distances
from sweep.evaluation.settings import Copies

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 32  # images that the backend sees at once
CANDIDATES = 3  # crops that an image is compared with by the backend
STEPS = (0.5, 0.0, 0.25, 0.75, 1.0)
CROPS = tuple((x, y) for y in STEPS for x in STEPS)  # x, y along the slack, the middle first
SMALL, THUMBNAIL = 64, 16  # pixels of a side: what crops are cut from for their thumbnails, and those
# Mean squared difference of thumbnails from which on no crop is a copy. Crops of the pocket's photos, tinted, after its
# autoencoder: at most .002; other photos of the same person: 1 % below .006; the same clothes and scene: median .007.
FAR = 0.006
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
        self._sides = (False, True) if copies.flips else (False,)
        self._tints = (False, True) if copies.recoloured else (False,)
        self.ways = [(is_mirrored, is_evened) for is_evened in self._tints for is_mirrored in self._sides]
        self.vectors_WRP = [self._vectors(_mirrored(photos_RCHW, way[0]), way[1]) for way in self.ways]
        self._crops = [(photo, is_mirrored, place) for photo in range(len(photos_RCHW))
                       for is_mirrored in self._sides for place in range(len(CROPS))] if copies.crop_frac else []
        self._thumbnails_NT = self._crop_thumbnails() if self._crops else None

    def nearest(self, images_BCHW: Tensor, leave_out: Sequence[int] | None = None) -> list[Nearest]:
        """leave_out: for each image, the photo that it is not compared with."""
        found: list[Nearest] = []
        for start in range(0, len(images_BCHW), CHUNK):
            span = slice(start, start + CHUNK)
            found += self._nearest(images_BCHW[span], None if leave_out is None else leave_out[span])
        return found

    def _nearest(self, images_BCHW: Tensor, leave_out: Sequence[int] | None) -> list[Nearest]:
        import torch

        vectors = {is_evened: self._vectors(images_BCHW, is_evened) for is_evened in self._tints}
        distances_WBR = torch.stack([squared_distances(vectors[way[1]], photos_RP)
                                     for way, photos_RP in zip(self.ways, self.vectors_WRP, strict=True)])
        if leave_out is not None:
            distances_WBR[:, torch.arange(len(images_BCHW)), torch.tensor(list(leave_out))] = float("inf")
        found = [self._best_whole(distances_WBR[:, i]) for i in range(len(images_BCHW))]
        # nearer than this, a crop adds nothing to what is known
        unsure = [i for i, best in enumerate(found) if best.distance >= self.copies.copy_distance / 2]
        picks = self._likely_crops(images_BCHW, unsure, leave_out) if self._crops and unsure else {}
        if picks:
            rows = list(picks)
            near = self._best_crops({key: all_rows[rows] for key, all_rows in vectors.items()}, list(picks.values()))
            for i, crop in zip(rows, near, strict=True):
                found[i] = min(found[i], crop, key=lambda one: one.distance)
        return found

    def _best_whole(self, distances_WR: Tensor) -> Nearest:
        place = int((distances_WR.flatten() * 1e4).round().argsort(stable=True)[0])  # of equals: the plainest way
        way, photo = divmod(place, distances_WR.shape[1])
        return Nearest(float(distances_WR.min()), photo, _words(self.ways[way], is_cropped=False))

    def _likely_crops(self, images_BCHW: Tensor, rows: Sequence[int], leave_out: Sequence[int] | None
                      ) -> dict[int, list[int]]:
        """Image -> the crops whose thumbnails are nearest, for the images that are near enough to any."""
        import torch

        assert self._thumbnails_NT is not None
        far_BN = squared_distances(_thumbnails(images_BCHW[list(rows)]), self._thumbnails_NT)
        if leave_out is not None:
            photos_N = torch.tensor([photo for photo, _, _ in self._crops])
            far_BN[photos_N == torch.tensor([leave_out[i] for i in rows])[:, None]] = float("inf")
        nearest = far_BN.topk(min(CANDIDATES, far_BN.shape[1]), largest=False)
        limit = FAR * self._thumbnails_NT.shape[1]
        return {i: picks for i, picks, far in zip(rows, nearest.indices.tolist(), nearest.values.tolist(), strict=True)
                if far[0] < limit}

    def _best_crops(self, vectors: dict[bool, Tensor], picks_BK: Sequence[Sequence[int]]) -> list[Nearest]:
        """The nearest of each image's crops. vectors: of the images, evened or not."""
        import torch

        needed = sorted({n for picks in picks_BK for n in picks})
        cut_NCHW = torch.cat([crop_of(_mirrored(self.photos_RCHW[photo:photo + 1], is_mirrored),
                                      self.copies.crop_frac, CROPS[place])
                              for photo, is_mirrored, place in (self._crops[n] for n in needed)])
        distances = {is_evened: squared_distances(rows, self._vectors(cut_NCHW, is_evened))
                     for is_evened, rows in vectors.items()}
        found = []
        for i, picks in enumerate(picks_BK):
            distance, n, is_evened = min((float(distances[is_evened][i, needed.index(n)]), n, is_evened)
                                         for n in picks for is_evened in self._tints)
            photo, is_mirrored, _ = self._crops[n]
            found.append(Nearest(distance, photo, _words((is_mirrored, is_evened), is_cropped=True)))
        return found

    def _crop_thumbnails(self) -> Tensor:
        import torch
        import torch.nn.functional as F

        small_RCHW = F.interpolate(self.photos_RCHW, (SMALL, SMALL), mode="area")
        return torch.cat([_thumbnails(crop_of(_mirrored(small_RCHW[photo:photo + 1], is_mirrored),
                                              self.copies.crop_frac, CROPS[place]))
                          for photo, is_mirrored, place in self._crops])

    def _vectors(self, images_BCHW: Tensor, is_evened: bool) -> Tensor:
        import torch

        chunks = images_BCHW.split(CHUNK)
        return torch.cat([self.backend.vectors(evened(chunk) if is_evened else chunk) for chunk in chunks])


def crop_of(image_1CHW: Tensor, crop_frac: float, place: tuple[float, float]) -> Tensor:
    """What lacks `crop_frac` of each side, scaled back to the whole size, [1, C, H, W]; place: x, y along the slack."""
    import torch
    import torch.nn.functional as F

    kept = 1 - crop_frac
    x, y = place
    matrix = torch.tensor([[[kept, 0, crop_frac * (2 * x - 1)], [0, kept, crop_frac * (2 * y - 1)]]])
    grid = F.affine_grid(matrix, list(image_1CHW.shape), align_corners=False)
    return F.grid_sample(image_1CHW, grid, align_corners=False, padding_mode="border")


def evened(images_BCHW: Tensor) -> Tensor:
    """Each colour channel of each image at mean .5 and standard deviation .2: what a change of light or tint leaves."""
    mean = images_BCHW.mean(dim=(2, 3), keepdim=True)
    spread = images_BCHW.std(dim=(2, 3), keepdim=True)
    return ((images_BCHW - mean) / spread.clamp(min=0.02) * 0.2 + 0.5).clamp(0, 1)


def _thumbnails(images_BCHW: Tensor) -> Tensor:
    """Small and evened, [B, T]."""
    import torch.nn.functional as F

    return F.interpolate(evened(images_BCHW), (THUMBNAIL, THUMBNAIL), mode="area").flatten(1)


def _mirrored(images_BCHW: Tensor, is_mirrored: bool) -> Tensor:
    return images_BCHW.flip(3) if is_mirrored else images_BCHW


def _words(way: tuple[bool, bool], *, is_cropped: bool) -> str:
    parts = [word for word, is_so in (("mirrored", way[0]), ("recoloured", way[1]), ("cropped", is_cropped)) if is_so]
    return ", ".join(parts) or WHOLE
