"""Photos and captions as trainers keep them: `<repeats>_<token words>/NNN.png` with `NNN.txt` beside.

Reads and checks everything before a model is loaded; imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sweep.errors import DataError
from sweep.files import sha256_of, stable_hash
from sweep.pocket import SUBJECT_DIR
from sweep.schema import bounds

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
SUBSET_NAME = re.compile(r"^(\d+)_(.+)$")
MAX_ERRORS_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetConfig:
    """Which photos of the subject to train on, and which to keep for scoring."""

    name: str
    dir: str | None
    # folder with subsets <repeats>_<trigger> <class>, or with the photos themselves; null = the pocket's own subject
    holdout_dir: str | None
    # photos of the subject that are never trained on, the ceiling of likeness; null = none (leave-one-out), or the
    # pocket's own where dir is null
    num_images: int | None = bounds(1)
    # train on the first this many photos by file name; null = all
    captions: bool
    # false = every photo gets its folder's token words as caption
    caption_extension: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Photo:
    """One training photo. repeats: how often an epoch shows it."""

    path: Path
    caption: str
    repeats: int
    subset: str  # name of its folder
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """The photos of one trial, in the order of their names. Captions hold the trigger as the user wrote it."""

    photos: tuple[Photo, ...]
    holdout: tuple[Path, ...]
    trigger: str
    class_noun: str
    skipped: tuple[str, ...]  # what was left out, in words, for the record

    @property
    def identity(self) -> str:
        """Hash of what is trained on: image bytes, captions, repeats; not of where the files lie."""
        return stable_hash([[p.sha256, p.caption, p.repeats] for p in self.photos])

    @property
    def content(self) -> str:
        """Hash of the photos and captions, however often each is shown."""
        return stable_hash(sorted([p.sha256, p.caption] for p in self.photos))


def read_dataset(config: DatasetConfig, *, trigger: str | None, class_noun: str | None,
                 repeats: int | None) -> Dataset:
    """Read and check a folder of photos.

    trigger, class_noun: null = from the subset's name (`10_alexq man` -> alexq, man).
    repeats: overrides the folders' numbers.
    Raises DataError naming all offending files at once.
    """
    root = SUBJECT_DIR / "train" if config.dir is None else Path(config.dir).expanduser()
    if not root.is_dir():
        raise DataError(f"dataset.dir={config.dir}: there is no such folder. Give the folder that holds your photos, "
                        "or <repeats>_<trigger> <class> subfolders of them.")
    skipped: list[str] = []
    subsets = list(_subsets(root, skipped))
    if not subsets:
        raise DataError(f"{root} holds no photos ({', '.join(IMAGE_SUFFIXES)}), neither itself nor in subfolders "
                        "named <repeats>_<trigger> <class>, e.g. \"10_alexq man\".")
    words = subsets[0][1].split()
    trigger = trigger or (words[0] if words else "")
    class_noun = class_noun or " ".join(words[1:]) or "person"
    if not trigger:
        raise DataError(f"{root} is a plain folder: say which word means the subject with trigger=WORD "
                        "(and class_noun=man, say), or name the folder \"10_WORD man\".")
    problems: list[str] = []
    photos: list[Photo] = []
    for folder, token, number in subsets:
        token = token or f"{trigger} {class_noun}"
        for path in _images(folder):
            problem = _image_problem(path)
            caption = token
            if problem is None and config.captions:
                caption, problem = _caption(path, config.caption_extension, token)
            if problem is not None:
                problems.append(f"{path}: {problem}")
                continue
            photos.append(Photo(path=path, caption=caption, repeats=repeats or number, subset=folder.name,
                                sha256=sha256_of(path)))
    if problems:
        more = f"\n  ... and {len(problems) - MAX_ERRORS_SHOWN} more" if len(problems) > MAX_ERRORS_SHOWN else ""
        listing = "\n  ".join(problems[:MAX_ERRORS_SHOWN])
        raise DataError(f"{len(problems)} files in {root} can't be used; mend or remove them:\n  {listing}{more}")
    if config.num_images is not None and config.num_images > len(photos):
        raise DataError(f"dataset.num_images={config.num_images}, but {root} holds {len(photos)} photos.")
    photos = photos[:config.num_images]
    skipped += _without_trigger(photos, trigger)
    return Dataset(photos=tuple(photos), holdout=_holdout(config, photos), trigger=trigger, class_noun=class_noun,
                   skipped=tuple(skipped))


def _subsets(root: Path, skipped: list[str]) -> Iterator[tuple[Path, str, int]]:
    """(folder, token words, repeats) of each subset; a plain folder is one subset with one repeat."""
    for folder in sorted(p for p in root.iterdir() if p.is_dir()):
        match = SUBSET_NAME.match(folder.name)
        if match is None:
            skipped.append(f"ignored the folder {folder.name}: its name does not begin with a number of repeats")
        elif int(match[1]) == 0:
            skipped.append(f"ignored the folder {folder.name}: 0 repeats")
        elif any(_images(folder)):
            yield folder, match[2], int(match[1])
        else:
            skipped.append(f"ignored the folder {folder.name}: no photos in it")
    if any(_images(root)):
        match = SUBSET_NAME.match(root.name)
        yield (root, match[2], int(match[1])) if match else (root, "", 1)


def _images(folder: Path) -> Iterator[Path]:
    return (p for p in sorted(folder.iterdir()) if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())


def _image_problem(path: Path) -> str | None:
    """Why the photo can't be decoded, or None."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return f"not a readable image ({error})"
    return None


def _caption(path: Path, extension: str, token: str) -> tuple[str, str | None]:
    """(caption, problem): the first line of the caption file replaces the folder's token words."""
    file = path.with_suffix(extension)
    if not file.is_file():
        return token, None
    try:
        lines = file.read_text(encoding="utf-8-sig").strip().splitlines()
    except UnicodeDecodeError:
        return "", f"its caption {file.name} is not UTF-8"
    if not lines or not lines[0].strip():
        return "", f"its caption {file.name} is empty; write one or delete the file"
    return lines[0].strip(), None


def held_out_photos(dataset: Dataset, config: DatasetConfig) -> tuple[Photo, ...]:
    """The held-out photos with their captions; one without a caption that can be read has the token words."""
    token = f"{dataset.trigger} {dataset.class_noun}"
    photos = []
    for path in dataset.holdout:
        caption, problem = _caption(path, config.caption_extension, token)
        photos.append(Photo(path=path, caption=token if problem else caption, repeats=1, subset=path.parent.name,
                            sha256=sha256_of(path)))
    return tuple(photos)


def _without_trigger(photos: list[Photo], trigger: str) -> list[str]:
    names = [p.path.name for p in photos if trigger not in re.split(r"[\s,.]+", p.caption)]
    if not names:
        return []
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return [f"{len(names)} captions lack the trigger {trigger!r}: {shown}"]


def _holdout(config: DatasetConfig, photos: list[Photo]) -> tuple[Path, ...]:
    if config.holdout_dir is None and config.dir is not None:
        return ()
    folder = SUBJECT_DIR / "holdout" if config.holdout_dir is None else Path(config.holdout_dir).expanduser()
    if not folder.is_dir():
        raise DataError(f"dataset.holdout_dir={config.holdout_dir}: there is no such folder. Give one with photos of "
                        "the subject that are not trained on, or null.")
    held_out = tuple(_images(folder))
    if not held_out:
        raise DataError(f"dataset.holdout_dir={config.holdout_dir} holds no photos ({', '.join(IMAGE_SUFFIXES)}).")
    problems = [f"{path}: {problem}" for path in held_out if (problem := _image_problem(path)) is not None]
    if problems:
        raise DataError(f"{len(problems)} held-out photos can't be used:\n  " + "\n  ".join(problems))
    trained_on = {p.sha256: p.path for p in photos}
    leaks = [f"{path} is {trained_on[digest]}" for path in held_out if (digest := sha256_of(path)) in trained_on]
    if leaks:
        raise DataError("Held-out photos must not be trained on; remove these from one of the two folders:\n  "
                        + "\n  ".join(leaks))
    return held_out
