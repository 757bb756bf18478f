"""The seven backgrounds, large plain shapes only: finer detail does not survive 64 pixels and a VAE.

Each scene is a function of N x 8 random details in [0, 1). Legend as in `canvas`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from sweep.pocket.canvas import SIZE, Canvas, along, cover, mix, per_pixel


def _rgb(num: int, red: float, green: float, blue: float) -> torch.Tensor:
    return torch.tensor([[red, green, blue]]).expand(num, 3)


def _everywhere(canvas: Canvas) -> torch.Tensor:
    return torch.ones(len(canvas.rgb), SIZE, SIZE)


def _below(canvas: Canvas, y_B: torch.Tensor) -> torch.Tensor:
    return cover(per_pixel(y_B) - canvas.y).expand(-1, SIZE, SIZE)


def _disc(canvas: Canvas, x_B: torch.Tensor, y_B: torch.Tensor, radius_B: torch.Tensor) -> torch.Tensor:
    distance = ((canvas.x - per_pixel(x_B)).square() + (canvas.y - per_pixel(y_B)).square()).sqrt()
    return cover(distance - per_pixel(radius_B))


def beach(canvas: Canvas, details_N8: torch.Tensor) -> None:
    num, d = len(details_N8), details_N8.T
    canvas.paint(_everywhere(canvas), _rgb(num, 0.62, 0.85, 0.97))
    canvas.paint(_disc(canvas, mix(6, 58, d[0]), mix(4, 12, d[1]), mix(3, 5, d[2])), _rgb(num, 1.0, 0.96, 0.72))
    horizon = mix(18, 28, d[3])
    canvas.paint(_below(canvas, horizon), _rgb(num, 0.10, 0.55, 0.75))
    shore = horizon + mix(10, 16, d[4])
    canvas.paint(_below(canvas, shore - 1.5), _rgb(num, 0.95, 0.97, 0.97))
    canvas.paint(_below(canvas, shore), _rgb(num, 0.95, 0.85, 0.60))


def forest(canvas: Canvas, details_N8: torch.Tensor) -> None:
    num, d = len(details_N8), details_N8.T
    canvas.paint(_everywhere(canvas), _rgb(num, 0.16, 0.40, 0.17))
    canvas.paint(_below(canvas, mix(44, 54, d[0])), _rgb(num, 0.30, 0.45, 0.14))
    trunk = _rgb(num, 0.30, 0.19, 0.10)
    for place, detail in zip((2.0, 14.0, 50.0, 61.0), d[1:5], strict=True):
        distance = (canvas.x - per_pixel(place - 4 + 8 * detail)).abs() - per_pixel(mix(1.6, 3.2, d[6]))
        canvas.paint(cover(distance).expand(-1, SIZE, SIZE), trunk)
    leaves = along(torch.tensor([(0.10, 0.32, 0.10), (0.22, 0.52, 0.16)]), d[5])
    for place, detail in zip((4.0, 24.0, 42.0, 60.0), d[4:8], strict=True):
        canvas.paint(_disc(canvas, place + 6 * detail, mix(0, 8, detail), mix(9, 13, d[7])), leaves)


def city(canvas: Canvas, details_N8: torch.Tensor) -> None:
    num, d = len(details_N8), details_N8.T
    canvas.paint(_everywhere(canvas), _rgb(num, 0.70, 0.74, 0.80))
    for block, left in enumerate((0.0, 11.0, 40.0, 53.0)):
        grey = mix(0.30, 0.50, d[block])[:, None] * torch.tensor([[1.0, 1.0, 1.12]])
        across = (canvas.x - (left + 5.5)).abs() - 6.0
        tall = per_pixel(mix(22, 2, d[block + 4])) - canvas.y
        canvas.paint(cover(torch.maximum(across, tall)), grey)
    canvas.paint(_below(canvas, mix(50, 54, d[3])), _rgb(num, 0.26, 0.26, 0.28))


def mountains(canvas: Canvas, details_N8: torch.Tensor) -> None:
    num, d = len(details_N8), details_N8.T
    canvas.paint(_everywhere(canvas), _rgb(num, 0.55, 0.72, 0.93))
    for place, detail, slope in zip((8.0, 52.0), d[0:2], d[2:4], strict=True):
        peak_x, peak_y = place - 6 + 12 * detail, mix(5, 14, detail)
        across = (canvas.x - per_pixel(peak_x)).abs() * per_pixel(mix(0.9, 1.3, slope))
        below_ridge = per_pixel(peak_y) + across - canvas.y
        canvas.paint(cover(below_ridge * 0.7), _rgb(num, 0.42, 0.42, 0.55))
        snow = torch.maximum(below_ridge, canvas.y - per_pixel(peak_y + 9))
        canvas.paint(cover(snow * 0.7), _rgb(num, 0.97, 0.98, 1.0))
    canvas.paint(_below(canvas, mix(44, 52, d[4])), _rgb(num, 0.38, 0.56, 0.26))


def desert(canvas: Canvas, details_N8: torch.Tensor) -> None:
    num, d = len(details_N8), details_N8.T
    canvas.paint(_everywhere(canvas), _rgb(num, 0.99, 0.80, 0.52))
    canvas.paint(_disc(canvas, mix(6, 58, d[0]), mix(5, 14, d[1]), mix(4, 6, d[2])), _rgb(num, 1.0, 0.45, 0.20))
    for level, colour in ((0, (0.86, 0.55, 0.27)), (1, (0.76, 0.44, 0.20))):
        wave = (canvas.x / 64 * 5 + per_pixel(d[3 + level] * 6.3)).sin() * 4
        dune = per_pixel(mix(26, 34, d[5 + level]) + 14 * level) + wave - canvas.y
        canvas.paint(cover(dune), _rgb(num, *colour))


def room(canvas: Canvas, details_N8: torch.Tensor) -> None:
    num, d = len(details_N8), details_N8.T
    canvas.paint(_everywhere(canvas), _rgb(num, 0.80, 0.66, 0.50))
    floor = mix(46, 54, d[0])
    canvas.paint(_below(canvas, floor), _rgb(num, 0.40, 0.24, 0.14))
    for place, detail in ((8.0, 1), (55.0, 2)):
        across = (canvas.x - per_pixel(place - 2 + 4 * d[detail])).abs() - per_pixel(mix(5, 7, d[3]))
        down = (canvas.y - per_pixel(mix(12, 20, d[detail + 3]))).abs() - per_pixel(mix(6, 9, d[6]))
        box = torch.maximum(across, down)
        canvas.paint(cover(box), _rgb(num, 0.35, 0.20, 0.12))
        picture = along(torch.tensor([(0.85, 0.88, 0.80), (0.45, 0.62, 0.75), (0.80, 0.50, 0.40)]), d[detail])
        canvas.paint(cover(box + 1.6), picture)


def studio(canvas: Canvas, details_N8: torch.Tensor) -> None:
    d = details_N8.T
    walls = torch.tensor(
        [(0.90, 0.90, 0.91), (0.72, 0.78, 0.84), (0.62, 0.63, 0.66), (0.80, 0.74, 0.80), (0.40, 0.42, 0.46)]
    )
    canvas.paint(_everywhere(canvas), along(walls, d[0]))
    fade = 1.06 - 0.0035 * canvas.y
    canvas.rgb *= fade[:, None]


SCENES: dict[str, Callable[[Canvas, torch.Tensor], None]] = {
    "beach": beach,
    "forest": forest,
    "city": city,
    "mountains": mountains,
    "desert": desert,
    "room": room,
    "studio": studio,
}
"""In the order of world.ATTRIBUTES["scene"]; each paints its pictures from N x 8 details."""


def paint_scenes(canvas: Canvas, scene_B: torch.Tensor, details_B8: torch.Tensor) -> None:
    """Paint each picture's background."""
    for index, paint in enumerate(SCENES.values()):
        rows = (scene_B == index).nonzero()[:, 0]
        if len(rows):
            part = Canvas(len(rows))
            paint(part, details_B8[rows])
            canvas.rgb[rows] = part.rgb
