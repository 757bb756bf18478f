"""Photos and captions as trainers keep them: `<repeats>_<token words>/NNN.png` with `NNN.txt` beside.

Reads and checks everything before a model is loaded; imports no torch. Photos are ordered by the names of folder and
file and so by nothing that a file system decides.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sweep.data.captions import has_trigger, plain_caption, read_caption, with_fixed_parts
from sweep.data.dataset import Dataset, Photo
from sweep.data.images import IMAGE_SUFFIXES, OTHER_IMAGE_SUFFIXES, ImageFacts, image_facts
from sweep.data.masks import mask_of, mask_source
from sweep.data.selection import fair_share, matched, repeated_to, split_by_content
from sweep.data.settings import DatasetConfig
from sweep.errors import DataError
from sweep.pocket import SUBJECT_DIR

__all__ = ["Dataset", "DatasetConfig", "Photo", "read_dataset"]

SUBSET_NAME = re.compile(r"^(\d+)_(.+)$")
FOLDERS_OF_A_PROJECT = ("img", "reg")  # as sd-scripts' users keep training and regularisation images side by side


@dataclass(slots=True)
class _Findings:
    """What reading comes upon: problems stop it at the end, all together; notes go into the record."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    changes: dict[str, list[str]] = field(default_factory=dict)  # what is done to an image -> names of the files

    def facts_of(self, path: Path) -> ImageFacts:
        facts = image_facts(path)
        if facts.problem:
            self.problems.append(f"{path}: {facts.problem}")
        for note in facts.notes:
            self.changes.setdefault(note, []).append(path.name)
        return facts

    def all_notes(self) -> tuple[str, ...]:
        return (*self.notes, *(f"{_listed(names)}: {change}" for change, names in sorted(self.changes.items())))


def read_dataset(config: DatasetConfig, *, trigger: str | None, class_noun: str | None,
                 repeats: int | None, images_per_epoch: int | None = None) -> Dataset:
    """Read and check a folder of photos.

    trigger, class_noun: null = from the first subset's name (`10_alexq man` -> alexq, man).
    repeats: overrides the folders' numbers, not those of regularisation folders. images_per_epoch: of each folder,
    overrides them too.
    Raises DataError naming all offending files at once.
    """
    found = _Findings()
    root, reg_root = _roots(config, found)
    subsets = list(_subsets(root, found, ignored=() if reg_root is None else (reg_root,)))
    if not subsets:
        _raise_problems(root, found)
        raise DataError(f"{root} holds no photos ({', '.join(IMAGE_SUFFIXES)}), neither itself nor in subfolders "
                        f"named <repeats>_<trigger> <class>, e.g. \"10_alexq man\".{_where_photos_are(root)}")
    words = subsets[0][1].split()
    trigger = trigger or (words[0] if words else "")
    class_noun = class_noun or " ".join(words[1:]) or "person"
    if not trigger:
        raise DataError(f"{root} is a plain folder: say which word means the subject with trigger=WORD "
                        "(and class_noun=man, say), or name the folder \"10_WORD man\".")
    masks = mask_source(config, root)
    photos: list[Photo] = []
    for folder, token, number in subsets:
        for photo, facts in _read_subset(folder, token or f"{trigger} {class_noun}", repeats or number, config, found):
            fixed = _captioned(photo, with_fixed_parts(photo.text, config, trigger), config)
            mask, problem = mask_of(masks, fixed.path, fixed.subset, facts)
            if problem:
                found.problems.append(f"{fixed.path}: {problem}")
            photos.append(replace(fixed, mask=mask))
    reg_photos = _read_reg(reg_root, class_noun, config, found)
    holdout = _read_holdout(config, photos, class_noun, trigger, found)
    _raise_problems(root, found)
    if config.masked_loss == "alpha" and not any(photo.mask.path for photo in photos):
        raise DataError(f"dataset.masked_loss=alpha, but no photo in {root} has an alpha channel. Save the photos as "
                        "PNG with transparency, or give dataset.masked_loss=folder dataset.mask_dir=FOLDER.")
    photos, validation = split_by_content(photos, config.validation_split)
    if config.num_images is not None and config.num_images > len(photos):
        raise DataError(f"dataset.num_images={config.num_images}, but {root} holds {len(photos)} photos"
                        + (f" beside {len(validation)} kept for validation." if validation else "."))
    photos = repeated_to(images_per_epoch, fair_share(photos, config.num_images))
    found.notes += _without_trigger(photos, trigger) + _copies(photos)
    return Dataset(photos=tuple(photos), holdout=tuple(photo.path for photo in holdout), trigger=trigger,
                   class_noun=class_noun, skipped=found.all_notes(), is_split=bool(validation),
                   reg_photos=tuple(matched(reg_photos, sum(photo.repeats for photo in photos))),
                   reg_subsets=_counted(reg_photos),
                   validation=tuple(validation) or tuple(holdout))


def _roots(config: DatasetConfig, found: _Findings) -> tuple[Path, Path | None]:
    """The folder of photos and that of regularisation images."""
    if config.dir is None:
        root, reg = SUBJECT_DIR / "train", None
    else:
        root = Path(config.dir).expanduser()
        if root.is_file():
            raise DataError(f"dataset.dir={config.dir} is a file. Give the folder that it lies in: "
                            f"dataset.dir={Path(config.dir).parent}")
        if not root.is_dir():
            raise DataError(f"dataset.dir={config.dir}: there is no such folder. Give the folder that holds your "
                            "photos, or <repeats>_<trigger> <class> subfolders of them.")
        image_folder, reg = (root / name for name in FOLDERS_OF_A_PROJECT)
        if image_folder.is_dir() and not any(SUBSET_NAME.match(p.name) for p in root.iterdir()):
            root = image_folder
            found.notes.append("photos are taken from the folder img")
    if config.reg_dir == "none" or (config.reg_dir is None and (reg is None or not reg.is_dir())):
        return root, None
    if config.generate_reg is not None:
        raise DataError(f"dataset.generate_reg={config.generate_reg} draws the regularisation images, but there are "
                        f"others in {reg}. Leave generate_reg out to train with those, or give dataset.reg_dir=none to "
                        "train without them.")
    if config.reg_dir is None:
        found.notes.append("regularisation images are taken from the folder reg; dataset.reg_dir=none trains without")
        return root, reg
    reg = Path(config.reg_dir).expanduser()
    if not reg.is_dir():
        raise DataError(f"dataset.reg_dir={config.reg_dir}: there is no such folder. Give one with <repeats>_<class> "
                        "subfolders of regularisation images, or none.")
    return root, reg


def _where_photos_are(root: Path) -> str:
    """What to type if the photos are one level off; empty if they are nowhere near."""
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        if any(SUBSET_NAME.match(path.name) for path in folder.iterdir() if path.is_dir()):
            holdout = f" dataset.holdout_dir={root / 'holdout'}" if (root / "holdout").is_dir() else ""
            return f" Its subfolder {folder.name} has such subfolders: dataset.dir={folder}{holdout}"
        if any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir()):
            return (f" There are photos in \"{folder.name}\": put the repeats before its name, \"10_{folder.name}\", "
                    f"or give it as a plain folder: dataset.dir=\"{folder}\" trigger=WORD")
    return ""


def _subsets(root: Path, found: _Findings, ignored: Sequence[Path] = ()) -> Iterator[tuple[Path, str, int]]:
    """(folder, token words, repeats) of each subset; a plain folder is one subset with one repeat."""
    for folder in sorted(root.iterdir(), key=lambda p: p.name):
        match = SUBSET_NAME.match(folder.name)
        if folder.is_symlink() and not folder.exists() and folder.suffix.lower() not in IMAGE_SUFFIXES:
            if match is not None:
                found.problems.append(f"{folder}: a link that leads nowhere or in a circle")
        elif not folder.is_dir() or folder.name.startswith(".") or folder in ignored:
            continue
        elif match is None:
            found.notes.append(f"ignored the folder {folder.name}: its name does not begin with a number of repeats")
        elif int(match[1]) == 0:
            found.notes.append(f"ignored the folder {folder.name}: 0 repeats")
        elif any(_images(folder)):
            yield folder, match[2], int(match[1])
        else:
            found.notes.append(f"ignored the folder {folder.name}: no photos in it")
    if any(_images(root)):
        match = SUBSET_NAME.match(root.name)
        yield (root, match[2], int(match[1])) if match else (root, "", 1)


def _images(folder: Path) -> Iterator[Path]:
    """Files with an image's name; among them links that lead nowhere, so that they are reported."""
    return (p for p in sorted(folder.iterdir(), key=lambda p: p.name)
            if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".") and not p.is_dir())


def _read_subset(folder: Path, token: str, repeats: int, config: DatasetConfig,
                 found: _Findings) -> Iterator[tuple[Photo, ImageFacts]]:
    others = [p.name for p in sorted(folder.iterdir()) if p.suffix.lower() in OTHER_IMAGE_SUFFIXES]
    if others:
        found.notes.append(f"ignored {_listed(others)}: only {', '.join(IMAGE_SUFFIXES)} are read")
    for path in _images(folder):
        facts = found.facts_of(path)
        caption = None
        if config.captions:
            caption, problem = read_caption(path, config.caption_extension, all_lines=config.enable_wildcard)
            if problem:
                found.problems.append(f"{path}: {problem}")
        photo = Photo(path=path, caption="", repeats=repeats, subset=folder.name, sha256=facts.sha256, size=facts.size)
        yield _captioned(photo, caption or token, config), facts


def _captioned(photo: Photo, text: str, config: DatasetConfig) -> Photo:
    separator = config.keep_tokens_separator
    if not config.enable_wildcard and not (separator and separator in text):
        return replace(photo, caption=text, template="")
    caption = plain_caption(text, separator, choose=config.enable_wildcard)
    return replace(photo, caption=caption, template="" if caption == text else text)


def _read_reg(root: Path | None, class_noun: str, config: DatasetConfig, found: _Findings) -> list[Photo]:
    """Regularisation images as they lie in their folders. Prefix, suffix and trigger are the photos' alone."""
    if root is None:
        return []
    photos = [photo for folder, token, number in _subsets(root, found)
              for photo, _ in _read_subset(folder, token or class_noun, number, config, found)]
    if not photos and not found.problems:
        raise DataError(f"{root} holds no regularisation images ({', '.join(IMAGE_SUFFIXES)}), neither itself nor in "
                        "subfolders named <repeats>_<class>, e.g. \"1_man\".")
    return photos


def _counted(photos: Sequence[Photo]) -> tuple[tuple[str, int, int], ...]:
    counts = Counter((photo.subset, photo.repeats) for photo in photos)
    return tuple((subset, repeats, count) for (subset, repeats), count in counts.items())


def _read_holdout(config: DatasetConfig, photos: Sequence[Photo], class_noun: str, trigger: str,
                  found: _Findings) -> list[Photo]:
    if config.holdout_dir is None and config.dir is not None:
        return []
    folder = SUBJECT_DIR / "holdout" if config.holdout_dir is None else Path(config.holdout_dir).expanduser()
    if not folder.is_dir():
        raise DataError(f"dataset.holdout_dir={config.holdout_dir}: there is no such folder. Give one with photos of "
                        "the subject that are not trained on, or null.")
    held_out = [photo for photo, _ in _read_subset(folder, f"{trigger} {class_noun}", 1, config, found)]
    if not held_out:
        raise DataError(f"dataset.holdout_dir={config.holdout_dir} holds no photos ({', '.join(IMAGE_SUFFIXES)}). "
                        "Held-out photos lie in the folder itself, not in subfolders.")
    trained_on = {p.sha256: p.path for p in photos if p.sha256}
    leaks = [f"{p.path} is {trained_on[p.sha256]}" for p in held_out if p.sha256 in trained_on]
    if leaks:
        raise DataError("Held-out photos must not be trained on; remove these from one of the two folders:\n  "
                        + "\n  ".join(leaks))
    return held_out


def _raise_problems(root: Path, found: _Findings) -> None:
    if found.problems:
        raise DataError(f"{len(found.problems)} files in {root} can't be used; mend or remove them:\n  "
                        + "\n  ".join(found.problems))


def _without_trigger(photos: Sequence[Photo], trigger: str) -> list[str]:
    names = [p.path.name for p in photos if not has_trigger(p.caption, trigger)]
    return [f"{len(names)} captions lack the trigger {trigger!r}: {', '.join(names)}"] if names else []


def _copies(photos: Sequence[Photo]) -> list[str]:
    first: dict[str, Photo] = {}
    copies = [f"{p.path.name} = {first[p.sha256].path.name}" for p in photos
              if first.setdefault(p.sha256, p) is not p]
    return [f"{len(copies)} photos are copies of others, which so count more: {_listed(copies)}"] if copies else []


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
