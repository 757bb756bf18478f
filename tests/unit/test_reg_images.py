"""What is known of drawn regularisation images before any is there; tests/equivalence/test_reg_images.py draws them."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from sweep.data.dataset import DRAWN, Recipe
from sweep.data.folder import Dataset, read_dataset
from sweep.data.settings import check_dataset
from sweep.errors import DataError
from sweep.identity import train_id
from sweep.lock import cache_lock
from sweep.reg_images import draw_missing, with_drawn
from sweep.stopping import Stopped
from tests.conftest import ROOT, dataset_config, make_photos
from tests.equivalence.trials import member


def drawn(folder: Path, num: int | None, repeats: int | None = None, base_id: str = "base", **changes) -> Dataset:
    flat = {key: changes.pop(key) for key in ("clip_skip", "mixed_precision") if key in changes}
    config = dataset_config(dir=str(folder), generate_reg=num, **changes)
    whole = replace(member("x").config, dataset=config, **flat)
    dataset = read_dataset(config, trigger=None, class_noun=None, repeats=repeats)
    return with_drawn(dataset, whole, base_id, Path("nowhere"))


def test_as_many_as_the_photos_are_shown(photo_folder: Path) -> None:
    dataset = drawn(photo_folder, 40)
    assert [photo.repeats for photo in dataset.reg_photos] == [1] * 40
    assert {photo.caption for photo in dataset.reg_photos} == {"photo of a man"}
    assert dataset.reg_subsets == ((DRAWN, 1, 40),)
    assert dataset.skipped == ("40 regularisation images are drawn by the base model: 'photo of a man'",)


def test_fewer_are_shown_again_and_more_are_not_drawn(photo_folder: Path) -> None:
    few, many = drawn(photo_folder, 30), drawn(photo_folder, 50)
    assert [photo.repeats for photo in few.reg_photos] == [2] * 10 + [1] * 20
    assert len(many.reg_photos) == 40 and many.identity == drawn(photo_folder, 40).identity
    assert "40 are needed to show none twice" in few.skipped[-1] and "40 are enough" in many.skipped[-1]


def test_fewer_photos_share_the_first_images(photo_folder: Path) -> None:
    few, many = drawn(photo_folder, 40, repeats=2), drawn(photo_folder, 40)
    assert [photo.path for photo in few.reg_photos] == [photo.path for photo in many.reg_photos[:8]]


def test_who_waits_for_another_worker_that_draws_can_be_stopped(photo_folder: Path, tmp_path: Path) -> None:
    config = dataset_config(dir=str(photo_folder), generate_reg=40)
    dataset = with_drawn(read_dataset(config, trigger=None, class_noun=None, repeats=None),
                         replace(member("x").config, dataset=config), "base", tmp_path)
    said: list[str] = []

    def stop(num_done: int, num_all: int) -> None:
        raise Stopped

    with cache_lock(dataset.reg_photos[0].path.parent), pytest.raises(Stopped):
        draw_missing(cast(Any, None), dataset, say=said.append, on_progress=stop)
    assert "waiting: " in said[0]


@pytest.mark.parametrize("changes", [{"reg_prompt": "a man"}, {"reg_num_steps": 30}, {"reg_guidance_scale": 5.0},
                                     {"base_id": "other"}, {"clip_skip": 2}, {"mixed_precision": "bf16"}],
                         ids=lambda changes: next(iter(changes)))
def test_another_recipe_makes_other_images_and_another_trial(photo_folder: Path, changes: dict) -> None:
    one, other = drawn(photo_folder, 40), drawn(photo_folder, 40, **changes)
    assert not {photo.sha256 for photo in one.reg_photos} & {photo.sha256 for photo in other.reg_photos}
    assert one.reg_photos[0].path.parent != other.reg_photos[0].path.parent
    assert one.identity != other.identity


def test_the_pocket_bases_are_guided_less(photo_folder: Path) -> None:
    data = dataset_config(dir=str(photo_folder), generate_reg=4)
    plain, pocket = read_dataset(data, trigger=None, class_noun=None, repeats=None), member("x").config
    assert pocket.base_model.name == "pocket"
    scales = [with_drawn(plain, replace(pocket, dataset=data, base_model=base), "base", Path("nowhere")).recipe
              for base in (pocket.base_model, replace(pocket.base_model, name="sd15"))]
    assert [recipe.guidance_scale for recipe in scales if recipe] == [3.0, 7.0]


def test_without_generate_reg_its_keys_mean_nothing(photo_folder: Path) -> None:
    config = member("x").config
    ids = {train_id(config, drawn(photo_folder, None, **changes), "base")
           for changes in ({}, {"reg_prompt": "a man"}, {"reg_num_steps": 30})}
    assert len(ids) == 1


def test_several_prompts_take_turns(photo_folder: Path) -> None:
    dataset = drawn(photo_folder, 40, reg_prompt="photo of a {class_noun} | photo of blonde {class_noun}")
    assert [photo.caption for photo in dataset.reg_photos[:3]] == ["photo of a man", "photo of blonde man",
                                                                   "photo of a man"]
    assert dataset.skipped == ("40 regularisation images are drawn by the base model: 2 prompts in turn, "
                               "'photo of a man' the first",)
    assert dataset.identity != drawn(photo_folder, 40).identity


def test_the_photos_own_captions_about_another_man(photo_folder: Path) -> None:
    dataset = drawn(photo_folder, 40, reg_prompt="{caption}|photo of a {class_noun}")
    captions = [photo.caption for photo in dataset.reg_photos]
    assert captions[:5] == [f"photo of a man, picture {i}" for i in range(4)] + ["photo of a man"]
    assert captions[5:10] == captions[:5]


def test_a_photos_caption_without_the_trigger_leaves_nothing_to_take_out(photo_folder: Path) -> None:
    (photo_folder / "10_alexq man" / "002.txt").write_text("a man on a beach")
    with pytest.raises(DataError, match=r"'alexq', but that of 002\.png holds none: 'a man on a beach'\. Put the tr"):
        drawn(photo_folder, 40, reg_prompt="{caption}")


def test_one_prompt_is_known_as_before_there_were_several() -> None:
    """So that images which were drawn then are found, and trials which learned from them are those of today."""
    recipe = Recipe(base_id="b", prompts=("p",), num_steps=20, guidance_scale=7.0, resolution=64, clip_skip=1,
                    max_token_length=75, precision="no")
    assert recipe.key == "70441687f73713f327638c63"
    assert replace(recipe, prompts=("p", "q")).key != recipe.key


@pytest.mark.parametrize(("prompt", "message"), [
    ("photo of alexq man", "holds the trigger 'alexq'"), ("a man|photo of alexq man", "holds the trigger 'alexq'"),
    ("photo of alexq.", "holds the trigger"), ("photo of Alexq man", "holds the"), ("photo of alexq's face", "holds"),
    ("", "is empty"), ("a man|", r"has an empty part beside a \|"), ("sketch of {caption}", "stands alone"),
    ("photo of {subject}", "leave other braces")])
def test_prompts_that_cannot_be_meant(photo_folder: Path, prompt: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        drawn(photo_folder, 40, reg_prompt=prompt)


def test_a_folder_and_drawing_exclude_each_other(photo_folder: Path) -> None:
    with pytest.raises(DataError, match=r"generate_reg=4 draws .* dataset\.reg_dir=x has others"):
        check_dataset(dataset_config(generate_reg=4, reg_dir="x"), 64)
    check_dataset(dataset_config(generate_reg=4, reg_dir="none"), 64)
    make_photos(photo_folder, num_photos=1, subset="reg")
    with pytest.raises(DataError, match=r"there are others in .*reg\. .* dataset\.reg_dir=none"):
        drawn(photo_folder, 4)
    assert len(drawn(photo_folder, 4, reg_dir="none").reg_photos) == 4


def test_a_plan_needs_neither_torch_nor_files() -> None:
    code = ("import sys\nfrom pathlib import Path\nfrom sweep.data.dataset import Recipe\n"
            "recipe = Recipe(base_id='b', prompts=('p',), num_steps=20, guidance_scale=7.0, resolution=64, "
            "clip_skip=1, max_token_length=75, precision='no')\nassert len(recipe.photo(3, Path('x')).sha256) == 64\n"
            "sys.exit('torch' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0
