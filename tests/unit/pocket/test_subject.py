"""A subject's folder: the layout that trainers read, captions by the rules, the shipped one up to date."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sweep.pocket import SUBJECT_DIR
from sweep.pocket.subject import DEFAULT_IDENTITY, main, subject_shots, write_subject
from sweep.pocket.world import Shots


def test_layout_and_captions(tmp_path: Path) -> None:
    train = write_subject(8, tmp_path, num_photos=16, repeats=4, trigger="zuk")
    assert train == tmp_path / "train" / "4_zuk man"
    photos, texts = sorted(train.glob("*.png")), sorted(train.glob("*.txt"))
    assert len(photos) == len(texts) == 16
    assert Image.open(photos[0]).size == (64, 64)
    for path in texts:
        text = path.read_text(encoding="utf-8")
        assert text.startswith("photo of zuk man wearing a")
        assert "hair" not in text
    facts = json.loads((tmp_path / "subject.json").read_text(encoding="utf-8"))
    assert facts["identity"] == 8 and facts["smaller_set"] == 14
    assert len(list((tmp_path / "holdout").glob("*.png"))) >= 12


def test_fewer_photos_are_the_first_of_more(tmp_path: Path) -> None:
    few, many = write_subject(8, tmp_path / "a", num_photos=14), write_subject(8, tmp_path / "b", num_photos=25)
    for path in few.glob("*.txt"):
        assert path.read_text(encoding="utf-8") == (many / path.name).read_text(encoding="utf-8")
    for path in few.glob("*.png"):
        assert path.read_bytes() == (many / path.name).read_bytes()


@pytest.mark.parametrize("clothes", [None, ("green", "hoodie")])
@pytest.mark.parametrize("num_photos", [14, 25, 200])
def test_no_held_out_photo_wears_a_train_photos_clothes_in_its_scene(
    num_photos: int, clothes: tuple[str, str] | None
) -> None:
    for identity in range(0, 300, 20):
        train, holdout = subject_shots(identity, num_photos, clothes)
        assert not _worn(train) & _worn(holdout), identity


def _worn(shots: Shots) -> set[tuple[int, int, int]]:
    return set(zip(shots.scene.tolist(), shots.clothes_colour.tolist(), shots.clothes_type.tolist(), strict=True))


def test_sets_of_a_block_share_their_held_out_photos() -> None:
    few, many = subject_shots(8, 14)[1], subject_shots(8, 25)[1]
    assert all(torch.equal(getattr(few, f.name), getattr(many, f.name)) for f in fields(Shots))


def test_without_captions(tmp_path: Path) -> None:
    main(["--identity", "3", "--out", str(tmp_path), "--num-photos", "2", "--no-captions"])
    assert not list(tmp_path.rglob("*.txt"))


def test_errors_say_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="0 to 299"):
        write_subject(300, tmp_path)
    with pytest.raises(ValueError, match="1 to 200"):
        write_subject(0, tmp_path, num_photos=0)


def test_the_shipped_subject_is_what_the_code_renders(tmp_path: Path) -> None:
    facts = json.loads((SUBJECT_DIR / "subject.json").read_text(encoding="utf-8"))
    assert facts["natural_hair_colour"] == "black" and facts["class_noun"] == "man"
    write_subject(DEFAULT_IDENTITY, tmp_path)
    names = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    assert names == {path.relative_to(SUBJECT_DIR) for path in SUBJECT_DIR.rglob("*") if path.is_file()}
    assert len([name for name in names if name.suffix == ".png"]) == 25 + 16 + 25
    for name in names:
        if name.suffix == ".png":
            rendered, shipped = (np.asarray(Image.open(root / name), dtype=int) for root in (tmp_path, SUBJECT_DIR))
            largest_gap = int(np.abs(rendered - shipped).max())
            assert largest_gap <= 1, name  # another CPU may round the last bit of a pixel the other way
        else:
            assert (tmp_path / name).read_text(encoding="utf-8") == (SUBJECT_DIR / name).read_text(encoding="utf-8")
