"""A held-out identity as a folder of captioned photos: `python -m sweep.pocket.subject --identity N --out FOLDER`.

Writes `OUT/train/<repeats>_<trigger> <class>/NNN.png + NNN.txt` (the first 14 are the smaller set),
`OUT/masks/NNN.png` (the head in each of them, for `dataset.mask=head`), `OUT/holdout/NNN.png + NNN.txt` (the same
person; none wears a train photo's clothes in its scene) and `OUT/subject.json`.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import zlib
from dataclasses import fields
from pathlib import Path

import torch

from sweep.pocket import world
from sweep.pocket.captions import attribute_words, describe
from sweep.pocket.render import render
from sweep.pocket.world import ATTRIBUTES, NUM_HELD_OUT_PEOPLE, People, Shots, draw_shots, held_out_people

DEFAULT_IDENTITY = 31
SMALLER_SET = 14
NUM_HOLDOUT = 16
BLOCK = 25
"""Shots are drawn in blocks of this many, so that fewer photos are the first of more."""
# Which framing each photo in turn has: what a person would bring, more faces than figures.
FRAMING_CYCLE = (0, 1, 0, 2, 1, 0, 1, 0, 2, 0, 1, 0, 1, 2)
EXPRESSION_CYCLE = (0, 1, 0, 1, 2, 0, 3, 1, 0, 2, 1, 0, 3, 0)


def write_subject(
    identity: int,
    out: Path | str,
    num_photos: int = 25,
    repeats: int = 10,
    trigger: str = "alexq",
    class_noun: str | None = None,
    captions: bool = True,
    clothes: tuple[str, str] | None = None,
) -> Path:
    """Render held-out person `identity` into `out`; returns the folder of train photos.

    The person keeps their own hair colour, which no caption names. `class_noun` None: man or woman, as the
    person is. With `captions` False no caption files are written. `clothes`: (colour, type) that all training
    photos show, say ("green", "hoodie"); None = they vary.
    Raises ValueError for an identity or number of photos out of range.
    """
    if not 0 <= identity < NUM_HELD_OUT_PEOPLE:
        raise ValueError(f"--identity {identity}: held-out people are numbered 0 to {NUM_HELD_OUT_PEOPLE - 1}")
    if not 1 <= num_photos <= 200:
        raise ValueError(f"--num-photos {num_photos}: 1 to 200 photos can be rendered")
    out = Path(out)
    person = held_out_people()[torch.tensor([identity])]
    sex = ATTRIBUTES["sex"][int(person.sex_N[0])]
    noun = class_noun or sex
    train_shots, holdout_shots = subject_shots(identity, num_photos, clothes)
    train = out / "train" / f"{repeats}_{trigger} {noun}"
    train_captions = _write_photos(train, person, train_shots, f"{trigger} {noun}", captions, masks=out / "masks")
    _write_photos(out / "holdout", person, holdout_shots, f"{trigger} {noun}", captions)
    facts = {
        "identity": identity,
        "trigger": trigger,
        "class_noun": noun,
        "sex": sex,
        "natural_hair_colour": world.HAIR_COLOURS[int(person.natural_hair_N[0])],
        "repeats": repeats,
        "num_photos": num_photos,
        "smaller_set": min(SMALLER_SET, num_photos),
        "num_holdout": NUM_HOLDOUT,
        "train_folder": train.relative_to(out).as_posix(),
        "captions": train_captions if captions else None,
    }
    (out / "subject.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return train


def subject_shots(
    identity: int, num_photos: int, clothes: tuple[str, str] | None = None, num_holdout: int = NUM_HOLDOUT
) -> tuple[Shots, Shots]:
    """Train and held-out shots of an identity; fewer photos are the first of more.

    No held-out shot has the clothes (colour and type) and the scene of a train shot. All sets of up to BLOCK photos
    have the same held-out ones.
    """
    num_blocks = math.ceil(num_photos / BLOCK)
    blocks = [_varied_shots(identity, BLOCK, f"train{block or ''}", 0) for block in range(num_blocks)]
    train = Shots(**{f.name: torch.cat([getattr(block, f.name) for block in blocks]) for f in fields(Shots)})
    holdout = _varied_shots(identity, num_holdout, "holdout", 5)
    holdout.glasses.zero_()
    holdout.hat.zero_()
    if clothes is not None:
        train.clothes_colour.fill_(ATTRIBUTES["clothes_colour"].index(clothes[0]))
        train.clothes_type.fill_(ATTRIBUTES["clothes_type"].index(clothes[1]))
    _wear_other_clothes(holdout, train)
    return train[torch.arange(num_photos)], holdout


def _wear_other_clothes(holdout: Shots, train: Shots) -> None:
    """Where a held-out shot has a train shot's clothes in its scene, give it the next colour (then type) that is new.

    There always is one: scenes go round, so 200 photos show at most 32 of the 40 garments in each.
    """
    num_colours, num_types = len(ATTRIBUTES["clothes_colour"]), len(ATTRIBUTES["clothes_type"])

    def worn(shots: Shots) -> list[tuple[int, int]]:
        garments = shots.clothes_type * num_colours + shots.clothes_colour
        return list(zip(shots.scene.tolist(), garments.tolist(), strict=True))

    taken = set(worn(train))
    for row, (scene, garment) in enumerate(worn(holdout)):
        while (scene, garment) in taken:
            garment = (garment + 1) % (num_colours * num_types)
        holdout.clothes_colour[row], holdout.clothes_type[row] = garment % num_colours, garment // num_colours


def _varied_shots(identity: int, num: int, purpose: str, offset: int) -> Shots:
    """Photos with the person's own hair, whose scenes, clothes and framings go round rather than repeat."""
    person = held_out_people()[torch.full((num,), identity)]
    seed = zlib.crc32(f"subject/{identity}/{purpose}".encode())
    shots = draw_shots(person, seed, photos_only=True)
    shots.hair_colour = person.natural_hair_N.clone()
    shots.hair_overridden = torch.zeros(num, dtype=torch.bool)
    rng = random.Random(seed)
    for name in ("scene", "clothes_colour", "clothes_type"):
        getattr(shots, name).copy_(torch.tensor(_rounds(len(ATTRIBUTES[name]), num, rng)))
    shots.framing = torch.tensor([FRAMING_CYCLE[(row + offset) % 14] for row in range(num)])
    shots.expression = torch.tensor([EXPRESSION_CYCLE[(row + offset) % 14] for row in range(num)])
    # A face hidden by sunglasses or a hat teaches little: one photo in twelve each, glasses likewise.
    shots.glasses = torch.tensor([{3: 1, 8: 2}.get(row % 12, 0) for row in range(num)])
    shots.hat = torch.tensor([{5: 1, 10: 2}.get(row % 12, 0) for row in range(num)])
    return shots


def _rounds(num_values: int, num: int, rng: random.Random) -> list[int]:
    """`num` values below `num_values`: all of them, shuffled, then all of them again."""
    values: list[int] = []
    while len(values) < num:
        one_round = list(range(num_values))
        rng.shuffle(one_round)
        values += one_round
    return values[:num]


def subject_caption(words: dict[str, str], subject: str) -> str:
    """ "photo of alexq man wearing a green hoodie and glasses, smiling, on a beach, close-up"."""
    say = {"hair_colour": False, "clothes_colour": True, "clothes_type": True, "scene": True, "framing": True}
    say["expression"] = words["expression"] != "neutral"
    return describe(words, _First(), say=say, subject=subject).text


class _First(random.Random):
    """Takes the first phrase of each list and shuffles nothing: one wording for all of a subject's photos."""

    def random(self) -> float:
        return 0.5

    def choice(self, seq):  # type: ignore[no-untyped-def]
        return seq[0]


def _write_photos(folder: Path, person: People, shots: Shots, subject: str, captions: bool,
                  masks: Path | None = None) -> list[str]:
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    num = len(shots)
    rendered = render(person[torch.zeros(num, dtype=torch.long)], shots)
    pixels = (rendered.images_BCHW * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    if masks is not None:
        masks.mkdir(parents=True, exist_ok=True)
        for row, head in enumerate((rendered.head_mask_BHW * 255).round().to(torch.uint8).numpy()):
            Image.fromarray(head).save(masks / f"{row + 1:03d}.png", optimize=True)
    texts = []
    for row in range(num):
        name = f"{row + 1:03d}"
        Image.fromarray(pixels[row]).save(folder / f"{name}.png", optimize=True)
        texts.append(subject_caption(attribute_words(shots, row), subject))
        if captions:
            (folder / f"{name}.txt").write_text(texts[-1] + "\n", encoding="utf-8")
    return texts


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m sweep.pocket.subject", description=__doc__.splitlines()[0])
    parser.add_argument("--identity", type=int, default=DEFAULT_IDENTITY, help=f"0 to {NUM_HELD_OUT_PEOPLE - 1}")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--num-photos", type=int, default=25)
    parser.add_argument("--repeats", type=int, default=10, help="of each photo per epoch; part of the folder's name")
    parser.add_argument("--trigger", default="alexq", help="the word that shall stand for the person")
    parser.add_argument("--class-noun", help="man or woman (default: as the person is)")
    parser.add_argument("--captions", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args(arguments)
    try:
        train = write_subject(
            options.identity, options.out, options.num_photos, options.repeats, options.trigger,
            options.class_noun, options.captions,
        )  # fmt: skip
    except ValueError as error:
        parser.error(str(error))
    print(f"{options.num_photos} photos in {train}, {NUM_HOLDOUT} held out in {options.out / 'holdout'}")
    print(f'train on them: python train.py dataset.dir="{options.out / "train"}" '
          f'dataset.holdout_dir="{options.out / "holdout"}"')


if __name__ == "__main__":
    main()
