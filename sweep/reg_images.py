"""Regularisation images that the base model draws itself (`dataset.generate_reg`): which they are, and the drawing.

An image is known by the recipe that it is drawn by, so that a plan and a trial's identity need neither files nor torch.
They lie in `results/cache/reg/<recipe>/`, are drawn once, and are shared by all trials and sweeps.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.data.captions import classed
from sweep.data.dataset import DRAWN, Dataset, Photo, Recipe
from sweep.data.selection import matched
from sweep.errors import DataError, LockedError
from sweep.files import write_bytes
from sweep.lock import FolderLock, cache_lock
from sweep.methods import DREAMBOOTH
from sweep.model.base import EMBEDDED
from sweep.randomness import derived_seed

if TYPE_CHECKING:
    from torch import Tensor

    from sweep.model.base import Base
    from sweep.train_config import TrainConfig

CAPTION = "{caption}"
SAY_EVERY_S = 10.0
_LOCK_POLL_S = 1.0
_GROUP = 8
"""Images are drawn by eights, whole eights even where fewer are asked for: a row's last bits depend on its batch, and
an image must be the same however many there are and wherever a kill fell."""


def with_drawn(dataset: Dataset, config: TrainConfig, base_id: str, results_dir: Path) -> Dataset:
    """The dataset with the regularisation images that `generate_reg` asks for, as many as its photos need.

    Raises DataError for a prompt that can't be meant.
    """
    data, num = config.dataset, config.dataset.generate_reg
    if num is None:
        return dataset
    recipe = Recipe(base_id=base_id, prompts=_prompts(data.reg_prompt, dataset), num_steps=data.reg_num_steps,
                    guidance_scale=reg_guidance_scale(config), resolution=config.base_model.resolution,
                    clip_skip=config.clip_skip, max_token_length=config.max_token_length,
                    precision="no" if config.method.name == DREAMBOOTH else config.mixed_precision)
    num_shown = sum(photo.repeats for photo in dataset.photos)
    used = matched([recipe.photo(number, results_dir) for number in range(num)], num_shown)
    note = f"{len(used)} regularisation images are drawn by the base model: {_in_words(recipe.prompts)}"
    if num != num_shown:
        note += (f". Asked for were {num}; the photos are shown {num_shown} times per epoch, so {num_shown} are "
                 + ("needed to show none twice" if num < num_shown else "enough"))
    return replace(dataset, reg_photos=tuple(used), reg_subsets=((DRAWN, 1, len(used)),), recipe=recipe,
                   skipped=(*dataset.skipped, note))


def reg_guidance_scale(config: TrainConfig) -> float:
    """SD's usual 7, unless said otherwise; at 7 the faces of the pocket bases come apart."""
    return config.dataset.reg_guidance_scale or (3.0 if config.base_model.name in EMBEDDED else 7.0)


def _prompts(template: str, dataset: Dataset) -> tuple[str, ...]:
    """What `reg_prompt` stands for: its parts between |, and {caption} for each photo's caption without the trigger."""
    return tuple(prompt for part in template.split("|") for prompt in _of_part(part, template, dataset))


def _of_part(part: str, template: str, dataset: Dataset) -> Sequence[str]:
    if CAPTION in part:
        return _captions(part, template, dataset)
    prompt = part.replace("{class_noun}", dataset.class_noun).strip()
    if not prompt:
        raise DataError(f"dataset.reg_prompt={template!r} "
                        f"{'has an empty part beside a |' if template.strip() else 'is empty'}. Say what "
                        "regularisation images show, e.g. dataset.reg_prompt='photo of a {class_noun}'.")
    if "{" in prompt or "}" in prompt:
        raise DataError(f"dataset.reg_prompt={template!r}: {{class_noun}} and {CAPTION} are all that is put in; "
                        "leave other braces out.")
    if classed(prompt, dataset.trigger, dataset.class_noun) != prompt:
        raise DataError(f"dataset.reg_prompt={template!r} holds the trigger {dataset.trigger!r}. Regularisation images "
                        "show the class without the subject; leave the trigger out, or choose another trigger=WORD.")
    return [prompt]


def _captions(part: str, template: str, dataset: Dataset) -> Sequence[str]:
    if part.strip() != CAPTION:
        raise DataError(f"dataset.reg_prompt={template!r}: {CAPTION} stands alone, or alone between |: a caption is "
                        "drawn as it is.")
    found = [classed(photo.caption, dataset.trigger, dataset.class_noun) for photo in dataset.photos]
    for photo, caption in zip(dataset.photos, found, strict=True):
        if caption == photo.caption:
            raise DataError(f"dataset.reg_prompt={template!r} is each photo's caption without the trigger "
                            f"{dataset.trigger!r}, but that of {photo.path.name} holds none: {caption!r}. Put the "
                            "trigger into it, or name the prompts, with | between them.")
    return found


def _in_words(prompts: Sequence[str]) -> str:
    return repr(prompts[0]) if len(prompts) == 1 else f"{len(prompts)} prompts in turn, {prompts[0]!r} the first"


def draw_missing(base: Base, dataset: Dataset, *, say: Callable[[str], None],
                 on_progress: Callable[[int, int], None]) -> None:
    """Draw those regularisation images that are not there whole.

    say: takes lines for the trials' logs. on_progress: called after each group with (drawn, to draw); what it raises
    ends the drawing, and what has been drawn is kept.
    """
    if dataset.recipe is None or not _missing(dataset.reg_photos):
        return
    folder = dataset.reg_photos[0].path.parent
    with _locked(folder, say, partial(on_progress, 0, len(dataset.reg_photos))):
        missing = _missing(dataset.reg_photos)  # another worker may have drawn them
        groups = sorted({_number(photo) // _GROUP for photo in missing})
        num_done, said_s = 0, time.monotonic()
        for group in groups:
            numbers = range(group * _GROUP, (group + 1) * _GROUP)
            for number, image in zip(numbers, _draw(base, dataset.recipe, numbers), strict=True):
                _write(folder / f"{number:05d}.png", image)
            num_done += sum(_number(photo) in numbers for photo in missing)
            if time.monotonic() - said_s > SAY_EVERY_S or num_done == len(missing):
                say(f"regularisation images: {num_done} of {len(missing)} drawn")
                said_s = time.monotonic()
            on_progress(num_done, len(missing))


def _draw(base: Base, recipe: Recipe, numbers: Sequence[int]) -> Tensor:
    """[B, 3, resolution, resolution] in [0, 1] on the CPU."""
    from sweep.evaluation.generate import Row, generate
    from sweep.evaluation.settings import Sampler

    rows = [Row(None, 0.0, recipe.prompt(number), derived_seed(number, 0, "regularisation image"))
            for number in numbers]
    sampler = Sampler(name="dpmpp_2m_karras", num_steps=recipe.num_steps, guidance_scale=recipe.guidance_scale,
                      negative_prompt="")
    return generate(base, [], rows, sampler, resolution=recipe.resolution, batch_size=len(rows),
                    clip_skip=recipe.clip_skip, max_token_length=recipe.max_token_length)


def _write(path: Path, image_CHW: Tensor) -> None:
    """A PNG that says which pixels it should hold."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    image = Image.fromarray((image_CHW * 255).round().byte().permute(1, 2, 0).numpy())
    info = PngInfo()
    info.add_text("check", hashlib.sha256(image.tobytes()).hexdigest())
    content = io.BytesIO()
    image.save(content, "PNG", pnginfo=info)
    write_bytes(path, content.getvalue(), durable=False)  # what a power cut takes is drawn again


def _missing(photos: Sequence[Photo]) -> list[Photo]:
    return [photo for photo in photos if not _is_whole(photo)]


def _is_whole(photo: Photo) -> bool:
    try:
        stat = photo.path.stat()
    except OSError:
        return False
    return _has_its_pixels(photo.path, photo.size, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=65536)
def _has_its_pixels(path: Path, size: tuple[int, int], num_bytes: int, changed_ns: int) -> bool:
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            check = image.info.get("check")
            return (image.mode, image.size) == ("RGB", size) and check == hashlib.sha256(image.tobytes()).hexdigest()
    except (OSError, ValueError, SyntaxError):
        return False


def _locked(folder: Path, say: Callable[[str], None], on_wait: Callable[[], None]) -> FolderLock:
    """The folder's lock; while another worker draws, the log says whom this one waits for, unless on_wait raises."""
    has_said = False
    while True:
        try:
            return cache_lock(folder)
        except LockedError as error:
            if not has_said:
                say(f"waiting: {error}")
                has_said = True
            on_wait()
            time.sleep(_LOCK_POLL_S)


def _number(photo: Photo) -> int:
    return int(photo.path.stem)
