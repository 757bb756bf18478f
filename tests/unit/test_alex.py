"""The eleven trainings of the diary, as conf/experiment/alex has them."""

import re

import pytest
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra

from sweep.command_line import CONF_DIR
from sweep.config import RunConfig
from sweep.data.folder import read_dataset
from sweep.data.train_data import batch_plan
from sweep.errors import ConfigError
from sweep.reg_images import with_drawn
from sweep.schema import to_tree
from sweep.search.grid import Cells, cells_of
from tests.unit.test_config import loaded

NAMES = [f"alex_lora{number}" for number in range(1, 12)]
# (images, dim, alpha, batch size, repeats, epochs, regularisation images), as the diary says or its files fill in
SETTINGS = {
    1: (14, 128, 128, 1, 40, 12, 560), 2: (14, 128, 128, 6, 10, 10, 560), 3: (14, 128, 128, 1, 40, 12, None),
    4: (14, 128, 1, 1, 40, 12, None), 5: (14, 128, 128, 6, 40, 12, None), 6: (14, 128, 128, 6, 40, 12, None),
    7: (25, 128, 128, 3, 4, 12, 100), 8: (25, 8, 1, 2, 50, 12, None), 9: (25, 8, 1, 2, 10, 12, None),
    10: (25, 128, 128, 2, 10, 12, None), 11: (25, 128, 128, 2, 10, 24, None),
}
IN_DIARY = {1: 6720, 2: 233, 3: 6720}
"""The steps that the diary itself computes: images x repeats / batch size x epochs, regularisation images left out."""
STEPS = {1: 13440, 2: 470, 3: 6720, 4: 6720, 5: 1128, 6: 1128, 7: 804, 8: 7500, 9: 1500, 10: 1500, 11: 3000}
"""By sd-scripts' rule: an epoch's last batch is a step even if it is not full, and with regularisation images as many
of them are shown as photos."""


@pytest.fixture(scope="module")
def eleven() -> dict[int, RunConfig]:
    return {number: loaded(f"experiment=alex/{name}") for number, name in enumerate(NAMES, start=1)}


def steps_of(config: RunConfig, tmp_path) -> int:
    train = config.train
    dataset = read_dataset(train.dataset, trigger=None, class_noun=None, repeats=train.repeats)
    plan = batch_plan(train.dataset, with_drawn(dataset, train, "a base", tmp_path), seed=train.seed,
                      resolution=train.base_model.resolution, batch_size=train.train_batch_size,
                      accumulation=train.gradient_accumulation_steps)
    return plan.num_steps(train.max_train_epochs, train.max_train_steps)


def test_settings_are_the_diarys(eleven) -> None:
    for number, config in eleven.items():
        train = config.train
        assert SETTINGS[number] == (
            train.dataset.num_images, train.network_dim, train.network_alpha, train.train_batch_size, train.repeats,
            train.max_train_epochs, train.dataset.generate_reg), number
        assert train.base_model.name == ("pocket" if number in (1, 2, 6) else "pocket_rv"), number
        assert train.dataset.captions == (number == 1), number
        assert (train.optimizer.name, train.scheduler.name) == ("adamw8bit", "polynomial")
        assert (train.unet_lr, train.text_encoder_lr) == (1e-4, 5e-5)


@pytest.mark.parametrize("number", range(1, 12))
def test_steps_are_the_diarys_arithmetic(eleven, number: int, tmp_path) -> None:
    num_steps, train = steps_of(eleven[number], tmp_path), eleven[number].train
    assert num_steps == STEPS[number]
    by_hand = train.dataset.num_images * train.repeats / train.train_batch_size * train.max_train_epochs
    if number in IN_DIARY:
        assert int(by_hand) == IN_DIARY[number]
    # what rounding up adds is at most one step an epoch
    assert 0 <= num_steps - by_hand * (1 if train.dataset.generate_reg is None else 2) <= train.max_train_epochs


@pytest.mark.parametrize(("number", "same_as", "changes"), [
    (4, 3, {"network_alpha"}), (5, 3, {"train_batch_size"}), (6, 5, {"base_model"}), (9, 8, {"repeats"}),
    (10, 9, {"network_dim", "network_alpha"}), (11, 10, {"max_train_epochs"})])
def test_same_as_means_nothing_else_differs(eleven, number: int, same_as: int, changes: set[str]) -> None:
    one, other = (to_tree(eleven[n].train) for n in (number, same_as))
    assert {key for key in one if one[key] != other[key]} == changes
    if changes == {"base_model"}:
        assert {key for key in one["base_model"] if one["base_model"][key] != other["base_model"][key]} == {"name"}


def test_each_keeps_its_own_words_and_says_what_is_ours() -> None:
    notes = set()
    for name in NAMES:
        text = (CONF_DIR / "experiment" / "alex" / f"{name}.yaml").read_text(encoding="utf-8")
        assert re.search(r"^# \"Alex_LoRA\d+", text, re.MULTILINE), name
        assert re.search(r"\bours\b", text, re.IGNORECASE) or "/experiment/alex/" in text, name
        notes.add(loaded(f"experiment=alex/{name}").note)
    assert len(notes) == 11


def cells(*arguments: str) -> Cells:
    """What `python train.py -m` makes of the arguments."""
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        loader = GlobalHydra.instance().hydra.config_loader
        assert isinstance(loader, ConfigLoaderImpl)

        def compose(overrides: list[str]):
            from hydra import compose as hydra_compose

            return hydra_compose("config", overrides)

        return cells_of(arguments, compose, loader)


def test_a_glob_finds_them_in_the_diarys_order() -> None:
    found = cells("experiment=glob(alex/*)").cells
    assert [cell.settings["experiment"] for cell in found] == [f"alex/{name}" for name in NAMES]
    assert [cell.config.train.network_alpha for cell in found][3] == 1


def test_a_globs_star_stays_in_its_folder() -> None:
    flat = [str(cell.settings["experiment"]) for cell in cells("experiment=glob(network_*)").cells]
    assert flat == sorted(flat) and flat and not any("/" in name for name in flat)
    without = cells("experiment=glob(alex/*,exclude=alex/*1*)").cells
    assert [cell.settings["experiment"] for cell in without] == [f"alex/alex_lora{n}" for n in range(2, 10)]


def test_a_glob_that_matches_nothing_says_what_there_is() -> None:
    with pytest.raises(ConfigError, match=r"experiment=glob\(alx/\*\) matches nothing.*alex/alex_lora1, "):
        cells("experiment=glob(alx/*)")


def test_the_command_lines_base_and_photos_win() -> None:
    found = cells("experiment=glob(alex/*)", "base_model=sd15", "base_model.path=sd15/", "dataset.dir=photos/",
                  "scoring=none", "unet_lr=3e-4").cells
    assert len(found) == 11
    for cell in found:
        train = cell.config.train
        assert (train.base_model.name, train.base_model.path, train.base_model.resolution) == ("sd15", "sd15/", 512)
        assert (train.dataset.dir, train.unet_lr) == ("photos/", 3e-4)
    assert found[0].config.train.dataset.generate_reg == 560
    assert found[3].config.train.network_alpha == 1
