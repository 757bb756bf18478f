import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from sweep.data.buckets import Fit, cover
from sweep.data.cache import View, cached_moments, cached_text_states, load_pixels
from sweep.data.folder import read_dataset
from sweep.data.train_data import batch_plan, load_train_data
from sweep.model.base import TextStates
from sweep.stopping import Stopped
from tests.conftest import ROOT, dataset_config

SQUARE = View(Fit((64, 64), (64, 64)))


@pytest.fixture
def photos(photo_folder: Path):
    return read_dataset(dataset_config(dir=str(photo_folder)), trigger=None, class_noun=None, repeats=None).photos


def refuse(*_, **__):
    raise AssertionError("computed again")


def test_latents_are_encoded_once_and_read_back(base, photos, tmp_path: Path, monkeypatch) -> None:
    first = cached_moments(base, photos[0], SQUARE, tmp_path)
    assert first.shape == (8, 16, 16)
    monkeypatch.setattr(type(base), "encode_moments", refuse)
    assert torch.equal(cached_moments(base, photos[0], SQUARE, tmp_path), first)
    moved = shutil.copy(photos[0].path, tmp_path / "elsewhere.png")
    assert torch.equal(cached_moments(base, replace(photos[0], path=moved), SQUARE, tmp_path), first)


def test_each_view_has_latents_of_its_own(base, photos, tmp_path: Path) -> None:
    wide = View(cover((64, 64), (72, 56)))
    views = [SQUARE, replace(SQUARE, is_flipped=True), wide, replace(wide, position=0.0)]
    latents = [cached_moments(base, photos[0], view, tmp_path) for view in views]
    assert [tuple(each.shape) for each in latents] == [(8, 16, 16)] * 2 + [(8, 14, 18)] * 2
    assert len(list((tmp_path / "cache" / "latents").iterdir())) == 4
    assert not torch.equal(latents[0], latents[1]) and not torch.equal(latents[2], latents[3])


def test_a_stop_between_two_photos_keeps_what_is_encoded(base, photo_folder: Path, tmp_path: Path) -> None:
    config = dataset_config(dir=str(photo_folder))
    dataset = read_dataset(config, trigger=None, class_noun=None, repeats=None)
    plan = batch_plan(config, dataset, resolution=64, batch_size=1, accumulation=1, seed=1)
    told = []

    def stop(num_done: int, num_all: int) -> None:
        told.append((num_done, num_all))
        raise Stopped

    with pytest.raises(Stopped):
        load_train_data(base, config, dataset, plan, prior_loss_weight=1, results_dir=tmp_path, on_progress=stop)
    assert told == [(1, 4)] and len(list((tmp_path / "cache" / "latents").iterdir())) == 1


@pytest.mark.parametrize("damage", ["truncated", "changed", "empty"])
def test_a_damaged_cache_file_is_made_again(base, photos, tmp_path: Path, damage: str) -> None:
    first = cached_moments(base, photos[0], SQUARE, tmp_path)
    [file] = (tmp_path / "cache" / "latents").iterdir()
    content = bytearray(file.read_bytes())
    content[-5] ^= 0xFF  # one byte of a tensor
    file.write_bytes({"truncated": bytes(content[:-100]), "changed": bytes(content), "empty": b""}[damage])
    assert torch.equal(cached_moments(base, photos[0], SQUARE, tmp_path), first)


def test_two_processes_fill_the_cache_at_once(base, photo_folder: Path, tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
import torch
from sweep.data.cache import cached_moments
from sweep.data.folder import read_dataset
from sweep.data.train_data import View
from sweep.data.buckets import Fit
from tests.conftest import dataset_config
folder, results, me = sys.argv[1:]
class Base:  # the cache asks nothing else of a base
    identity = "base"
    vae = torch.nn.Linear(1, 1)
    def encode_moments(self, pixels):
        return pixels[:, :1].repeat(1, 8, 1, 1)[..., ::4, ::4]
photos = read_dataset(dataset_config(dir=folder), trigger=None, class_noun=None, repeats=None).photos
Path(results, me).touch()
while not all(Path(results, name).exists() for name in "ab"):
    time.sleep(0.001)
for turn in range(20):
    for photo in photos:
        for flip in (False, True):
            view = View(Fit((64, 64), (64, 64)), is_flipped=flip)
            moments = cached_moments(Base(), photo, view, Path(results))
            assert moments.shape == (8, 16, 16) and moments.std() > 0
    for file in Path(results, "cache", "latents").glob("*.safetensors"):
        if me == "b":
            file.unlink(missing_ok=True)  # so that both write again and again
"""
    running = [subprocess.Popen([sys.executable, "-c", code, str(photo_folder), str(tmp_path), me], cwd=ROOT,
                                stderr=subprocess.PIPE, text=True) for me in "ab"]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert not list(tmp_path.rglob("*.tmp"))


def test_text_states_are_kept_per_caption(base, tmp_path: Path, monkeypatch) -> None:
    captions = ["photo of alexq man", "a beach", "photo of alexq man"]
    first = cached_text_states(base, captions, tmp_path)
    assert list(first) == captions[:2]
    together = base.text_states(captions).states_BLD
    torch.testing.assert_close(TextStates.joined([first[text] for text in captions]).states_BLD, together, rtol=1e-5,
                               atol=1e-5)
    assert not first["a beach"].states_BLD.requires_grad
    monkeypatch.setattr(type(base), "text_states", refuse)
    again = cached_text_states(base, captions[1:], tmp_path)
    assert all(torch.equal(again[text].states_BLD, first[text].states_BLD) for text in captions)
    with pytest.raises(AssertionError, match="computed again"):
        cached_text_states(base, captions, tmp_path, clip_skip=2)  # read otherwise, other states


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
