"""What people's folders hold: each file is read, and what was changed said; or all that can't be are named at once."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sweep.data.folder import Dataset, read_dataset
from sweep.data.images import open_upright
from sweep.errors import DataError
from tests.conftest import dataset_config, make_photos

RED, BLUE = (220, 40, 30), (30, 50, 200)


def read(root: Path, **changes) -> Dataset:
    return read_dataset(dataset_config(dir=str(root), **changes), trigger=None, class_noun=None, repeats=None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty subset."""
    subset = tmp_path / "10_alexq man"
    subset.mkdir()
    return subset


def halves(size: tuple[int, int] = (64, 48)) -> Image.Image:
    """Left red, right blue."""
    image = Image.new("RGB", size, BLUE)
    image.paste(RED, (0, 0, size[0] // 2, size[1]))
    return image


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def cmyk(path: Path) -> None:
    halves().convert("CMYK").save(path.with_suffix(".jpg"), quality=95)


def palette(path: Path) -> None:
    halves().quantize(8).save(path)


def transparent_palette(path: Path) -> None:
    image = halves().quantize(8)
    image.save(path, transparency=image.getpixel((60, 20)))


def sixteen_bits(path: Path) -> None:
    values = np.full((48, 64), 30 * 257, dtype=np.uint16)
    values[:, :32] = 220 * 257
    Image.fromarray(values).save(path)


def turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # saved lying on its left side
    halves().rotate(90, expand=True).save(path.with_suffix(".jpg"), exif=exif, quality=95)


def transparent(path: Path) -> None:
    image = halves().convert("RGBA")
    image.paste((0, 0, 0, 0), (32, 0, 64, 48))
    image.save(path)


def animated(path: Path) -> None:
    halves().save(path.with_suffix(".webp"), save_all=True, append_images=[Image.new("RGB", (64, 48), "green")],
                  quality=95)


WHITE, GREY = (255, 255, 255), ((220,) * 3, (30,) * 3)


@pytest.mark.parametrize(("write", "note", "colours"), [
    (cmyk, "CMYK converted to RGB without its colour profile", (RED, BLUE)),
    (palette, "palette converted to RGB", (RED, BLUE)),
    (transparent_palette, "transparency laid over white", (RED, WHITE)),
    (sixteen_bits, "16 bits reduced to 8", GREY),
    (turned, "turned upright by its EXIF flag", (RED, BLUE)),
    (transparent, "transparency laid over white", (RED, WHITE)),
    (animated, "animated: its first frame is used", (RED, BLUE))], ids=lambda value: getattr(value, "__name__", ""))
def test_it_is_converted_and_said(folder: Path, write: Callable[[Path], None], note: str,
                                  colours: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    write(folder / "a.png")
    dataset = read(folder.parent)
    [photo] = dataset.photos
    assert photo.size == (64, 48)
    assert f"{photo.path.name}: {note}" in dataset.skipped
    image = open_upright(photo.path)
    assert (image.mode, image.size) == ("RGB", (64, 48))
    for x, colour in zip((8, 56), colours, strict=True):
        assert image.getpixel((x, 24)) == pytest.approx(colour, abs=12)


def test_copies_are_kept_and_said(folder: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        halves().save(folder / name)
    dataset = read(folder.parent)
    assert len(dataset.photos) == 3
    assert "2 photos are copies of others, which so count more: b.png = a.png, c.png = a.png" in dataset.skipped


def test_pictures_of_other_kinds_are_left_out_and_said(folder: Path) -> None:
    halves().save(folder / "a.png")
    halves().save(folder / "b.gif")
    (folder / "c.png").mkdir()
    dataset = read(folder.parent)
    assert [photo.path.name for photo in dataset.photos] == ["a.png"]
    assert any(line.startswith("ignored b.gif: only .png, .jpg") for line in dataset.skipped)


def test_all_that_cannot_be_read_stands_in_one_error(folder: Path, tmp_path: Path) -> None:
    """Training photos, captions, masks, regularisation images and held-out photos, each of every kind."""
    for i in range(9):
        halves().save(folder / f"good{i}.png")
    whole = (folder / "good0.png").read_bytes()
    bomb = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
    (folder / "bomb.png").write_bytes(bomb + png_chunk(b"IDAT", zlib.compress(b"")) + png_chunk(b"IEND", b""))
    (folder / "truncated.png").write_bytes(whole[:-40])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("this is no picture")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (folder / "good1.txt").write_bytes(b"")
    (folder / "good2.txt").write_text(" \n\n")
    (folder / "good3.txt").write_bytes("caf\u00e9".encode("latin-1"))
    (folder / "good4.txt").write_bytes("photo of alexq".encode("utf-16"))
    (tmp_path / "5_alexq circle").symlink_to(tmp_path / "5_alexq circle")
    reg = make_photos(tmp_path / "others", num_photos=2, subset="1_man", captioned=False)
    (reg / "1_man" / "001.png").write_bytes(b"no picture")
    holdout = make_photos(tmp_path / "held", num_photos=2, subset="out") / "out"
    (holdout / "000.png").write_bytes(b"")
    masks = make_photos(tmp_path / "masks", num_photos=1, subset="x", captioned=False)
    for i in range(9):
        Image.new("L", (64, 48) if i != 7 else (64, 64), 255).save(masks / f"good{i}.png")
    (masks / "good5.png").unlink()
    (masks / "good6.png").write_bytes(whole[:-40])
    with pytest.raises(DataError) as caught:
        read(tmp_path, reg_dir=str(reg), holdout_dir=str(holdout), masked_loss="folder", mask_dir=str(masks))
    message = str(caught.value)
    for expected in ("bomb.png: far too many pixels", "truncated.png: not a readable image",
                     "empty.png: not a readable image (the file is empty)", "text.jpg: not a readable image",
                     "loop.png: can't be opened", "gone.png: can't be opened", "good1.txt is empty",
                     "good2.txt is empty", "good3.txt is not UTF-8", "good4.txt is not UTF-8",
                     "5_alexq circle: a link that leads nowhere or in a circle", "001.png: not a readable image",
                     "000.png: not a readable image (the file is empty)", "no mask good5.png for it in",
                     "its mask good6.png is not a readable image", "its mask good7.png has another shape (64x64 for a"):
        assert expected in message
    assert message.startswith("16 files in ") and len(message.splitlines()) == 17
    assert not any(f"good{i}.png:" in message for i in (0, 8))


def test_folders_that_hold_themselves_are_no_matter(folder: Path, tmp_path: Path) -> None:
    halves().save(folder / "a.png")
    (folder / "inside").symlink_to(folder)
    (tmp_path / "3_alexq again").symlink_to(tmp_path)
    dataset = read(tmp_path)
    assert [photo.path.name for photo in dataset.photos] == ["a.png"]
    assert "ignored the folder 3_alexq again: no photos in it" in dataset.skipped


@pytest.mark.parametrize("fill", [lambda folder: None, lambda folder: (folder / "a.txt").write_text("alone"),
                                  lambda folder: halves().save(folder / "a.gif")], ids=["empty", "captions", "gifs"])
def test_a_folder_without_photos_says_what_is_read(folder: Path, fill: Callable[[Path], object]) -> None:
    fill(folder)
    with pytest.raises(DataError, match=r"holds no photos \(\.png, .*\), neither itself nor in subfolders named"):
        read(folder.parent)


def test_an_unreadable_file_is_named(folder: Path, monkeypatch) -> None:
    """Rights can't be taken from an administrator, who may run the tests."""
    halves().save(folder / "a.png")
    halves().save(folder / "b.png")
    real = Image.open

    def denied(path, *arguments, **named):
        if Path(path).name == "b.png":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **named)

    monkeypatch.setattr(Image, "open", denied)
    with pytest.raises(DataError, match=r"1 files .*\n.*b\.png: not a readable image \(\[Errno 13\] Permission denied"):
        read(folder.parent)
