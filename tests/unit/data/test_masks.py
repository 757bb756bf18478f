"""`dataset.mask=head`: the renderer's masks in the pocket world, the face's landmarks on photographs."""

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sweep.data import heads
from sweep.data.cache import load_pixels
from sweep.data.folder import Dataset, read_dataset
from sweep.data.heads import head_around, head_mask
from sweep.data.train_data import batch_plan, load_train_data
from sweep.errors import DataError
from sweep.files import read_jsonl
from sweep.pocket import SUBJECT_DIR
from sweep.pocket.subject import write_subject
from sweep.training.objective import noised_batch
from sweep.trial import DONE, status_from_json, trial_folder
from sweep.worker.process import Worker
from tests.conftest import dataset_config, make_photos
from tests.equivalence.packs import pack_of
from tests.equivalence.trials import member


def read(folder: Path | None, **changes) -> Dataset:
    config = dataset_config(dir=str(folder) if folder else None, **{"mask": "head", **changes})
    return read_dataset(config, trigger=None, class_noun=None, repeats=None)


def test_another_subjects_masks_come_with_its_photos(tmp_path: Path) -> None:
    train = write_subject(7, tmp_path, num_photos=3)
    photos = read(train.parent).photos
    assert [photo.mask.path for photo in photos] == [tmp_path / "masks" / f"{i:03d}.png" for i in (1, 2, 3)]
    assert read(train.parent).identity != read(train.parent, mask=None).identity
    (tmp_path / "masks" / "002.png").unlink()
    with pytest.raises(DataError, match=r"1 files .*\n.*002\.png: no mask 002\.png for it in "):
        read(train.parent)


def test_a_trial_on_the_shipped_subjects_heads(base, tmp_path: Path) -> None:
    """The worker's first loss is the untrained base's error within the heads, written out here."""
    spec = pack_of(tmp_path, SUBJECT_DIR / "train", {"heads": {"num_steps": 2, "dataset": {"mask": "head"}}})
    Worker().run(spec)
    folder = trial_folder(tmp_path, spec.trials[0].train_id)
    status = status_from_json(json.loads(folder.status.read_text()))
    assert status.status == DONE, status.reason
    losses = [row["loss"] for row in read_jsonl(folder.metrics) if row["kind"] == "train"]

    one = member("x", seed=1)
    dataset = read(None)
    plan = batch_plan(dataset_config(mask="head"), dataset, resolution=64, batch_size=1, accumulation=1, seed=1)
    data = load_train_data(base, dataset_config(mask="head"), dataset, plan, prior_loss_weight=1, results_dir=tmp_path)
    [batch] = data.batches_at(0)
    given = noised_batch(batch, base.alphas_cumprod, base.scaling_factor, "epsilon", one.config)
    with torch.no_grad():
        predicted = base.predict(given.noisy_BCHW, given.timesteps_B, base.text_states(batch.captions))
    error = (predicted - given.target_BCHW).square()
    name = dataset.photos[plan.photos_at(0)[0]].path.name
    drawn = np.asarray(Image.open(SUBJECT_DIR / "masks" / name), dtype=np.float32) / 255
    head = torch.from_numpy(drawn).view(16, 4, 16, 4).mean(dim=(1, 3))
    assert 0.05 < head.mean() < 0.9
    assert losses[0] == pytest.approx(float((error * head).mean()), rel=1e-3)
    assert losses[0] < 0.9 * float(error.mean())


def test_heads_of_the_shipped_subject_hold_the_face_and_no_corner() -> None:
    for photo in read(None).photos:
        assert photo.mask.path is not None and photo.mask.head is None
        mask = np.asarray(Image.open(photo.mask.path))
        assert mask.shape == (64, 64) and mask.max() == 255
        assert mask[-1, 0] == mask[-1, -1] == 0  # shoulders


def test_an_ellipse_follows_the_eyes() -> None:
    """Eyes 100 apart and level; then the same face lying on its side, turned aside, and far away."""
    upright = [(80.0, 100.0), (120.0, 100.0), (220.0, 100.0), (180.0, 100.0), (150.0, 175.0)]
    head = head_around(upright)
    assert head.centre == (150, 100) and head.angle == 0
    assert (head.half_width, head.half_height) == pytest.approx((160, 220))
    lying = head_around([(-y, x) for x, y in upright])
    assert abs(lying.angle) == pytest.approx(math.pi / 2) and lying.half_height == pytest.approx(220)
    aside = head_around([(150 + (x - 150) / 2, y) for x, y in upright])
    assert aside.half_height == pytest.approx(220)
    assert head_around([(x / 10, y / 10) for x, y in upright]).half_width == pytest.approx(16)
    mask = np.asarray(head_mask(head, (400, 300)))
    assert mask.shape == (300, 400) and mask[100, 150] == mask[290, 150] == mask[100, 300] == 255
    assert mask[100, 320] == mask[290, 280] == 0


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    """A real one: NASA's portrait of Eileen Collins, 512 x 512, in the public domain; as the folder that holds it."""
    pytest.importorskip("dlib")
    if importlib.util.find_spec("face_recognition_models") is None:
        pytest.skip("face_recognition_models is not installed")
    folder = tmp_path / "photos" / "10_alexq woman"
    folder.mkdir(parents=True)
    Image.fromarray(pytest.importorskip("skimage.data").astronaut()).save(folder / "a.png")
    return folder.parent


def test_a_head_is_found_in_a_photograph(base, photograph: Path, tmp_path: Path) -> None:
    [photo] = read(photograph).photos
    head = photo.mask.head
    assert head is not None and 215 < head.centre[0] < 235 and 95 < head.centre[1] < 112
    mask = np.asarray(head_mask(head, photo.size))
    for x, y in ((225, 110), (225, 20), (170, 80), (280, 80), (225, 180)):  # nose, crown, hair on both sides, chin
        assert mask[y, x] == 255
    for x, y in ((60, 450), (400, 60), (225, 300)):  # flag, shuttle, suit
        assert mask[y, x] == 0
    data = load_train_data(base, dataset_config(mask="head", flip_aug=True), read(photograph),
                           batch_plan(dataset_config(), read(photograph), resolution=64, batch_size=1, accumulation=1,
                                      seed=1), prior_loss_weight=1, results_dir=tmp_path)
    assert data.masks_N1HW is not None
    plain, flipped = data.masks_N1HW
    assert plain.shape == (1, 16, 16) and torch.equal(flipped, plain.flip(-1)) and not torch.equal(flipped, plain)
    assert float(plain.mean()) == pytest.approx(mask.mean() / 255, abs=0.005)


def test_a_head_is_found_in_the_upright_photograph(photograph: Path) -> None:
    """Taken with a turned camera, saved with its flag."""
    folder = photograph / "10_alexq woman"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(folder / "a.png").rotate(90).save(folder / "turned.jpg", exif=exif, quality=95)
    plain, turned = (photo.mask.head for photo in read(photograph).photos)
    assert plain is not None and turned is not None
    assert turned.centre == pytest.approx(plain.centre, abs=4) and turned.angle == pytest.approx(plain.angle, abs=0.1)
    assert load_pixels(folder / "turned.jpg", 64).shape == (3, 64, 64)


def test_photographs_without_a_face_are_named_together(photograph: Path) -> None:
    make_photos(photograph, num_photos=2, subset="1_alexq room")
    with pytest.raises(DataError, match="2 files") as caught:
        read(photograph)
    assert str(caught.value).count("no face is found in it for dataset.mask=head") == 2
    assert "a.png" not in str(caught.value)


def test_without_the_extra_it_says_what_to_install(tmp_path: Path, monkeypatch) -> None:
    folder = make_photos(tmp_path, num_photos=2)
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "dlib" else real(name))
    heads._face_finder.cache_clear()
    with pytest.raises(DataError, match=r"pip install 'lora-sweep\[dlib\]'.*dataset\.masked_loss=folder"):
        read(folder)
