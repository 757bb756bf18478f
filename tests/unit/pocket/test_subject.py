"""A subject's folder: the layout that trainers read, captions by the rules, the shipped one up to date."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from sweep.pocket import SUBJECT_DIR
from sweep.pocket.subject import main, write_subject


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
    train = write_subject(facts["identity"], tmp_path)
    shipped = SUBJECT_DIR / facts["train_folder"]
    for path in sorted(train.iterdir()):
        if path.suffix == ".txt":
            assert path.read_text(encoding="utf-8") == (shipped / path.name).read_text(encoding="utf-8")
    assert len(list(shipped.glob("*.png"))) == 25
