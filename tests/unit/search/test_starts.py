"""conf/ has one home: where the command line, a search's starts and kohya's names look is the same folder."""

import json
from pathlib import Path
from typing import Any

import pytest

import sweep.config
from sweep.combinations import refusal
from sweep.command_line import CONF_DIR
from sweep.config import compose
from sweep.errors import ConfigError
from sweep.record.kohya import names
from sweep.schema import to_tree
from sweep.search import starts
from sweep.search.axes import Axis, Span
from sweep.search.space import Space, standing


def test_there_is_one_conf() -> None:
    assert names.CONF_DIR is CONF_DIR and sweep.config.CONF_DIR is CONF_DIR and starts.CONF_DIR is CONF_DIR
    assert starts.STARTS_DIR.is_relative_to(CONF_DIR) and list(starts.STARTS_DIR.glob("*.yaml"))


def test_starts_are_read_by_name_or_path(tmp_path: Path) -> None:
    known = sorted(starts.STARTS_DIR.glob("*.yaml"))[0]
    points = starts.read_starts(known.stem)
    assert points and points == starts.read_starts(str(known))
    (tmp_path / "a.yaml").write_text("network_dim: 8")
    with pytest.raises(ConfigError, match="must be a list"):
        starts.read_starts(str(tmp_path / "a.yaml"))


def test_every_shipped_point_composes_to_what_it_says() -> None:
    for file in starts.STARTS_DIR.glob("*.yaml"):
        for point in starts.read_starts(file.stem):
            train = compose([f"{key}={json.dumps(value)}" for key, value in point.items()]).train
            assert not refusal(train)
            assert {key: standing(key, to_tree(train)) for key in point} == point


def test_an_unknown_key_is_refused_with_the_near_one(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("- {network_dim: 8}\n- {netwrk_dim: 128}")
    with pytest.raises(ConfigError, match='point 2: unknown key "netwrk_dim".* "network_dim"'):
        starts.read_starts(str(tmp_path / "a.yaml"))


def test_a_rate_as_people_write_it_is_a_number(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("- {unet_lr: 1e-4, optimizer: lion, network_alpha: null}")
    assert starts.read_starts(str(tmp_path / "a.yaml")) == [
        {"unet_lr": 1e-4, "optimizer": "lion", "network_alpha": None}]


DIM = Axis(key="network_dim", lines=("network_dim=32", "network_dim=128"), values=(32, 128), is_swept=True)
RATE = Axis(key="unet_lr", lines=(), values=(), is_swept=True, span=Span(low=1e-5, high=1e-3, is_whole=False,
                                                                        is_log=True))
OPTIMIZER = Axis(key="optimizer", lines=("optimizer=adamw", "optimizer=prodigy"), values=("adamw", "prodigy"),
                 is_swept=True)


def config_at(settings: dict[str, Any]) -> dict[str, Any]:
    optimizer = settings.get("optimizer", "adamw")
    return {"network": {"name": "lora"}, "scheduler": {"name": "constant"}, "network_alpha": 16.0,
            "unet_lr": 1.0 if optimizer == "prodigy" else 1e-4, **settings, "optimizer": {"name": optimizer}}


@pytest.mark.parametrize(("point", "tried"), [
    ({"network_dim": 32, "unet_lr": 1e-4, "network_alpha": 16}, {"network_dim": 32, "unet_lr": 1e-4}),
    ({"network": "lokr", "unet_lr": 6.5e-5}, "network=lokr there, lora here; set or search"),
    ({"network_dim": 64, "unet_lr": 1.0}, "outside of what is searched: network_dim=64, unet_lr=1.0"),
    ({"network_dim": 32, "network_alpha": 8, "scheduler": "cosine"},
     "scheduler=cosine there, constant here, network_alpha=8 there, 16.0 here"),
    ({"network_alpha": 16}, "nothing in it is searched"),
    ({"network_dim": 32, "optimizer.d_coef": 2}, "optimizer.d_coef=2 there, null here"),
])
def test_a_point_is_tried_as_it_is_meant_or_left_out(point: dict[str, Any], tried: dict[str, Any] | str) -> None:
    kept, left_out = starts.fitting([point], Space([DIM, RATE], {}, {}), config_at, ())
    if isinstance(tried, str):
        assert not kept and left_out[0].startswith("point 1: ") and all(
            part in left_out[0] for part in tried.split(", "))
    else:
        assert (kept, left_out) == ([tried], [])


def test_what_is_typed_wins_over_a_point() -> None:
    point = {"network_dim": 32, "optimizer": "adamw8bit", "optimizer.weight_decay": 0.1, "network_alpha": 8}
    space = Space([DIM, RATE], {}, {})
    assert starts.fitting([point], space, config_at, ("optimizer", "network_alpha"))[0] == [{"network_dim": 32}]
    assert not starts.fitting([point], space, config_at, ("optimizer",))[0]


def test_points_that_are_the_same_here_are_tried_once() -> None:
    points = [{"network_dim": 128}, {"network_dim": 128, "network_alpha": 16}, {"network_dim": 32}]
    kept, left_out = starts.fitting(points, Space([DIM, RATE], {}, {}), config_at, ())
    assert kept == [{"network_dim": 128}, {"network_dim": 32}]
    assert len(left_out) == 1 and left_out[0].startswith("point 2: ") and "an earlier point" in left_out[0]


def test_a_key_whose_condition_does_not_hold_is_compared_as_one_that_is_not_searched() -> None:
    space = Space([DIM, RATE, OPTIMIZER], {"unet_lr": {"optimizer": ["adamw"]}}, {})
    points = [{"optimizer": "prodigy", "unet_lr": 1.0}, {"optimizer": "prodigy", "unet_lr": 0.5}]
    kept, left_out = starts.fitting(points, space, config_at, ())
    assert kept == [{"optimizer": "prodigy"}] and "unet_lr=0.5 there, 1.0 here" in left_out[0]
