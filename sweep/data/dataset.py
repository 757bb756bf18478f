"""What a trial trains on, as records: photos, the recipe of regularisation images that the base draws, the whole."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from sweep.data.masks import Mask
from sweep.files import stable_hash

RECIPE_VERSION = 1  # raise when the same recipe would draw something else
DRAWN = "drawn by the base model"  # the subset of such images


@dataclass(frozen=True, slots=True, kw_only=True)
class Photo:
    """One training photo or regularisation image. repeats: how often an epoch shows it."""

    path: Path
    caption: str  # what stands for it in prompts and metadata; what it is trained with unless `template` is set
    repeats: int
    subset: str  # name of its folder
    sha256: str
    size: tuple[int, int]  # (width, height) in pixels, upright
    template: str = ""  # the text that captions are drawn from where it is not the caption: lines, {a|b|c}, separators
    mask: Mask = Mask()  # weights the loss

    @property
    def text(self) -> str:
        """What the captions of its batches are made from."""
        return self.template or self.caption


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What an image depends on besides its number. The device is not part of it: other kernels round otherwise."""

    base_id: str
    prompts: tuple[str, ...]  # they take turns
    num_steps: int
    guidance_scale: float
    resolution: int
    clip_skip: int
    max_token_length: int
    precision: str

    @property
    def key(self) -> str:
        tree = asdict(self)
        prompts = tree.pop("prompts")
        tree["prompt"] = prompts[0] if len(prompts) == 1 else prompts  # as one was known when there could be but one
        return stable_hash([RECIPE_VERSION, tree], num_digits=24)

    def prompt(self, number: int) -> str:
        """By which image `number` from 0 is drawn; its caption too."""
        return self.prompts[number % len(self.prompts)]

    def photo(self, number: int, results_dir: Path) -> Photo:
        """Image `number` from 0 as training sees it; its file need not be there."""
        return Photo(path=results_dir / "cache" / "reg" / self.key / f"{number:05d}.png", caption=self.prompt(number),
                     repeats=1, subset=DRAWN, sha256=stable_hash([self.key, number], num_digits=64),
                     size=(self.resolution, self.resolution))


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """The photos of one trial, in the order of their names. Captions hold the trigger as the user wrote it."""

    photos: tuple[Photo, ...]
    holdout: tuple[Path, ...]
    trigger: str
    class_noun: str
    skipped: tuple[str, ...]  # what was left out or is changed, in words, for the record
    reg_photos: tuple[Photo, ...] = ()  # regularisation images, with the repeats that match the photos'
    reg_subsets: tuple[tuple[str, int, int], ...] = ()  # (folder, its repeats, its images) as they lie on disk
    recipe: Recipe | None = None  # by which the base draws the regularisation images, where it does
    validation: tuple[Photo, ...] = ()  # photos split off for the validation loss, or else the held-out ones
    is_split: bool = False  # whether `validation` was split off the photos

    @property
    def all_photos(self) -> tuple[Photo, ...]:
        """Photos and regularisation images: what is trained on."""
        return self.photos + self.reg_photos

    @property
    def identity(self) -> str:
        """Hash of what is trained on: image bytes, captions, repeats, regularisation images, masks; not of where the
        files lie."""
        rows = [[p.sha256, p.caption, p.repeats] for p in self.photos]
        more: dict[str, object] = {}  # each only where there is one: trials without stay known by the rows alone
        if self.reg_photos:
            more["reg"] = [[p.sha256, p.text, p.repeats] for p in self.reg_photos]
        if any(p.template for p in self.photos):
            more["templates"] = [p.template for p in self.photos]
        if any(p.mask.path for p in self.photos):
            more["masks"] = [p.mask.sha256 for p in self.photos]
        if self.is_split:
            more["validation"] = [[p.sha256, p.caption] for p in self.validation]
        return stable_hash([rows, more] if more else rows)

    @property
    def content(self) -> str:
        """Hash of the photos and captions, however often each is shown."""
        return stable_hash(sorted([p.sha256, p.caption] for p in self.photos))
