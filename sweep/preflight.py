"""Everything that is checked before a model is loaded: photos, captions, base; and what each cell's trial is.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sweep.combinations import ignored, refusal
from sweep.config import RunConfig
from sweep.data.folder import Dataset, read_dataset
from sweep.data.settings import DatasetConfig, check_dataset
from sweep.data.train_data import batch_plan
from sweep.errors import ConfigError, DataError
from sweep.evaluation.settings import check_fits, check_trains_on_one_base
from sweep.files import stable_hash
from sweep.identity import source_identity, train_id
from sweep.methods import TEXTUAL_INVERSION
from sweep.model.base import EMBEDDED
from sweep.model.sources import Source, find_base
from sweep.model.text import check_clip_skip, with_new_words
from sweep.reg_images import with_drawn
from sweep.schema import to_tree
from sweep.search.grid import Cell
from sweep.train_config import TrainConfig
from sweep.trial import Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A cell that has been looked at. dataset: without photos where they can't be used; the trial is then refused."""

    trial: Trial
    config: TrainConfig
    dataset: Dataset
    base_id: str
    num_checkpoints: int
    merged: tuple[str, ...] = ()  # other cells that would train the same, in words
    ignored: tuple[str, ...] = ()  # settings without effect, in words


class Preflight:
    """Checks cells; photos and bases that several cells share are read once."""

    def __init__(self, results_dir: Path):
        self._results_dir = results_dir
        self._datasets: dict[tuple[DatasetConfig, str | None, str | None, int | None, int | None],
                             Dataset | DataError] = {}
        self._bases: dict[object, tuple[Source, str]] = {}

    def check(self, cells: Sequence[Cell]) -> list[Checked]:
        """Checked cells, numbered from 1; cells that would train the same are merged into the first of them. One whose
        settings can't work together is refused: its trial says why, and the others go on.

        Raises ModelError for a base that can't be loaded, ConfigError if every cell is refused.
        """
        checked: dict[str, Checked] = {}
        for cell in cells:
            one = self._check(cell, number=len(checked) + 1)
            first = checked.setdefault(one.trial.train_id, one)
            if first is not one:
                same = f"{dict(cell.settings)} trains the same as {dict(first.trial.settings)} and is not run twice"
                checked[one.trial.train_id] = replace(first, merged=(*first.merged, same))
        reasons = [one.trial.refused for one in checked.values()]
        if all(reasons):
            raise ConfigError("\n".join(dict.fromkeys(reasons)))
        return list(checked.values())

    def look(self, cell: Cell) -> Checked:
        """One cell, whether or not its settings can work together."""
        return self._check(cell, number=1)

    def _check(self, cell: Cell, number: int) -> Checked:
        config = cell.config.train
        if cell.refused:
            return _unread(cell, number, cell.refused)
        try:
            _check_combination(cell.config)
            base_id = self._base(config)
            dataset = with_drawn(self._dataset(config), config, base_id, self._results_dir)
        except (ConfigError, DataError) as error:
            return _unread(cell, number, str(error))
        plan = batch_plan(config.dataset, dataset, resolution=config.base_model.resolution, seed=config.seed,
                          batch_size=config.train_batch_size, accumulation=config.gradient_accumulation_steps)
        steps = plan.num_steps(config.max_train_epochs, config.max_train_steps)
        refused = refusal(config) or self._unfit(config) or _unnamed(config, dataset)
        trial = Trial(number=number, train_id=train_id(config, dataset, base_id), settings=dict(cell.settings),
                      config=to_tree(config), num_steps=steps, refused=refused)
        return Checked(trial=trial, config=config, dataset=dataset, base_id=base_id, ignored=ignored(config),
                       num_checkpoints=_num_checkpoints(config, plan.steps_per_epoch, steps))

    def _dataset(self, config: TrainConfig) -> Dataset:
        key = (config.dataset, config.trigger, config.class_noun, config.repeats, config.images_per_epoch)
        if key not in self._datasets:
            try:
                self._datasets[key] = read_dataset(config.dataset, trigger=config.trigger, class_noun=config.class_noun,
                                                   repeats=config.repeats, images_per_epoch=config.images_per_epoch)
            except DataError as error:
                self._datasets[key] = error
        found = self._datasets[key]
        if isinstance(found, DataError):
            raise found
        return found

    def _base(self, config: TrainConfig) -> str:
        if config.base_model not in self._bases:
            source = find_base(config.base_model)
            self._bases[config.base_model] = source, source_identity(source, config.base_model, self._results_dir)
        return self._bases[config.base_model][1]

    def _unfit(self, config: TrainConfig) -> str:
        """Why the trial's settings don't suit its base; empty if they do, or if only loading it will tell."""
        source, _ = self._bases[config.base_model]
        if source.family is None or source.num_text_layers is None:
            return ""
        try:
            check_clip_skip(config.clip_skip, source.family, source.num_text_layers)
        except ConfigError as error:
            return str(error)
        return ""


def first_read(checked: Sequence[Checked]) -> Checked:
    """The first cell whose photos and base have been read; there is one where not every cell is refused."""
    return next((one for one in checked if one.dataset.photos), checked[0])


def _unread(cell: Cell, number: int, reason: str) -> Checked:
    """A cell that is refused before its photos are known. It is known by its settings, as there may be no config."""
    tree = {} if cell.refused else to_tree(cell.config.train)
    trial = Trial(number=number, train_id=stable_hash(["refused", tree or to_tree(cell.settings)]),
                  settings=dict(cell.settings), config=tree, num_steps=0, refused=reason)
    nothing = Dataset(photos=(), holdout=(), trigger="", class_noun="", skipped=())
    return Checked(trial=trial, config=cell.config.train, dataset=nothing, base_id="", num_checkpoints=0)


def _unnamed(config: TrainConfig, dataset: Dataset) -> str:
    """Why textual inversion has nothing to train; empty if a caption has the trigger."""
    if config.method.name != TEXTUAL_INVERSION:
        return ""
    captions = [photo.caption for photo in dataset.photos]
    if any(with_new_words(caption, dataset.trigger, 1) != caption for caption in captions):
        return ""
    return (f"method=textual_inversion trains what the trigger {dataset.trigger!r} stands for, and none of the "
            f"{len(captions)} captions has it, e.g. {captions[0]!r}. Set trigger=WORD to a word of the captions, or "
            f"put it into them (dataset.caption_prefix=\"{dataset.trigger} \").")


def _check_combination(config: RunConfig) -> None:
    """Refuse what would run and mean nothing."""
    train = config.train
    if train.base_model.name not in EMBEDDED and train.dataset.dir is None:
        raise ConfigError(f"base_model={train.base_model.name} needs dataset.dir=FOLDER: the photos that come with the "
                          "pocket base are 64-pixel renders.")
    check_dataset(train.dataset, train.base_model.resolution)
    check_fits(config.scoring, train.base_model.name)
    check_trains_on_one_base(config.scoring)


def _num_checkpoints(config: TrainConfig, per_epoch: int, steps: int) -> int:
    every = per_epoch * config.save_every_n_epochs
    due = {*range(every, steps + 1, every), steps}
    if config.save_every_n_steps is not None:
        due |= set(range(config.save_every_n_steps, steps + 1, config.save_every_n_steps))
    return len(due)
