"""The recipes of conf/experiment: each composes, and says what its source says."""

import pytest

from sweep.combinations import refusal
from sweep.command_line import CONF_DIR
from sweep.schema import to_tree
from tests.conftest import ROOT
from tests.unit.test_config import loaded

FOLDER = CONF_DIR / "experiment"
EXPERIMENTS = sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_it_can_be_trained(name: str) -> None:
    assert refusal(loaded(f"experiment={name}").train) == ""


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name.startswith("optimizer_")])
def test_an_optimizers_recipe_names_its_seed(name: str) -> None:
    assert "# seeds/00" in (CONF_DIR / "experiment" / f"{name}.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "optimizer", "scheduler", "rates", "network"), [
    ("optimizer_dadaptation", "dadapt_adam", "constant", (1.0, 0.5), (128, 128)),
    ("optimizer_adafactor", "adafactor", "adafactor", (1.0, 0.5), (128, 128)),
    ("optimizer_adamw_guide", "adamw", "cosine_with_restarts", (1e-4, 1e-4), (32, 16)),
    ("optimizer_prodigy", "prodigy", "cosine_annealing_warm_restarts", (1.0, 1.0), (32, 16)),
])
def test_optimizers_recipes(name: str, optimizer: str, scheduler: str, rates, network) -> None:
    train = loaded(f"experiment={name}").train
    assert (train.optimizer.name, train.scheduler.name) == (optimizer, scheduler)
    assert (train.unet_lr, train.text_encoder_lr) == rates
    assert (train.network_dim, train.network_alpha) == network


@pytest.mark.parametrize(("name", "steps_per_epoch"), [("optimizer_adamw_guide", 1000), ("optimizer_prodigy", 500)])
def test_the_guides_recipes_have_its_length(name: str, steps_per_epoch: int) -> None:
    train = loaded(f"experiment={name}").train
    assert (train.steps_per_epoch, train.max_train_epochs) == (steps_per_epoch, 8)


TUTORIAL = {"unet_lr": 1e-4, "text_encoder_lr": 5e-5, "network_dim": 128, "network_alpha": 128, "repeats": 15,
            "max_train_epochs": 5, "train_batch_size": 1}


def test_the_tutorials_recipe() -> None:
    train = loaded("experiment=tutorial").train
    assert {key: getattr(train, key) for key in TUTORIAL} == TUTORIAL
    assert (train.optimizer.name, train.scheduler.name) == ("adamw8bit", "polynomial")
    assert (train.dataset.num_images, train.dataset.captions) == (25, True)


@pytest.mark.parametrize(("name", "changes"), [
    ("scheduler/polynomial", set()), ("scheduler/constant", {"scheduler"}),
    ("scheduler/cosine_with_restarts", {"scheduler"}), ("adaptive/adamw8bit", set()),
    ("adaptive/dadaptation", {"optimizer", "scheduler", "unet_lr", "text_encoder_lr"}),
    ("adaptive/adafactor", {"optimizer", "scheduler", "unet_lr", "text_encoder_lr"}),
    ("adapter/lora", {"network_dim", "network_alpha"}), ("adapter/loha", {"network", "network_dim", "network_alpha"}),
    ("adapter/locon", {"network", "network_dim", "network_alpha", "conv_dim", "conv_alpha"}),
    ("captions/with", set()), ("captions/without", {"dataset"}),
    ("mask/whole_photo", set()), ("mask/head", {"dataset"})])
def test_a_question_changes_what_it_asks_about_alone(name: str, changes: set[str]) -> None:
    one, tutorial = (to_tree(loaded(f"experiment={each}").train) for each in (name, "tutorial"))
    assert {key for key in one if one[key] != tutorial[key]} == changes


@pytest.mark.parametrize(("network", "ranks", "rates"), [
    ("lora", (32, 16, None, None), (1e-4, 5e-5)), ("locon", (32, 16, 32, 16), (1e-4, 5e-5)),
    ("loha", (32, 16, None, None), (1e-4, 5e-5)), ("lokr", (32, 16, None, None), (6.5e-5, 3.25e-5)),
    ("ia3", None, (5e-3, 5e-3)), ("dylora", (64, 32, None, None), (1e-4, 5e-5))])
def test_networks_recipes(network: str, ranks, rates) -> None:
    """What docs/networks.md says the guide recommends; of (IA)^3's two rates it names both."""
    train = loaded(f"experiment=network_{network}").train
    assert train.network.name == network and (train.unet_lr, train.text_encoder_lr) == rates
    if ranks is not None:
        assert (train.network_dim, train.network_alpha, train.conv_dim, train.conv_alpha) == ranks
    [row] = [line for line in (ROOT / "docs/networks.md").read_text().splitlines() if line.startswith(f"| `{network}`")]
    told = {"lora": "1e-4", "lokr": "5e-5 to 8e-5", "ia3": "5e-3 to 1e-2 (.0005 to .001)", "dylora": "64/32",
            "locon": "conv_dim=32 conv_alpha=16", "loha": "32/16, not above 32"}[network]
    assert told in row
    assert network != "dylora" or train.network.unit == 4


def test_the_command_line_has_the_last_word() -> None:
    train = loaded("experiment=optimizer_dadaptation", "optimizer.weight_decay=0", "network_dim=64").train
    assert (train.optimizer.weight_decay, train.network_dim, train.network_alpha) == (0, 64, 128)
