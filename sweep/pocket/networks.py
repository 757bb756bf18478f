"""The small convolutional networks around the pocket base: face recogniser, perceptual backbone, attribute judge.

Legend: B images, C channels, H W pixels, D width of an embedding; images are float in [0, 1].
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import nn

from sweep.pocket.world import ATTRIBUTES

IMAGE_SIZE = 64
FACE_CROP = 40
"""Side in pixels of the resampled face that the recogniser sees."""
EMBEDDING_WIDTH = 128


def to_image_size(images_BCHW: torch.Tensor) -> torch.Tensor:
    """Resample to the side that all of these networks were trained at."""
    if images_BCHW.shape[-2:] == (IMAGE_SIZE, IMAGE_SIZE):
        return images_BCHW
    return F.interpolate(images_BCHW, (IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", antialias=True, align_corners=False)


def _conv(num_in: int, num_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(num_in, num_out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(num_out), nn.ReLU()
    )


class Residual(nn.Module):
    """Two 3x3 convolutions beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _conv(width, width)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return F.relu(x_BCHW + self.second(self.first(x_BCHW)))


class Judge(nn.Module):
    """Reads every attribute of a picture; only measures the other models, scores never use it."""

    def __init__(self, widths: tuple[int, ...] = (32, 64, 96, 128)) -> None:
        super().__init__()
        first, second, third, fourth = widths
        self.trunk = nn.Sequential(
            _conv(3, first),
            _conv(first, second, 2),
            Residual(second),
            _conv(second, third, 2),
            Residual(third),
            _conv(third, fourth, 2),
            Residual(fourth),
        )
        self.neck = nn.Sequential(nn.Conv2d(fourth, 48, 1), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1))
        num_features = 48 * (IMAGE_SIZE // 8) ** 2
        self.heads = nn.ModuleDict({name: nn.Linear(num_features, len(values)) for name, values in ATTRIBUTES.items()})

    def forward(self, images_BCHW: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits, B x number of values, for each name in ATTRIBUTES."""
        features = self.neck(self.trunk(to_image_size(images_BCHW) * 2 - 1))
        return {name: head(features) for name, head in self.heads.items()}

    @torch.no_grad()
    def attributes(self, images_BCHW: torch.Tensor) -> dict[str, torch.Tensor]:
        """Probabilities, B x number of values, for each name in ATTRIBUTES (order of values as there)."""
        return {name: logits.float().softmax(dim=1) for name, logits in self(images_BCHW).items()}


class FaceRecogniser(nn.Module):
    """Finds the face, then embeds it alone: hair, clothes and scene are cropped and masked away."""

    def __init__(self) -> None:
        super().__init__()
        self.locator = nn.Sequential(
            _conv(3, 16, 2),
            _conv(16, 32),
            _conv(32, 64, 2),
            Residual(64),
            _conv(64, 64, 2),
            nn.Conv2d(64, 24, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(24 * (IMAGE_SIZE // 8) ** 2, 128),
            nn.ReLU(),
            nn.Linear(128, 5),
        )
        self.trunk = nn.Sequential(
            _conv(3, 32),
            _conv(32, 64, 2),
            Residual(64),
            _conv(64, 128, 2),
            Residual(128),
            _conv(128, 160, 2),
        )
        self.embedding = nn.Linear(160 * (FACE_CROP // 8) ** 2, EMBEDDING_WIDTH)
        axis = torch.linspace(-1, 1, FACE_CROP)
        radius_HW = (axis[None, :] ** 2 + axis[:, None] ** 2).sqrt()
        # Soft rim: the crop is the face's bounding box, so what is outside its ellipse is hair or background.
        self.register_buffer("mask_HW", ((1.0 - radius_HW) / 0.08 + 0.5).clamp(0, 1), persistent=False)

    def locate_raw(self, images_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Boxes (centre x, centre y, width, height as fractions of the picture), B x 4, and logits, B."""
        output = self.locator(to_image_size(images_BCHW) * 2 - 1).float()
        return output[:, :4].sigmoid(), output[:, 4]

    @torch.no_grad()
    def locate(self, images_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Face boxes B x 4 (x0, y0, x1, y1 in pixels of the given images) and confidence B in [0, 1]."""
        raw_B4, logit_B = self.locate_raw(images_BCHW)
        size = torch.tensor([images_BCHW.shape[-1], images_BCHW.shape[-2]], device=raw_B4.device)
        centre, half = raw_B4[:, :2] * size, raw_B4[:, 2:] * size / 2
        return torch.cat([centre - half, centre + half], dim=1), logit_B.sigmoid()

    def crop(self, images_BCHW: torch.Tensor, boxes_B4: torch.Tensor) -> torch.Tensor:
        """The face in each pixel box, resampled to FACE_CROP and masked by an ellipse: B x 3 x F x F."""
        height, width = images_BCHW.shape[-2:]
        size = torch.tensor([width, height], device=boxes_B4.device, dtype=boxes_B4.dtype)
        centre = (boxes_B4[:, :2] + boxes_B4[:, 2:]) / size - 1
        half = ((boxes_B4[:, 2:] - boxes_B4[:, :2]) / size).clamp(min=1e-3)
        matrix_B23 = torch.zeros(len(boxes_B4), 2, 3, device=boxes_B4.device, dtype=images_BCHW.dtype)
        matrix_B23[:, 0, 0], matrix_B23[:, 1, 1], matrix_B23[:, :, 2] = half[:, 0], half[:, 1], centre
        grid = F.affine_grid(matrix_B23, [len(boxes_B4), 3, FACE_CROP, FACE_CROP], align_corners=False)
        faces = F.grid_sample(images_BCHW, grid, align_corners=False, padding_mode="border")
        mask_HW: torch.Tensor = self.get_buffer("mask_HW")
        return (faces - 0.5) * mask_HW + 0.5

    def embed_crops(self, faces_BCHW: torch.Tensor) -> torch.Tensor:
        """Unit-norm embeddings B x D of what `crop` returned."""
        features = self.trunk(faces_BCHW * 2 - 1).flatten(1)
        return F.normalize(self.embedding(features).float(), dim=1)

    def embed(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Unit-norm embeddings B x D of the face that `locate` finds (look at its confidence too)."""
        boxes_B4, _ = self.locate(images_BCHW)
        return self.embed_crops(self.crop(images_BCHW, boxes_B4))


class PerceptualBackbone(nn.Module):
    """Feature maps for a perceptual distance (Zhang et al. 2018, LPIPS) between 64x64 pictures."""

    WIDTHS = (32, 64, 96, 128)

    def __init__(self) -> None:
        super().__init__()
        widths = (3, *self.WIDTHS)
        self.stages = nn.ModuleList(
            nn.Sequential(_conv(num_in, num_out, 1 if stage == 0 else 2), _conv(num_out, num_out))
            for stage, (num_in, num_out) in enumerate(itertools.pairwise(widths))
        )
        self.register_buffer("stage_weights", torch.ones(len(self.WIDTHS)))

    def forward(self, images_BCHW: torch.Tensor) -> list[torch.Tensor]:
        """One feature map per stage, at 64, 32, 16 and 8 pixels."""
        maps = []
        x_BCHW = to_image_size(images_BCHW) * 2 - 1
        for stage in self.stages:
            x_BCHW = stage(x_BCHW)
            maps.append(x_BCHW)
        return maps

    def stage_distances(self, a_BCHW: torch.Tensor, b_BCHW: torch.Tensor) -> torch.Tensor:
        """Eq. 1 of LPIPS with unit weights: the mean over the map of ||a_hat - b_hat||^2; B x stages."""
        distances = []
        for map_a, map_b in zip(self(a_BCHW), self(b_BCHW), strict=True):
            difference = F.normalize(map_a, dim=1, eps=1e-6) - F.normalize(map_b, dim=1, eps=1e-6)
            distances.append(difference.square().sum(dim=1).mean(dim=(1, 2)))
        return torch.stack(distances, dim=1)

    def lpips_distance(self, a_BCHW: torch.Tensor, b_BCHW: torch.Tensor) -> torch.Tensor:
        """Perceptual distance B: 0 for equal pictures, 1 on average for two unrelated ones of the world."""
        return self.stage_distances(a_BCHW, b_BCHW) @ self.get_buffer("stage_weights")
