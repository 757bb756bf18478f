from pathlib import Path

import pytest
import torch
from PIL import Image

from sweep.data.cache import cached_moments, load_pixels
from sweep.data.folder import DatasetConfig, read_dataset


@pytest.fixture
def photos(photo_folder: Path):
    config = DatasetConfig(name="folder", dir=str(photo_folder), holdout_dir=None, num_images=None, captions=True,
                           caption_extension=".txt")
    return read_dataset(config, trigger=None, class_noun=None, repeats=None).photos


def test_latents_are_encoded_once_and_read_back(base, photos, tmp_path: Path, monkeypatch) -> None:
    first = cached_moments(base, photos, 64, tmp_path)
    assert first.shape == (4, 8, 16, 16)

    def refuse(*_):
        raise AssertionError("encoded again")

    monkeypatch.setattr(type(base), "encode_moments", refuse)
    assert torch.equal(cached_moments(base, photos, 64, tmp_path), first)


def test_a_damaged_cache_file_is_made_again(base, photos, tmp_path: Path) -> None:
    first = cached_moments(base, photos, 64, tmp_path)
    files = sorted((tmp_path / "cache" / "latents").iterdir())
    assert len(files) == 4
    files[0].write_bytes(files[0].read_bytes()[:-100])  # truncated
    changed = bytearray(files[1].read_bytes())
    changed[-5] ^= 0xFF  # one byte of a tensor
    files[1].write_bytes(bytes(changed))
    assert torch.equal(cached_moments(base, photos, 64, tmp_path), first)


def test_a_row_does_not_depend_on_its_companions(base, photos, tmp_path: Path) -> None:
    together = cached_moments(base, photos, 64, tmp_path / "a")
    alone = cached_moments(base, photos[2:3], 64, tmp_path / "b")
    assert torch.equal(together[2:3], alone)


def test_pixels_are_upright_square_and_without_transparency(tmp_path: Path) -> None:
    wide = Image.new("RGB", (128, 64), "blue")
    wide.paste("red", (0, 0, 64, 64))  # left half red
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: left becomes top
    wide.save(tmp_path / "turned.jpg", exif=exif, quality=100)
    pixels = load_pixels(tmp_path / "turned.jpg", 64)
    assert pixels.shape == (3, 64, 64)
    assert pixels[0, 5, 32] > 0.9 and pixels[2, 58, 32] > 0.9
    Image.new("RGBA", (64, 64), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert load_pixels(tmp_path / "clear.png", 64).min() == 1
