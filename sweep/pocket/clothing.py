"""Neck, shoulders and the four kinds of clothes. Legend and coordinates as in `portrait`."""

from __future__ import annotations

import torch

from sweep.pocket.canvas import CLOTHES_RGB, Canvas, mix, per_pixel
from sweep.pocket.portrait import Head
from sweep.pocket.world import ATTRIBUTES, Shots

NECK_BASE = 1.28
"""v of the collar, head units below the middle of the face."""


def _torso(head: Head) -> torch.Tensor:
    """Distance to the outline of shoulders, arms and trunk."""
    shoulder = per_pixel(mix(1.55, 2.05, head.p["shoulder_width"]) + 0.18 * head.is_man)
    across = (head.body_u.abs() / shoulder).clamp(max=1.3)
    top = NECK_BASE + 0.10 + 0.42 * across.pow(2.5)
    side = head.body_u.abs() - shoulder - 0.05 * (head.body_v - NECK_BASE)
    return torch.maximum((top - head.body_v) * 0.9, side)


def paint_body(canvas: Canvas, head: Head, shots: Shots) -> None:
    """Neck and clothes."""
    colour = CLOTHES_RGB[shots.clothes_colour]
    kinds = {
        name: per_pixel((shots.clothes_type == index).float()) for index, name in enumerate(ATTRIBUTES["clothes_type"])
    }
    u, v = head.body_u, head.body_v
    torso = _torso(head)
    _paint_hood(canvas, head, colour * 0.72, kinds["hoodie"])
    neck_width = per_pixel(mix(0.30, 0.46, head.p["neck_width"]) + 0.05 * head.is_man)
    neck = head.inside(torch.maximum(u.abs() - neck_width, (v - 1.0).abs() - 0.55))
    canvas.paint(neck, head.skin * 0.84)
    clothes = head.inside(torso)
    canvas.paint(clothes, colour)
    # Arms: a fold on either side, so that a half-body is more than a block.
    canvas.shade(clothes * head.inside((u.abs() - 1.28).abs() - 0.05) * (v > 2.0), 0.72)
    _paint_tshirt(canvas, head, clothes, kinds["t-shirt"], neck_width)
    _paint_hoodie_front(canvas, head, clothes, colour, kinds["hoodie"])
    _paint_suit(canvas, head, clothes, colour, kinds["suit"])
    _paint_sweater(canvas, head, clothes, colour, kinds["sweater"], neck_width)


def _paint_hood(canvas: Canvas, head: Head, colour: torch.Tensor, on: torch.Tensor) -> None:
    """The hood lies behind the neck and shows on both sides of it."""
    level = (head.body_u / 0.98).square() + ((head.body_v - 1.22) / 0.42).square()
    canvas.paint(head.inside((level.sqrt() - 1) * 0.45) * on, colour)


def _paint_tshirt(
    canvas: Canvas, head: Head, clothes: torch.Tensor, on: torch.Tensor, neck_width: torch.Tensor
) -> None:
    """A round neckline, and bare arms below short sleeves."""
    level = (head.body_u / (neck_width * 1.25)).square() + ((head.body_v - NECK_BASE - 0.02) / 0.34).square()
    canvas.paint(head.inside((level.sqrt() - 1) * 0.4) * clothes * on, head.skin * 0.93)
    arms = torch.maximum(1.30 - head.body_u.abs(), 2.9 - head.body_v)
    canvas.paint(head.inside(arms) * clothes * on, head.skin * 0.93)


def _paint_hoodie_front(
    canvas: Canvas, head: Head, clothes: torch.Tensor, colour: torch.Tensor, on: torch.Tensor
) -> None:
    """A thick collar, two strings and a pocket."""
    level = (head.body_u / 0.80).square() + ((head.body_v - NECK_BASE) / 0.34).square()
    canvas.paint(head.inside((level.sqrt() - 1) * 0.4) * clothes * on, colour * 0.72)
    strings = torch.maximum((head.body_u.abs() - 0.24).abs() - 0.055, (head.body_v - 1.85).abs() - 0.38)
    light = (colour.mean(dim=1, keepdim=True) < 0.75).float()
    canvas.paint(head.inside(strings) * on, light * 0.95 + (1 - light) * 0.25 + torch.zeros_like(colour))
    pocket = torch.maximum(head.body_u.abs() - 0.75, (head.body_v - 4.1).abs() - 0.45)
    canvas.shade(head.inside(pocket) * clothes * on, 0.74)


def _paint_suit(canvas: Canvas, head: Head, clothes: torch.Tensor, colour: torch.Tensor, on: torch.Tensor) -> None:
    """A white shirt in a V, a dark tie and the lapels' edges."""
    u, v = head.body_u.abs(), head.body_v - NECK_BASE
    opening = u - (0.62 - 0.34 * v)
    canvas.shade(head.inside(opening - 0.14) * clothes * on * (v < 1.9), 0.66)
    white = torch.full_like(colour, 0.97)
    canvas.paint(head.inside(torch.maximum(opening, v - 1.8)) * clothes * on, white)
    collar = torch.maximum(u - 0.46, v.abs() - 0.16)
    canvas.paint(head.inside(collar) * on, white)
    tie = torch.maximum(u - (0.10 + 0.05 * v), (v - 0.85).abs() - 0.85)
    canvas.paint(head.inside(tie) * on, torch.tensor([[0.13, 0.11, 0.20]]))


def _paint_sweater(
    canvas: Canvas,
    head: Head,
    clothes: torch.Tensor,
    colour: torch.Tensor,
    on: torch.Tensor,
    neck_width: torch.Tensor,
) -> None:
    """A turtleneck and two broad stripes across the chest."""
    roll = torch.maximum(head.body_u.abs() - neck_width - 0.09, (head.body_v - 1.20).abs() - 0.24)
    canvas.paint(head.inside(roll) * on, colour * 0.86)
    lighter = colour * 0.55 + 0.45 * (colour.mean(dim=1, keepdim=True) < 0.7)
    for height in (1.95, 2.55):
        stripe = (head.body_v - height).abs() - 0.11
        canvas.paint(head.inside(stripe) * clothes * on * 0.85, lighter)
