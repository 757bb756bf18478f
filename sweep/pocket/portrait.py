"""Where a person is in the picture and how the head is drawn: shapes in head coordinates.

Head coordinates: u to the right and v down, origin at the middle of the face, unit = half the height of an
average face. Legend: B pictures, H W pixels; `p["name"]` is an identity parameter in [0, 1], B.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sweep.pocket.canvas import HAIR_RGB, HAT_RGB, IRIS_RGB, SKIN_RGB, Canvas, along, cover, mix, per_pixel
from sweep.pocket.world import ATTRIBUTES, IDENTITY_PARAMETERS, People, Shots

# Framing -> half height of the face in pixels (low, high) and its centre's y.
FACE_HALF_HEIGHT = ((16.5, 19.0), (11.5, 13.5), (8.0, 9.0))
FACE_CENTRE_Y = (29.0, 26.0, 18.0)


@dataclass(slots=True)
class Head:
    """Geometry and colours that all parts of a head share."""

    p: dict[str, torch.Tensor]
    is_man: torch.Tensor
    unit: torch.Tensor
    """Pixels per head unit, B."""
    centre_x: torch.Tensor
    centre_y: torch.Tensor
    u: torch.Tensor
    """Head coordinates of the pixels, B x H x W, turned with the head's roll."""
    v: torch.Tensor
    body_u: torch.Tensor
    """The same for the body, which does not roll."""
    body_v: torch.Tensor
    feature_u: torch.Tensor
    """u as the features see it: shifted and squeezed by the yaw."""
    feature_v: torch.Tensor
    half_width: torch.Tensor
    half_height: torch.Tensor
    skin: torch.Tensor
    hair: torch.Tensor
    brows: torch.Tensor
    expression: dict[str, torch.Tensor]
    """1 where the picture has that expression, B each."""

    def inside(self, distance_BHW: torch.Tensor) -> torch.Tensor:
        """Coverage of a shape from a distance in head units."""
        return cover(distance_BHW * per_pixel(self.unit))


def place_heads(canvas: Canvas, people: People, shots: Shots) -> Head:
    """Head coordinates and colours for a batch."""
    p = dict(zip(IDENTITY_PARAMETERS, people.params_NP.T, strict=True))
    roll, yaw, pitch, right, down, size = shots.pose.T
    low_high = torch.tensor(FACE_HALF_HEIGHT)[shots.framing]
    unit = low_high[:, 0] + (low_high[:, 1] - low_high[:, 0]) * (size + 1) / 2
    centre_x = 32 + right * torch.tensor([3.0, 5.0, 6.0])[shots.framing]
    centre_y = torch.tensor(FACE_CENTRE_Y)[shots.framing] + down * 2.0
    body_u = (canvas.x - per_pixel(centre_x)) / per_pixel(unit)
    body_v = (canvas.y - per_pixel(centre_y)) / per_pixel(unit)
    cos, sin = per_pixel((roll * 0.13).cos()), per_pixel((roll * 0.13).sin())
    u, v = body_u * cos + body_v * sin, body_v * cos - body_u * sin
    half_width = mix(0.66, 0.88, p["face_width"])
    squeeze = 1 - 0.10 * yaw.abs()
    hair = HAIR_RGB[shots.hair_colour]
    natural = HAIR_RGB[people.natural_hair_N]
    skin = along(SKIN_RGB, p["skin_tone"])
    hue = (p["skin_hue"] - 0.5)[:, None] * torch.tensor([[0.05, -0.02, -0.09]])
    return Head(
        p=p,
        is_man=(people.sex_N == 0).float(),
        unit=unit,
        centre_x=centre_x,
        centre_y=centre_y,
        u=u,
        v=v,
        body_u=body_u,
        body_v=body_v,
        feature_u=(u - per_pixel(yaw * 0.14)) / per_pixel(squeeze),
        feature_v=v - per_pixel(pitch * 0.07),
        half_width=half_width,
        half_height=mix(0.94, 1.10, p["face_length"]),
        skin=(skin + hue).clamp(0.03, 1),
        hair=(hair * per_pixel(mix(0.86, 1.14, p["hair_shade"]))[:, :, 0]).clamp(0, 1),
        brows=natural * per_pixel(mix(0.75, 0.35, p["brow_darkness"]))[:, :, 0],
        expression={name: (shots.expression == index).float() for index, name in enumerate(ATTRIBUTES["expression"])},
    )


def face_shape(head: Head) -> torch.Tensor:
    """Distance to the face's outline in head units, B x H x W."""
    p, v = head.p, head.v
    taper = per_pixel(mix(0.42, 0.06, p["jaw_width"]) + 0.06 * (1 - head.is_man))
    lower = (v / per_pixel(head.half_height)).clamp(0, 1.2)
    cheeks = per_pixel(mix(-0.02, 0.10, p["cheek_width"])) * (1 - (lower / 0.45 - 1).square()).clamp(min=0)
    width = per_pixel(head.half_width) * (1 - taper * lower.square() + cheeks)
    power = per_pixel(mix(2.5, 2.0, p["chin_point"]))
    level = (head.u.abs() / width).pow(power) + (v.abs() / per_pixel(head.half_height)).pow(power)
    return (level.clamp(min=1e-6).pow(1 / power) - 1) * width


def hair_behind(head: Head) -> torch.Tensor:
    """Coverage of the hair behind the face: a cap around the skull and, if long, a fall to the shoulders."""
    p = head.p
    sides = per_pixel(head.half_width + mix(0.06, 0.26, p["hair_sides"]))
    top = per_pixel(head.half_height + mix(0.06, 0.42, p["hair_volume"]))
    level = (head.u / sides).square() + (head.v / top).square()
    skull = torch.maximum((level.sqrt() - 1) * sides, head.v - 0.05)
    # Men's hair ends above the jaw unless their length is high; women's below it unless low.
    length = torch.where(
        head.is_man > 0, mix(-0.25, 0.75, (p["hair_length"] - 0.45) / 0.55), mix(0.15, 1.75, p["hair_length"])
    )
    flare = 1 + 0.10 * head.v.clamp(min=0)
    fall = torch.maximum(head.u.abs() - sides * flare * 0.98, head.v - per_pixel(length))
    fall = torch.maximum(fall, -0.1 - head.v)
    return head.inside(torch.minimum(skull, fall))


def hair_in_front(head: Head) -> torch.Tensor:
    """Coverage of the hair over the forehead, down to a hairline that the fringe and parting shape."""
    p = head.p
    sides = per_pixel(head.half_width + 0.05)
    top = per_pixel(head.half_height + mix(0.06, 0.42, p["hair_volume"]))
    skull = ((head.u / sides).square() + (head.v / top).square()).sqrt() - 1
    has_fringe = (p["fringe"] > 0.55).float()
    height = torch.where(has_fringe > 0, mix(-0.56, -0.44, p["fringe"]), mix(-0.56, -0.78, p["hairline"]))
    parting = per_pixel(mix(-0.45, 0.45, p["parting"]))
    bend = per_pixel(torch.where(has_fringe > 0, mix(0.0, 0.20, p["hairline"]), mix(0.55, 0.25, p["hairline"])))
    line = per_pixel(height) + bend * ((head.u - parting * 0.8) / sides).square()
    # Sideburns: close to the face's edge the hair goes further down.
    edge = (head.u.abs() / per_pixel(head.half_width)).square()
    line = line + 0.5 * (edge - 0.72).clamp(min=0) / 0.28
    return head.inside(torch.maximum(skull * sides, head.v - line))


def paint_hair_shine(canvas: Canvas, head: Head, hair_BHW: torch.Tensor) -> None:
    """A soft band of light, so that hair has volume."""
    band = torch.exp(-((head.v + 0.75 + 0.3 * head.u.square()) / 0.16).square())
    lighter = head.hair + (1 - head.hair) * 0.28
    canvas.paint(hair_BHW * band * 0.65, lighter)
    canvas.shade(hair_BHW * (head.v + 0.1).clamp(0, 1), 0.82)


def paint_ears(canvas: Canvas, head: Head) -> torch.Tensor:
    """Both ears, behind the face; their coverage."""
    p = head.p
    height, size = per_pixel(mix(-0.12, 0.10, p["ear_height"])), per_pixel(mix(0.13, 0.25, p["ear_size"]))
    at = per_pixel(head.half_width) * 0.99
    level = ((head.u.abs() - at) / (size * 0.62)).square() + ((head.v - height) / size).square()
    ears = head.inside((level.sqrt() - 1) * size * 0.8)
    canvas.paint(ears, head.skin * 0.90)
    return ears


def paint_eyes(canvas: Canvas, head: Head) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Eyes and brows; returns where the eyes are (u, v) and their half width, B each, for glasses."""
    p, on = head.p, head.expression
    eye_v = mix(-0.20, 0.02, p["eye_height"])
    eye_u = mix(0.30, 0.42, p["eye_spacing"]) * (0.55 + 0.45 * head.half_width / 0.77)
    half_width = mix(0.17, 0.265, p["eye_size"])
    half_height = half_width * mix(0.52, 0.95, p["eye_roundness"])
    half_height = half_height * (1 + 0.35 * on["surprised"] - 0.22 * on["angry"] - 0.12 * on["smiling"])
    # Mirrored: s is the distance from the middle line, so both eyes are drawn at once.
    s, v = head.feature_u.abs(), head.feature_v - per_pixel(eye_v)
    across = s - per_pixel(eye_u)
    tilted = v + across * per_pixel(mix(-0.30, 0.38, p["eye_tilt"]))
    level = (across / per_pixel(half_width)).square() + (tilted / per_pixel(half_height)).square()
    distance = (level.sqrt() - 1) * per_pixel(half_height)
    white = head.inside(distance)
    canvas.paint(head.inside(distance - 0.045) * (tilted < 0), head.skin * 0.30)
    canvas.paint(white, torch.full_like(head.skin, 0.97))
    iris_radius = per_pixel(mix(0.115, 0.165, p["iris_size"]))
    from_iris = (across.square() + tilted.square()).sqrt()
    iris_colour = along(IRIS_RGB, p["iris_hue"]) * mix(0.75, 1.35, p["iris_light"])[:, None]
    canvas.paint(white * head.inside(from_iris - iris_radius), iris_colour.clamp(0, 1))
    canvas.paint(white * head.inside(from_iris - iris_radius * 0.42), torch.full_like(head.skin, 0.03))
    _paint_brows(canvas, head, s, v, eye_u, half_width, half_height)
    return eye_u, eye_v, half_width


def _paint_brows(
    canvas: Canvas,
    head: Head,
    s: torch.Tensor,
    v: torch.Tensor,
    eye_u: torch.Tensor,
    eye_width: torch.Tensor,
    eye_height: torch.Tensor,
) -> None:
    p, on = head.p, head.expression
    length = per_pixel(eye_width * mix(0.95, 1.35, p["brow_length"]))
    t = (s - per_pixel(eye_u)) / length
    lift = mix(0.09, 0.20, p["brow_height"]) + 0.12 * on["surprised"] - 0.04 * on["angry"]
    # t runs from -1 at the nose to +1 outside; angry brows fall towards the nose.
    slope = mix(-0.07, 0.07, p["brow_tilt"]) - 0.16 * on["angry"] + 0.03 * on["surprised"]
    curve = -per_pixel(eye_height + lift) + per_pixel(slope) * t + per_pixel(mix(0.0, 0.10, p["brow_arch"])) * t * t
    thickness = per_pixel(mix(0.030, 0.095, p["brow_thickness"]) * (0.8 + 0.3 * head.is_man))
    distance = torch.maximum((v - curve).abs() - thickness * (1.15 - 0.3 * t), (t.abs() - 1) * length)
    canvas.paint(head.inside(distance), head.brows)


def paint_nose(canvas: Canvas, head: Head) -> None:
    """The bridge's shadow, the tip and the nostrils."""
    p = head.p
    end = mix(0.20, 0.36, p["nose_length"])
    width = mix(0.085, 0.20, p["nose_width"])
    u, v = head.feature_u, head.feature_v - per_pixel(end)
    bridge = torch.maximum((u - per_pixel(width) * 0.5).abs() - 0.035, (v + 0.24).abs() - 0.20)
    canvas.shade(head.inside(bridge) * per_pixel(mix(0.15, 0.9, p["nose_bridge"])), 0.80)
    tip_width = per_pixel(width) * 1.05
    tip = ((u / tip_width).square() + (v / per_pixel(mix(0.07, 0.12, p["nose_tip"]))).square()).sqrt() - 1
    canvas.shade(head.inside(tip * 0.10), 0.86)
    lower = head.inside(tip * 0.10) * head.inside(-(v - 0.03))
    canvas.shade(lower, 0.62)


def paint_mouth(canvas: Canvas, head: Head, mouth_v: torch.Tensor) -> None:
    """Lips by expression, at height `mouth_v`."""
    p, on = head.p, head.expression
    width = mix(0.20, 0.36, p["mouth_width"])
    width = width * (1 + 0.30 * on["smiling"] - 0.40 * on["surprised"])
    t = head.feature_u / per_pixel(width)
    bulge = (1 - t.square()).clamp(min=0)
    curl = 0.13 * on["smiling"] - 0.10 * on["angry"]
    v = head.feature_v - per_pixel(mouth_v) - per_pixel(curl) * (bulge - 0.5)
    upper, lower = mix(0.03, 0.085, p["upper_lip"]), mix(0.035, 0.105, p["lower_lip"])
    gap = 0.065 * on["smiling"] + 0.15 * on["surprised"]
    side = (t.abs() - 1) * per_pixel(width)
    red = torch.tensor([[0.78, 0.20, 0.24]])
    amount = (mix(0.25, 0.75, p["lip_redness"]) + 0.15 * (1 - head.is_man))[:, None]
    lips = head.skin * 0.78 * (1 - amount) + red * amount * (0.55 + 0.45 * head.skin.mean(dim=1, keepdim=True))
    top, bottom = per_pixel(upper + gap * 0.6) * bulge, per_pixel(lower + gap) * bulge
    canvas.paint(head.inside(torch.maximum(torch.maximum(-v - top, v - bottom), side)), lips)
    inner = torch.maximum(-v - per_pixel(gap * 0.6) * bulge, v - per_pixel(gap) * bulge)
    inner = torch.maximum(inner, side)
    teeth = on["smiling"][:, None] * torch.tensor([[0.98, 0.97, 0.94]])
    dark = (1 - on["smiling"])[:, None] * lips * 0.30
    is_open = per_pixel((gap > 0).float())
    canvas.paint(head.inside(inner) * is_open, teeth + dark)
    line = torch.maximum(v.abs() - 0.022, side)
    canvas.paint(head.inside(line) * (1 - is_open), lips * 0.45)


def paint_beard(canvas: Canvas, head: Head, face_BHW: torch.Tensor, mouth_v: torch.Tensor) -> None:
    """Stubble to full beard, and a moustache, on those men who have them, in the hair's colour."""
    p = head.p
    density = head.is_man * ((p["beard"] - 0.45) / 0.35).clamp(0, 1) * 0.92
    depth = per_pixel(mix(0.34, 0.62, p["beard_length"]))
    edge = (head.feature_u.abs() / per_pixel(head.half_width)).square()
    start = per_pixel(mouth_v) + 0.14 - depth * edge
    canvas.paint(face_BHW * head.inside(start - head.feature_v) * per_pixel(density), head.hair * 0.85)
    moustache = head.is_man * ((p["moustache"] - 0.5) / 0.25).clamp(0, 1) * 0.92
    u, v = head.feature_u, head.feature_v - per_pixel(mouth_v) + 0.115
    level = torch.maximum((v - 0.25 * u.square()).abs() - 0.05, u.abs() - 0.27)
    canvas.paint(head.inside(level) * per_pixel(moustache), head.hair * 0.85)


def paint_beard_and_mouth(canvas: Canvas, head: Head, face_BHW: torch.Tensor) -> None:
    """The beard lies under the lips, the moustache over them."""
    mouth_v = mix(0.50, 0.64, head.p["mouth_height"])
    paint_beard(canvas, head, face_BHW, mouth_v)
    paint_mouth(canvas, head, mouth_v)


def paint_skin_marks(canvas: Canvas, head: Head, face_BHW: torch.Tensor) -> None:
    """Blush and one mole."""
    p = head.p
    u, v = head.feature_u, head.feature_v
    cheek = ((u.abs() - 0.45).square() + (v - 0.25).square()) / 0.035
    canvas.paint(face_BHW * torch.exp(-cheek) * per_pixel(p["blush"] * 0.42), torch.tensor([[0.90, 0.35, 0.35]]))
    angle = per_pixel(mix(-0.6, 3.74, p["mole_angle"]))
    reach = per_pixel(mix(0.38, 0.60, p["mole_distance"]))
    from_mole = ((u - reach * angle.cos()).square() + (v - 0.15 - reach * angle.sin() * 0.8).square()).sqrt()
    radius = mix(0.0, 0.085, (p["mole_size"] - 0.4) / 0.6).clamp(min=0)
    has_mole = per_pixel((p["mole_size"] > 0.4).float())
    canvas.paint(head.inside(from_mole - per_pixel(radius)) * has_mole * face_BHW, head.skin * 0.32)


def paint_glasses(
    canvas: Canvas, head: Head, kind_B: torch.Tensor, eyes: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> None:
    """Glasses (1) or sunglasses (2) on the eyes."""
    eye_u, eye_v, eye_width = eyes
    radius = per_pixel(eye_width * 0.55 + 0.155)
    s, v = head.feature_u.abs(), head.feature_v - per_pixel(eye_v) - 0.02
    distance = ((s - per_pixel(eye_u)).square() + v.square()).sqrt() - radius
    frame = torch.minimum(distance.abs() - 0.055, torch.maximum(s - per_pixel(eye_u), v.abs() - 0.04))
    frame = torch.where(distance < -0.055, distance.abs() - 0.055, frame)
    temples = torch.maximum(v.abs() - 0.04, per_pixel(eye_u) + radius - s)
    temples = torch.maximum(temples, head.u.abs() - per_pixel(head.half_width) - 0.02)
    black = torch.full_like(head.skin, 0.05)
    worn = per_pixel((kind_B > 0).float())
    is_dark = per_pixel((kind_B == 2).float())
    lens = head.inside(distance)
    canvas.paint(lens * worn * (0.93 * is_dark + 0.16 * (1 - is_dark)), black + per_pixel(kind_B == 1)[:, :, 0] * 0.85)
    canvas.paint(head.inside(torch.minimum(frame, temples)) * worn, black)


def paint_hats(canvas: Canvas, head: Head, kind_B: torch.Tensor, detail_B: torch.Tensor) -> torch.Tensor:
    """A cap (1) with a brim or a beanie (2) with a band and bobble; their coverage."""
    colour = HAT_RGB[(detail_B * len(HAT_RGB)).long()]
    is_cap, is_beanie = per_pixel((kind_B == 1).float()), per_pixel((kind_B == 2).float())
    sides = per_pixel(head.half_width + mix(0.10, 0.22, head.p["hair_sides"]))
    top = per_pixel(head.half_height + mix(0.16, 0.36, head.p["hair_volume"])) + 0.10 * is_beanie
    dome = ((head.u / sides).square() + (head.v / top).square()).sqrt() - 1
    edge = -0.56
    shape = head.inside(torch.maximum(dome * sides, head.v - edge))
    canvas.paint(shape * (is_cap + is_beanie), colour)
    brim = (((head.u - 0.25) / (sides * 1.22)).square() + ((head.v - edge) / 0.12).square()).sqrt() - 1
    canvas.paint(head.inside(brim * 0.12) * is_cap, colour * 0.62)
    band = torch.maximum(head.u.abs() - sides * 0.92, (head.v - edge - 0.02).abs() - 0.13)
    canvas.paint(head.inside(band) * is_beanie, colour * 0.5 + 0.42)
    bobble = (head.u.square() + (head.v + top + 0.05).square()).sqrt() - 0.20
    canvas.paint(head.inside(bobble) * is_beanie, colour * 0.5 + 0.42)
    return shape * (is_cap + is_beanie)
