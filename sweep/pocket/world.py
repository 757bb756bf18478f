"""What exists in the pocket world: people (who somebody is) and shots (how a picture shows them).

A person is a row of continuous parameters in [0, 1] plus sex and natural hair colour. A shot is one picture's
attributes, which any person can take. Both are tensors over N pictures, drawn from a seed.

Legend of tensor suffixes: N people or pictures, P identity parameters.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

IDENTITY_PARAMETERS: tuple[str, ...] = (
    "face_width", "face_length", "jaw_width", "chin_point", "cheek_width", "skin_tone", "skin_hue", "blush",
    "eye_size", "eye_spacing", "eye_height", "eye_tilt", "eye_roundness", "iris_hue", "iris_light", "iris_size",
    "brow_thickness", "brow_tilt", "brow_length", "brow_height", "brow_arch", "brow_darkness",
    "nose_length", "nose_width", "nose_bridge", "nose_tip", "mouth_width", "upper_lip", "lower_lip",
    "mouth_height", "lip_redness", "ear_size", "ear_height", "hair_volume", "hair_sides", "hair_length",
    "hairline", "fringe", "parting", "hair_shade", "beard", "moustache", "beard_length", "mole_angle",
    "mole_distance", "mole_size", "neck_width", "shoulder_width",
)  # fmt: skip
"""Names of the columns of `People.params_NP`."""

HAIR_COLOURS = ("black", "brown", "blonde", "red", "grey", "white", "blue", "green", "pink", "orange")
NATURAL_HAIR_COLOURS = HAIR_COLOURS[:6]
NATURAL_HAIR_WEIGHTS = (0.30, 0.27, 0.18, 0.11, 0.09, 0.05)

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "hair_colour": HAIR_COLOURS,
    "clothes_colour": (
        "red",
        "orange",
        "yellow",
        "green",
        "blue",
        "purple",
        "pink",
        "black",
        "white",
        "grey",
    ),
    "clothes_type": ("t-shirt", "hoodie", "suit", "sweater"),
    "scene": ("beach", "forest", "city", "mountains", "desert", "room", "studio"),
    "glasses": ("none", "glasses", "sunglasses"),
    "hat": ("none", "cap", "beanie"),
    "expression": ("neutral", "smiling", "surprised", "angry"),
    "framing": ("close-up", "portrait", "half-body"),
    "style": ("photo", "sketch", "pixel art"),
    "sex": ("man", "woman"),
}
"""What a picture can show; the order of a tuple is the meaning of an index everywhere (shots, judge, figures)."""

ATTRIBUTE_WEIGHTS: dict[str, tuple[float, ...]] = {
    "glasses": (0.70, 0.16, 0.14),
    "hat": (0.76, 0.12, 0.12),
    "expression": (0.43, 0.25, 0.16, 0.16),
    "framing": (0.45, 0.37, 0.18),
    "style": (0.86, 0.07, 0.07),
}

HAIR_OVERRIDE_FRAC = 0.35
"""Share of the pictures whose hair has another colour than the person's own."""

NUM_TRAIN_PEOPLE = 8000
NUM_NAMED_PEOPLE = 200
"""The first so many of the train people have a name of their own and appear often (`captions.person_name`)."""
NUM_HELD_OUT_PEOPLE = 300
PEOPLE_SEED = 20_000
HELD_OUT_SEED = 70_000


@dataclass(slots=True)
class People:
    """Who somebody is; each field has N rows."""

    params_NP: torch.Tensor
    """IDENTITY_PARAMETERS in [0, 1], float32."""
    sex_N: torch.Tensor
    """Index into ATTRIBUTES["sex"]."""
    natural_hair_N: torch.Tensor
    """Index into HAIR_COLOURS."""

    def __len__(self) -> int:
        return self.params_NP.shape[0]

    def __getitem__(self, index: torch.Tensor) -> People:
        return People(self.params_NP[index], self.sex_N[index], self.natural_hair_N[index])


@dataclass(slots=True)
class Shots:
    """How each of N pictures shows its person: indices into ATTRIBUTES, and continuous pose and light."""

    hair_colour: torch.Tensor
    clothes_colour: torch.Tensor
    clothes_type: torch.Tensor
    scene: torch.Tensor
    glasses: torch.Tensor
    hat: torch.Tensor
    expression: torch.Tensor
    framing: torch.Tensor
    style: torch.Tensor
    sex: torch.Tensor
    hair_overridden: torch.Tensor
    """True where the hair is not the person's own colour."""
    pose: torch.Tensor
    """N x 6 in [-1, 1]: roll, yaw, pitch, shift right, shift down, size."""
    light: torch.Tensor
    """N x 4 in [-1, 1]: brightness, warmth, side, contrast."""
    noise_seed: torch.Tensor
    """N integers: the details of the scene and clothes."""

    def __len__(self) -> int:
        return self.scene.shape[0]

    def __getitem__(self, index: torch.Tensor) -> Shots:
        return Shots(**{field.name: getattr(self, field.name)[index] for field in fields(self)})


def draw_people(num: int, seed: int) -> People:
    """`num` people from `seed`: parameters spread a little more towards the ends than uniform."""
    generator = torch.Generator().manual_seed(seed)
    params_NP = torch.rand(num, len(IDENTITY_PARAMETERS), generator=generator)
    # Ends are where people differ visibly at 64 px, so the middle is thinned out.
    params_NP = (0.5 + (params_NP - 0.5) * (1.25 - 0.25 * (2 * params_NP - 1).abs())).clamp(0, 1)
    sex_N = (torch.rand(num, generator=generator) < 0.5).long()
    weights = torch.tensor(NATURAL_HAIR_WEIGHTS)
    natural_hair_N = torch.multinomial(weights, num, replacement=True, generator=generator)
    return People(params_NP, sex_N, natural_hair_N)


def train_people() -> People:
    """The people that models may be trained on; the first NUM_NAMED_PEOPLE have names."""
    return draw_people(NUM_TRAIN_PEOPLE, PEOPLE_SEED)


def held_out_people() -> People:
    """The people that no model is ever trained on; `sweep.pocket.subject --identity` counts these."""
    return draw_people(NUM_HELD_OUT_PEOPLE, HELD_OUT_SEED)


def draw_shots(people: People, seed: int, photos_only: bool = False) -> Shots:
    """One shot for each row of `people`, attributes independent of the person (but for hair's own colour)."""
    generator = torch.Generator().manual_seed(seed)
    num = len(people)

    def pick(name: str) -> torch.Tensor:
        weights = torch.tensor(ATTRIBUTE_WEIGHTS.get(name, (1.0,) * len(ATTRIBUTES[name])))
        return torch.multinomial(weights, num, replacement=True, generator=generator)

    picked = {name: pick(name) for name in ATTRIBUTES if name not in ("hair_colour", "sex")}
    if photos_only:
        picked["style"] = torch.zeros(num, dtype=torch.long)
    override_hair = torch.randint(len(HAIR_COLOURS), (num,), generator=generator)
    overridden = torch.rand(num, generator=generator) < HAIR_OVERRIDE_FRAC
    hair_colour = torch.where(overridden, override_hair, people.natural_hair_N)
    return Shots(
        hair_colour=hair_colour,
        sex=people.sex_N,
        hair_overridden=hair_colour != people.natural_hair_N,
        pose=torch.rand(num, 6, generator=generator) * 2 - 1,
        light=torch.rand(num, 4, generator=generator) * 2 - 1,
        noise_seed=torch.randint(2**31 - 1, (num,), generator=generator),
        **picked,
    )
