"""How people and shots look: 64x64 pictures with their ground truth, in batches, from nothing but the tensors.

Signed-distance shapes are composited back to front; the same people and shots always give the same pictures.
Legend: B pictures, C channels, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from sweep.pocket import portrait
from sweep.pocket.canvas import SIZE, Canvas, per_pixel, random_details
from sweep.pocket.clothing import paint_body
from sweep.pocket.scenes import paint_scenes
from sweep.pocket.world import People, Shots

BATCH = 32
"""Pictures per batch: a batch's planes then stay in a core's cache."""


@dataclass(slots=True)
class Rendered:
    """Pictures and what is true about them."""

    images_BCHW: torch.Tensor
    """Float in [0, 1]."""
    head_mask_BHW: torch.Tensor
    """Coverage of face, ears, hair and hat."""
    face_mask_BHW: torch.Tensor
    """Coverage of the face's outline (hair over the forehead included)."""
    face_box_B4: torch.Tensor
    """x0, y0, x1, y1 of the face's outline in pixels, unclipped; zeros without a person."""


def render(people: People, shots: Shots, has_person: torch.Tensor | None = None) -> Rendered:
    """Render row i of `people` in row i of `shots`; `has_person` (B, bool) leaves bare scenes where False."""
    parts = []
    for rows in torch.arange(len(people)).split(BATCH):
        kept = None if has_person is None else has_person[rows]
        parts.append(_render_batch(people[rows], shots[rows], kept))
    return Rendered(
        images_BCHW=torch.cat([part.images_BCHW for part in parts]),
        head_mask_BHW=torch.cat([part.head_mask_BHW for part in parts]),
        face_mask_BHW=torch.cat([part.face_mask_BHW for part in parts]),
        face_box_B4=torch.cat([part.face_box_B4 for part in parts]),
    )


def _render_batch(people: People, shots: Shots, has_person: torch.Tensor | None) -> Rendered:
    canvas = Canvas(len(people))
    details = random_details(shots.noise_seed, 9)
    paint_scenes(canvas, shots.scene, details[:, :8])
    background = None if has_person is None else canvas.rgb.clone()
    head = portrait.place_heads(canvas, people, shots)
    paint_body(canvas, head, shots)
    behind = portrait.hair_behind(head)
    canvas.paint(behind, head.hair * 0.88)
    ears = portrait.paint_ears(canvas, head)
    face = head.inside(portrait.face_shape(head))
    canvas.paint(face, head.skin)
    _shade_face(canvas, head, face, shots.light[:, 2])
    portrait.paint_skin_marks(canvas, head, face)
    portrait.paint_nose(canvas, head)
    portrait.paint_beard_and_mouth(canvas, head, face)
    eyes = portrait.paint_eyes(canvas, head)
    front = portrait.hair_in_front(head)
    canvas.paint(front, head.hair)
    portrait.paint_hair_shine(canvas, head, torch.maximum(front, behind * (1 - face)))
    hats = portrait.paint_hats(canvas, head, shots.hat, details[:, 8])
    portrait.paint_glasses(canvas, head, shots.glasses, eyes)
    head_mask = torch.stack([behind, ears, face, front, hats]).amax(dim=0)
    box = _face_box(head)
    if has_person is not None and background is not None:
        kept = has_person.float()
        canvas.rgb = torch.where(has_person[:, None, None, None], canvas.rgb, background)
        head_mask, face, box = head_mask * per_pixel(kept), face * per_pixel(kept), box * kept[:, None]
    images = apply_style(_apply_light(canvas.rgb, shots.light), shots.style)
    return Rendered(images, head_mask, face, box)


def _shade_face(canvas: Canvas, head: portrait.Head, face_BHW: torch.Tensor, side_B: torch.Tensor) -> None:
    """Light from one side, and a darker rim that rounds the face."""
    turned = (head.u * per_pixel(side_B)).clamp(-1, 1)
    canvas.shade(face_BHW, 1.0 - 0.13 * turned)
    rim = (head.u.square() + 0.7 * head.v.square()).clamp(max=1)
    canvas.shade(face_BHW * rim * rim, 0.88)


def _face_box(head: portrait.Head) -> torch.Tensor:
    half_x, half_y = head.half_width * head.unit, head.half_height * head.unit
    return torch.stack(
        [head.centre_x - half_x, head.centre_y - half_y, head.centre_x + half_x, head.centre_y + half_y], dim=1
    )


def _apply_light(rgb_BCHW: torch.Tensor, light_B4: torch.Tensor) -> torch.Tensor:
    """Brightness, warmth and contrast of the whole picture, mild enough that colours keep their names."""
    brightness, warmth, _, contrast = light_B4.T
    gain_B3 = 1 + 0.10 * brightness[:, None] + warmth[:, None] * torch.tensor([[0.05, 0.0, -0.06]])
    lit = rgb_BCHW * gain_B3[:, :, None, None]
    return ((lit - 0.5) * (1 + 0.08 * contrast)[:, None, None, None] + 0.5).clamp(0, 1)


def apply_style(images_BCHW: torch.Tensor, style_B: torch.Tensor) -> torch.Tensor:
    """0 leaves a photo, 1 makes a coloured-pencil sketch, 2 pixel art."""
    images_BCHW = images_BCHW.clone()
    sketch, pixel = (style_B == 1).nonzero()[:, 0], (style_B == 2).nonzero()[:, 0]
    if len(sketch):
        images_BCHW[sketch] = _sketch(images_BCHW[sketch])
    if len(pixel):
        coarse = F.avg_pool2d(images_BCHW[pixel], 2)
        images_BCHW[pixel] = F.interpolate((coarse * 6).round() / 6, (SIZE, SIZE), mode="nearest")
    return images_BCHW


def _sketch(images_BCHW: torch.Tensor) -> torch.Tensor:
    """Pale colour on paper and dark lines where the brightness changes."""
    grey = images_BCHW.mean(dim=1, keepdim=True)
    padded = F.pad(grey, (1, 1, 1, 1), mode="replicate")
    across = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    down = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    lines = (across.square() + down.square()).sqrt() * 1.3
    paper = 0.45 + 0.55 * images_BCHW
    return (paper - lines).clamp(0, 1)
