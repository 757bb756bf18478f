import re

import pytest
from hydra import compose, initialize_config_dir

from sweep.combinations import refusal
from sweep.command_line import CONF_DIR
from sweep.config import load
from sweep.errors import ConfigError
from sweep.evaluation.settings import SCORINGS
from sweep.launch.settings import LAUNCHERS
from sweep.methods import METHODS
from sweep.network.settings import NETWORKS
from sweep.record.settings import TRACKERS
from sweep.search.settings import SEARCHES
from sweep.training.optimizer import OPTIMIZERS
from sweep.training.scheduler import SCHEDULERS


def loaded(*overrides: str):
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return load(compose("config", list(overrides)))


def test_the_defaults_are_the_tutorials() -> None:
    train = loaded().train
    assert train.network_alpha == train.network_dim
    assert (train.unet_lr, train.text_encoder_lr) == (1e-4, 5e-5)
    assert train.dataset.caption_extension == ".txt"


def test_alpha_follows_dim_unless_set() -> None:
    assert loaded("network_dim=8").train.network_alpha == 8
    assert loaded("network_dim=8", "network_alpha=0").train.network_alpha == 8
    assert loaded("network_dim=8", "network_alpha=1").train.network_alpha == 1


@pytest.mark.parametrize("group,members", [
    ("optimizer", OPTIMIZERS), ("scheduler", SCHEDULERS), ("network", NETWORKS), ("method", METHODS),
    ("search", SEARCHES), ("launcher", LAUNCHERS), ("tracker", TRACKERS), ("scoring", SCORINGS)])
def test_every_member_of_a_family_has_its_file_and_loads(group: str, members: dict) -> None:
    assert {path.stem for path in (CONF_DIR / group).glob("*.yaml")} == set(members)
    for name in members:
        config = loaded(f"{group}={name}")
        assert getattr(config, group, None) or getattr(config.train, group)


@pytest.mark.parametrize(("override", "message"), [
    ("network_dim=0", "network_dim = 0 must be at least 1"),
    ("network_dim=abc", "network_dim = 'abc' must be a whole number"),
    ("unet_lr=-1", "unet_lr = -1 must be at least 0"),
    ("seed=${now:%S}", "changes from run to run"),
    ("trigger=${oc.env:USER}", "changes from run to run"),
    ("+network_dmi=8", 'Unknown key "network_dmi".* Did you mean "network_dim"'),
])
def test_values_that_cannot_be(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        loaded(override)


def test_every_value_is_commented() -> None:
    """A person reads conf/ and nothing else: each value says what it is (numbers: their range)."""
    silent = []
    for path in sorted(CONF_DIR.rglob("*.yaml")):
        if {"experiment", "scoring"} & set(path.parts):
            continue
        above = ""
        for number, line in enumerate(path.read_text().split("hydra:")[0].splitlines(), 1):
            is_value = re.match(r"^\s*[a-z_0-9]+:(?!\s*$)", line) and not line.startswith("name:")
            if is_value and "#" not in line and not above.lstrip().startswith("#"):
                silent.append(f"{path.name}:{number} {line.strip()}")
            above = line
    assert not silent


@pytest.mark.parametrize("experiment", sorted(p.stem for p in (CONF_DIR / "experiment").glob("*.yaml")))
def test_every_experiment_loads_and_means_something(experiment: str) -> None:
    train = loaded(f"experiment={experiment}").train
    assert refusal(train) == ""
    if experiment.startswith("network_"):
        assert experiment == f"network_{train.network.name}"


def test_convolutions_follow_their_dim_unless_set() -> None:
    assert loaded().train.conv_alpha is None
    assert loaded("conv_dim=8").train.conv_alpha == 8
    assert loaded("conv_dim=8", "conv_alpha=2").train.conv_alpha == 2
