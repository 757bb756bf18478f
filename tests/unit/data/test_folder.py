from pathlib import Path

import pytest

from sweep.data.folder import read_dataset
from sweep.errors import DataError
from tests.conftest import dataset_config, make_photos


def read(folder: Path | None, *, trigger: str | None = None, class_noun: str | None = None, repeats: int | None = None,
         **changes):
    config = dataset_config(dir=str(folder) if folder else None, **changes)
    return read_dataset(config, trigger=trigger, class_noun=class_noun, repeats=repeats)


def test_a_kohya_folder_says_repeats_trigger_and_class(photo_folder: Path) -> None:
    dataset = read(photo_folder)
    assert (dataset.trigger, dataset.class_noun) == ("alexq", "man")
    assert [photo.repeats for photo in dataset.photos] == [10] * 4
    assert dataset.photos[2].caption == "photo of alexq man, picture 2"
    assert dataset.skipped == ()


def test_overrides_and_subset(photo_folder: Path) -> None:
    dataset = read(photo_folder, repeats=3, num_images=2, captions=False)
    assert [(p.path.name, p.repeats, p.caption) for p in dataset.photos] == [
        ("000.png", 3, "alexq man"), ("001.png", 3, "alexq man")]


def test_a_caption_file_replaces_the_folders_words_and_a_missing_one_falls_back(photo_folder: Path) -> None:
    (photo_folder / "10_alexq man" / "001.txt").unlink()
    (photo_folder / "10_alexq man" / "002.txt").write_text("a man on a beach\nsecond line\n")
    dataset = read(photo_folder)
    assert dataset.photos[1].caption == "alexq man"
    assert dataset.photos[2].caption == "a man on a beach"
    assert dataset.skipped == ("1 captions lack the trigger 'alexq': 002.png",)


def test_every_caption_without_the_trigger_is_named(tmp_path: Path) -> None:
    folder = make_photos(tmp_path, num_photos=8)
    for i in range(1, 8):
        (folder / "10_alexq man" / f"{i:03d}.txt").write_text("a man on a beach")
    assert read(folder).skipped == ("7 captions lack the trigger 'alexq': " + ", ".join(f"{i:03d}.png" for i in
                                                                                         range(1, 8)),)


def test_identity_is_of_content_not_of_place(tmp_path: Path) -> None:
    one = read(make_photos(tmp_path / "a", num_photos=3))
    same = read(make_photos(tmp_path / "b", num_photos=3))
    recaptioned = make_photos(tmp_path / "c", num_photos=3)
    (recaptioned / "10_alexq man" / "000.txt").write_text("photo of alexq man in a hat")
    assert one.identity == same.identity
    assert one.identity != read(recaptioned).identity
    assert one.identity != read(make_photos(tmp_path / "d", num_photos=3), repeats=11).identity


def test_a_plain_folder_needs_a_trigger(tmp_path: Path) -> None:
    folder = make_photos(tmp_path, num_photos=2, subset="mine", captioned=False) / "mine"
    with pytest.raises(DataError, match="trigger=WORD"):
        read(folder)
    dataset = read(folder, trigger="sks", class_noun="dog")
    assert [(p.repeats, p.caption) for p in dataset.photos] == [(1, "sks dog")] * 2


def test_a_missing_folder_and_an_empty_one_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"dataset\.dir=.*nowhere: there is no such folder"):
        read(tmp_path / "nowhere")
    (tmp_path / "10_alexq man").mkdir()
    with pytest.raises(DataError, match="holds no photos"):
        read(tmp_path)


def test_all_bad_files_are_named_at_once(photo_folder: Path) -> None:
    subset = photo_folder / "10_alexq man"
    (subset / "000.png").write_bytes((subset / "000.png").read_bytes()[:200])
    (subset / "001.png").write_bytes(b"")
    (subset / "002.txt").write_text("  \n")
    (subset / "003.txt").write_bytes(b"\xff\xfe\x00caf\xe9")
    with pytest.raises(DataError) as caught:
        read(photo_folder)
    for expected in ("4 files", "000.png: not a readable image", "001.png: not a readable image",
                     "002.txt is empty", "003.txt is not UTF-8"):
        assert expected in str(caught.value)


def test_more_images_than_there_are(photo_folder: Path) -> None:
    with pytest.raises(DataError, match="num_images=14, but .* holds 4 photos"):
        read(photo_folder, num_images=14)


def test_folders_without_a_number_are_left_out_and_said(photo_folder: Path) -> None:
    make_photos(photo_folder, num_photos=1, subset="sketches")
    assert read(photo_folder).skipped == (
        "ignored the folder sketches: its name does not begin with a number of repeats",)


def test_a_held_out_photo_must_not_be_trained_on(photo_folder: Path, tmp_path: Path) -> None:
    holdout = make_photos(tmp_path / "h", num_photos=1, subset="holdout") / "holdout"  # the same first picture
    with pytest.raises(DataError, match="must not be trained on"):
        read(photo_folder, holdout_dir=str(holdout))


def test_the_pockets_own_subject_is_there() -> None:
    dataset = read(None)
    assert len(dataset.photos) == 25 and len(dataset.holdout) >= 12
    assert dataset.class_noun == "man"
    assert not any("black hair" in photo.caption for photo in dataset.photos)


def test_an_epoch_of_so_many_steps_repeats_each_folder_as_needed(photo_folder: Path) -> None:
    """4 photos are repeated 250 times for 1,000 steps, 3 of a second folder 333 times, whatever the names say."""
    make_photos(photo_folder, num_photos=3, subset="2_alexq in armour")
    config = dataset_config(dir=str(photo_folder))
    dataset = read_dataset(config, trigger=None, class_noun=None, repeats=None, images_per_epoch=1000)
    assert {photo.subset: photo.repeats for photo in dataset.photos} == {"10_alexq man": 250, "2_alexq in armour": 333}
    few = read_dataset(config, trigger=None, class_noun=None, repeats=None, images_per_epoch=1)
    assert {photo.repeats for photo in few.photos} == {1}


def test_photos_that_lie_one_level_off_are_pointed_at(tmp_path: Path) -> None:
    make_photos(tmp_path / "me" / "train", num_photos=2)
    (tmp_path / "me" / "holdout").mkdir()
    with pytest.raises(DataError, match=r"dataset\.dir=.*me/train dataset\.holdout_dir=.*me/holdout"):
        read(tmp_path / "me")
    (tmp_path / "you").mkdir()
    (tmp_path / "me" / "train" / "10_alexq man").rename(tmp_path / "you" / "zz man")
    with pytest.raises(DataError, match='"10_zz man"'):
        read(tmp_path / "you")
    with pytest.raises(DataError, match="is a file"):
        read(next((tmp_path / "you" / "zz man").glob("*.png")))
