"""Where the masks come from that weight the loss. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sweep.data.heads import Head, find_head
from sweep.data.images import IMAGE_SUFFIXES, ImageFacts, image_facts
from sweep.data.settings import DatasetConfig
from sweep.errors import DataError

ALPHA = "alpha"  # stands for the hash of a mask that is part of the photo


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskSource:
    """folder: of files named like the photos. None = the heads found in the photos, or their alpha channels."""

    folder: Path | None = None
    is_head: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask:
    """A photo's mask. path: of its file, the photo's own where it is made from the photo; None = the loss counts
    everywhere. sha256: of what it shows. head: the mask is this ellipse; without, and at the photo's own path, it is
    the alpha channel."""

    path: Path | None = None
    sha256: str = ""
    head: Head | None = None


def mask_source(config: DatasetConfig, root: Path) -> MaskSource | None:
    """None = no masks. Raises DataError if there is nowhere to take them from."""
    if config.mask == "head":
        return MaskSource(folder=_rendered_masks(root), is_head=True)
    if config.masked_loss == "alpha":
        return MaskSource()
    if config.masked_loss == "none":
        return None
    folder = Path(config.mask_dir or "").expanduser()
    if config.mask_dir is None or not folder.is_dir():
        raise DataError(f"dataset.mask_dir={config.mask_dir}: there is no such folder. Give the folder that holds a "
                        "mask for each photo: the same file name (without its ending), white where the loss counts.")
    return MaskSource(folder=folder)


def _rendered_masks(root: Path) -> Path | None:
    """The head masks that the pocket world's renderer wrote beside its photos; None = these are other photos."""
    for folder in (root.parent, root.parent.parent):
        if (folder / "subject.json").is_file() and (folder / "masks").is_dir():
            return folder / "masks"
    return None


def mask_of(source: MaskSource | None, photo: Path, subset: str, facts: ImageFacts) -> tuple[Mask, str]:
    """(mask, problem) of a photo. Raises DataError if heads are to be found and the detector is not installed."""
    if source is None or facts.problem:
        return Mask(), ""
    if source.folder is not None:
        return _mask_file(source.folder, photo, subset, facts)
    if not source.is_head:
        return (Mask(path=photo, sha256=ALPHA) if facts.has_alpha else Mask()), ""
    head = find_head(photo)
    if head is None:
        return Mask(), ("no face is found in it for dataset.mask=head; leave it out, or give masks of your own with "
                        "dataset.masked_loss=folder")
    return Mask(path=photo, sha256=head.identity, head=head), ""


def _mask_file(folder: Path, photo: Path, subset: str, facts: ImageFacts) -> tuple[Mask, str]:
    places = [folder / subset / f"{photo.stem}{suffix}" for suffix in IMAGE_SUFFIXES]
    places += [folder / f"{photo.stem}{suffix}" for suffix in IMAGE_SUFFIXES]
    mask = next((place for place in places if place.is_file()), None)
    if mask is None:
        return Mask(), f"no mask {photo.stem}.png for it in {folder}"
    mask_facts = image_facts(mask)
    if mask_facts.problem:
        return Mask(), f"its mask {mask.name} is {mask_facts.problem}"
    aspect, wanted = mask_facts.size[0] / mask_facts.size[1], facts.size[0] / facts.size[1]
    if abs(aspect / wanted - 1) > 0.02:
        return Mask(), (f"its mask {mask.name} has another shape ({mask_facts.size[0]}x{mask_facts.size[1]} for a "
                        f"photo of {facts.size[0]}x{facts.size[1]})")
    return Mask(path=mask, sha256=mask_facts.sha256), ""
