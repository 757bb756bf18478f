"""Cells that can't work cost themselves and no other; and no cell costs a compose of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from sweep.command_line import CONF_DIR
from sweep.errors import ConfigError
from sweep.preflight import Preflight
from sweep.record.facts import without_mended
from sweep.search.grid import Cells, cells_of


@pytest.fixture(scope="module", autouse=True)
def hydra() -> Iterator[None]:
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        yield


def cells(*lines: str) -> tuple[Cells, int]:
    """What lines ask for, and how often that was composed."""
    composed = []

    def counted(overrides: list[str]):
        composed.append(overrides)
        return compose("config", overrides=overrides)

    return cells_of(lines, counted, GlobalHydra.instance().config_loader()), len(composed)


def test_a_setting_of_one_option_alone_drops_the_cells_of_the_others() -> None:
    found, num_composed = cells("optimizer=adamw,prodigy,lion", "optimizer.d_coef=0.5,1,2", "network_dim=4,8")
    assert num_composed <= 4, "what can't be composed costs one compose too"
    assert [bool(cell.refused) for cell in found.cells] == [True] * 6 + [False] * 6 + [True] * 6
    assert {cell.refused for cell in found.cells if cell.refused} == {
        "optimizer.d_coef is a key of optimizer=prodigy alone. Choose that option, or leave the key out."}
    able = [cell.config.train for cell in found.cells if not cell.refused]
    assert [(one.optimizer.d_coef, one.network_dim) for one in able] == [
        (0.5, 4), (0.5, 8), (1, 4), (1, 8), (2, 4), (2, 8)]
    assert found.config.train.optimizer.name == "prodigy"


def test_a_fixed_setting_of_one_option_alone_drops_the_cells_of_the_others() -> None:
    found, _ = cells("optimizer=adamw,prodigy", "optimizer.d_coef=2")
    assert [bool(cell.refused) for cell in found.cells] == [True, False]
    assert found.cells[1].config.train.optimizer.d_coef == 2


def test_a_value_out_of_range_drops_its_cells() -> None:
    found, _ = cells("network_dim=8,0", "unet_lr=1e-4,-1")
    assert [cell.refused for cell in found.cells] == [
        "", "unet_lr = -1 must be at least 0 and at most 10.",
        *["network_dim = 0 must be at least 1 and at most 4096."] * 2]


@pytest.mark.parametrize(("lines", "message"), [
    (("network_dim=0,-1",), "network_dim=0: network_dim = 0 must be .*\nnetwork_dim=-1: network_dim = -1 must be"),
    (("optimizer=adamw,lion", "optimizer.d_coef=1,2"), "optimizer.d_coef is a key of optimizer=prodigy alone"),
    (("optimizer=adamw,lion", "optimizer.d_coef=1"), "optimizer.d_coef is a key of optimizer=prodigy alone"),
    (("scoring=pocket,none",), "changes scoring, which holds for a whole sweep"),
])
def test_a_grid_without_a_cell_that_works_is_an_error(lines: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cells(*lines)


def test_refused_cells_are_trials_of_their_own_until_they_are_mended(tmp_path: Path) -> None:
    found, _ = cells("optimizer=adamw,prodigy", "optimizer.d_coef=0.5,2", "dataset.num_images=4")
    trials = [one.trial for one in Preflight(tmp_path).check(found.cells)]
    assert [trial.number for trial in trials] == [1, 2, 3, 4] and len({trial.train_id for trial in trials}) == 4
    assert [bool(trial.refused) for trial in trials] == [True, True, False, False]
    assert without_mended(trials) == trials
    mended, _ = cells("optimizer=prodigy", "dataset.num_images=4")
    [able] = [one.trial for one in Preflight(tmp_path).check(mended.cells)]
    able.settings.update(trials[0].settings)
    assert without_mended([*trials, able]) == [*trials[1:], able]


def test_what_one_cell_sets_does_not_stay_for_the_next() -> None:
    """A search sets some keys under a condition only."""
    found, _ = cells("search=random", "network_dim=choice(4,8)", "conv_dim=choice(2,3)", "max_train_steps=choice(7,9)")
    first = found.cell_at({"network_dim": 4, "conv_dim": 3, "max_train_steps": 7}).config.train
    assert (first.network_dim, first.network_alpha, first.conv_dim, first.conv_alpha) == (4, 4, 3, 3)
    second = found.cell_at({"network_dim": 8}).config.train
    assert (second.network_dim, second.network_alpha, second.conv_dim, second.max_train_steps) == (8, 8, None, None)
