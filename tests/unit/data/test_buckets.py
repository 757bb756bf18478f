import random
from itertools import combinations

import pytest
from PIL import Image

from sweep.data.buckets import bucket_sizes, cover, few_sizes, kept_share, lay_out, nearest, without_upscaling
from sweep.data.images import crop_corner, cropped
from sweep.data.settings import bucket_bounds, check_dataset
from sweep.errors import DataError
from tests.conftest import dataset_config


@pytest.mark.parametrize(("resolution", "low", "high", "count"), [
    (512, 256, 1024, 17), (768, 256, 1024, 19), (1024, 256, 1024, 25), (1024, 256, 2048, 41), (512, 320, 768, 9)])
def test_numbers_of_buckets_are_sd_scripts(resolution: int, low: int, high: int, count: int) -> None:
    sizes = bucket_sizes(resolution, low, high, 64)
    assert len(sizes) == count
    assert {(h, w) for w, h in sizes} == set(sizes)
    assert all(w * h <= resolution**2 and low <= min(w, h) and max(w, h) <= high for w, h in sizes)


@pytest.mark.parametrize(("resolution", "bounds"), [
    (512, (256, 1024, 64)), (768, (256, 1024, 64)), (1024, (256, 1024, 64)), (1280, (256, 1280, 64)),
    (64, (32, 128, 8)), (256, (128, 512, 32))])
def test_bounds_follow_the_resolution(resolution: int, bounds: tuple[int, int, int]) -> None:
    assert bucket_bounds(dataset_config(enable_bucket=True), resolution) == bounds
    check_dataset(dataset_config(enable_bucket=True), resolution)
    assert (resolution, resolution) in bucket_sizes(resolution, *bounds)


def test_the_aspect_ratio_decides_not_its_logarithm() -> None:
    # 2.35 is nearer to 2.67 (1024x384) than to 2 (832x384 = 2.17 is a bucket, so take the two ends apart)
    sizes = [(512, 512), (1024, 256)]
    assert nearest(sizes, (240, 100)) == (512, 512)  # 2.4: 1.4 from 1, 1.6 from 4; by logarithm 4 would be nearer
    assert nearest(sizes, (260, 100)) == (1024, 256)
    assert nearest([(256, 1024), (512, 512)], (512, 512)) == (512, 512)


def test_a_photo_covers_its_bucket_and_the_middle_is_kept() -> None:
    fit = cover((1000, 500), (640, 384))
    assert fit.resized == (768, 384) and fit.slack == (128, 0)
    photo = Image.new("RGB", (1000, 500), "white")
    photo.paste("black", (0, 0, 83, 500))  # just what is cut off on the left: 64 of 768 pixels
    middle = cropped(photo, fit)
    assert middle.size == (640, 384)
    assert middle.getpixel((6, 100)) == (255, 255, 255)
    assert cropped(photo, fit, 0.0).getpixel((40, 100)) == (0, 0, 0)
    assert [crop_corner(fit, position) for position in (0, 0.5, 1)] == [(0, 0), (64, 0), (128, 0)]


@pytest.mark.parametrize(("photo", "bucket", "resized"), [
    ((500, 300), (448, 256), (500, 300)),  # small enough: only cut
    ((512, 512), (512, 512), (512, 512)),
    ((2000, 1000), (704, 320), (704, 352)),  # 724x362 wanted: by the width 704/320 = 2.2, by the height 640/320 = 2
    ((40, 300), (64, 256), None)])
def test_without_upscaling(photo: tuple[int, int], bucket: tuple[int, int], resized: tuple[int, int] | None) -> None:
    fit = without_upscaling(photo, 512, 64)
    if photo == (2000, 1000):
        bucket, resized = (640, 320), (640, 320)
    assert fit.bucket == bucket
    assert resized is None or fit.resized == resized


def test_without_upscaling_never_enlarges_and_fits() -> None:
    draw = random.Random(0)
    for _ in range(300):
        photo = draw.randint(64, 2000), draw.randint(64, 2000)
        fit = without_upscaling(photo, 512, 64)
        assert fit.bucket[0] % 64 == fit.bucket[1] % 64 == 0
        assert min(fit.slack) >= 0
        if min(photo) >= 128 and max(photo) / min(photo) < 4:
            assert fit.resized[0] <= photo[0] and fit.resized[1] <= photo[1]


@pytest.mark.parametrize("num", [1, 2, 3])
def test_few_buckets_cut_the_least(num: int) -> None:
    draw = random.Random(num)
    sizes = bucket_sizes(512, 256, 1024, 64)
    for _ in range(5):
        photos = [(draw.randint(300, 1500), draw.randint(300, 1500)) for _ in range(20)]
        shown = [draw.randint(1, 40) for _ in photos]

        def cut(few, photos=photos, shown=shown) -> float:
            return sum(count * (1 - max(kept_share(photo, size) for size in few))
                       for photo, count in zip(photos, shown, strict=True))

        few = few_sizes(sizes, photos, shown, num)
        assert len(few) <= num
        assert cut(few) == pytest.approx(min(cut(choice) for choice in combinations(sizes, num)))


def test_few_buckets_are_no_more_than_the_shapes() -> None:
    photos = [(800, 600)] * 4 + [(600, 800)] * 2
    fits = lay_out(dataset_config(enable_bucket=True, num_buckets=5), 512, photos, [1] * 6)
    assert len({fit.bucket for fit in fits}) == 2


def test_without_buckets_all_are_squares() -> None:
    assert {fit.bucket for fit in lay_out(dataset_config(), 64, [(640, 480), (10, 900)], [1, 1])} == {(64, 64)}


@pytest.mark.parametrize(("changes", "message"), [
    ({"enable_bucket": True, "bucket_reso_steps": 20}, "bucket_reso_steps=20 must be a multiple of 8"),
    ({"enable_bucket": True, "max_bucket_reso": 256}, "must enclose base_model.resolution=512"),
    ({"enable_bucket": True, "min_bucket_reso": 300}, "must be a multiple of dataset.bucket_reso_steps=64"),
    ({"num_buckets": 5}, "set dataset.enable_bucket=true"),
    ({"masked_loss": "folder"}, "needs dataset.mask_dir=FOLDER"),
    ({"mask_dir": "x"}, "read with dataset.masked_loss=folder only"),
    ({"mask": "head", "masked_loss": "alpha"}, "leave dataset.masked_loss=alpha out"),
])
def test_combinations_that_cannot_work(changes: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_dataset(dataset_config(**changes), 512)
