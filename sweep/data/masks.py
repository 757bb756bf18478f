"""Where the masks come from that weight the loss. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sweep.data.images import IMAGE_SUFFIXES, ImageFacts, image_facts
from sweep.data.settings import DatasetConfig
from sweep.errors import DataError

ALPHA = "alpha"  # stands for the hash of a mask that is part of the photo


@dataclass(frozen=True, slots=True)
class MaskSource:
    """folder: of files named like the photos; None = the photos' own alpha channels."""

    folder: Path | None


def mask_source(config: DatasetConfig, root: Path) -> MaskSource | None:
    """None = no masks. Raises DataError if there is nowhere to take them from."""
    if config.mask == "head":
        return MaskSource(_head_masks(root))
    if config.masked_loss == "alpha":
        return MaskSource(None)
    if config.masked_loss == "none":
        return None
    folder = Path(config.mask_dir or "").expanduser()
    if config.mask_dir is None or not folder.is_dir():
        raise DataError(f"dataset.mask_dir={config.mask_dir}: there is no such folder. Give the folder that holds a "
                        "mask for each photo: the same file name (without its ending), white where the loss counts.")
    return MaskSource(folder)


def _head_masks(root: Path) -> Path:
    """The head masks that the pocket world's renderer wrote beside its photos."""
    for folder in (root.parent, root.parent.parent):
        if (folder / "subject.json").is_file() and (folder / "masks").is_dir():
            return folder / "masks"
    raise DataError(f"dataset.mask=head: {root} has no head masks. They are made by the renderer of the pocket world "
                    "(`python -m sweep.pocket.subject` writes masks/ beside train/); for photographs a detector of "
                    "face landmarks would be needed, which is not built in. Give masks of your own with "
                    "dataset.masked_loss=folder dataset.mask_dir=FOLDER.")


def mask_of(source: MaskSource | None, photo: Path, subset: str, facts: ImageFacts) -> tuple[Path | None, str, str]:
    """(mask, hash of its content, problem) of a photo; its own path where its alpha channel is the mask."""
    if source is None or facts.problem:
        return None, "", ""
    if source.folder is None:
        return (photo, ALPHA, "") if facts.has_alpha else (None, "", "")
    places = [source.folder / subset / f"{photo.stem}{suffix}" for suffix in IMAGE_SUFFIXES]
    places += [source.folder / f"{photo.stem}{suffix}" for suffix in IMAGE_SUFFIXES]
    mask = next((place for place in places if place.is_file()), None)
    if mask is None:
        return None, "", f"no mask {photo.stem}.png for it in {source.folder}"
    mask_facts = image_facts(mask)
    if mask_facts.problem:
        return None, "", f"its mask {mask.name} is {mask_facts.problem}"
    aspect, wanted = mask_facts.size[0] / mask_facts.size[1], facts.size[0] / facts.size[1]
    if abs(aspect / wanted - 1) > 0.02:
        return None, "", (f"its mask {mask.name} has another shape ({mask_facts.size[0]}x{mask_facts.size[1]} for a "
                          f"photo of {facts.size[0]}x{facts.size[1]})")
    return mask, mask_facts.sha256, ""
