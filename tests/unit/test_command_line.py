"""What was typed wrongly is said in words that help, before Hydra reads it."""

from pathlib import Path

import pytest
from hydra.errors import ConfigCompositionException

from sweep.command_line import CONF_DIR, SD_SCRIPTS_NAMES, Known, check_command_line, explained
from sweep.errors import ConfigError

TRAIN = Known("config")


@pytest.mark.parametrize(("argument", "near"), [
    ("network_dmi=8", "network_dim"), ("+netwrok_dim=8", "network_dim"), ("~schedler=x", "scheduler"),
    ("optimizer.wieght_decay=0", "optimizer.weight_decay"), ("optimiser=adamw", "optimizer"),
    ("scheduler.num_cycle=1", "scheduler.num_cycles"), ("caption_extension=.txt", "dataset.caption_extension")])
def test_a_typo_is_refused_with_its_near_match(argument: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f'Did you mean "{near}"'):
        check_command_line([argument], TRAIN)


@pytest.mark.parametrize(("arguments", "message"), [
    (["learning_rate=1e-4"], "unet_lr and text_encoder_lr"),
    (["train_data_dir=photos"], "is dataset.dir here"),
    (["network_module=networks.lora"], "is network here"),
    (["network_train_unet_only=true"], "Here: text_encoder_lr=0"),
    (["--network_dim=8"], "without dashes, network_dim=8"),
    (["--train-data-dir=photos"], "dataset.dir=photos"),
    (["--network_dim", "8"], "without dashes"),
    (["dataset.dir=my", "photos"], "'photos' is not of the form key=value"),
    (["+network_dim=8"], "without the '+'"),
    (["note=it's half (or so)"], "quotes of its own"),
    (["dataset.generate_reg=choice(null,375)"], r"take no null; a list does: dataset.generate_reg=null,1,2"),
    (["network_dim=8,32"], "needs -m"),
    (["-m", "note=one, two"], "make no trials"),
    (["-m", "sweep.name=a,b"], "make no trials"),
    (["optimizer=AdamW8bit"], 'Did you mean "adamw8bit"'),
    (["optimizer=adam8bit"], 'Did you mean "adamw8bit"'),
    (["-m", "optimizer=adamw,lyon"], 'Did you mean "lion"'),
    (["dataset=photos/of/me"], "dataset.dir=photos/of/me"),
    (["tracker=[wandb,tensorbord]"], 'Did you mean "tensorboard"'),
    (["-m", "experiment=glob(nothing_*)"], "fits none of"),
])
def test_the_answer_says_what_to_type(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_command_line(arguments, TRAIN)
    assert message in str(error.value)


@pytest.mark.parametrize("arguments", [
    ["-m", "network_dim=8,32", "optimizer=adamw8bit", "optimizer.eps=1e-7", "scheduler.power=range(1,3)"],
    ["hydra.verbose=true", "hydra/job_logging=none", "--cfg", "job"], ["--help"], ["-cd", "elsewhere", "-m", "seed=1"],
    ["experiment=null", "tracker=[wandb,tensorboard]", "dataset.dir='my photos'", "note='a, b'"],
    ["-m", "experiment=glob(network_*)"], ["-m", "optimizer=glob(*,exclude=custom)"], ["~use.copy_to"],
])
def test_what_exists_is_let_through(arguments: list[str]) -> None:
    check_command_line(arguments, TRAIN)


def test_evaluate_has_keys_of_its_own() -> None:
    check_command_line(["lora=a.safetensors"], Known("evaluate"))
    with pytest.raises(ConfigError, match=r"python evaluate\.py --help"):
        check_command_line(["network_dim=8"], Known("evaluate"))


@pytest.mark.parametrize(("text", "message"), [
    ("network_dim: 8\n", "must begin with the line\n# @package _global_"),
    ("# @package _global_\nnetwork_dim: [8\n", "line 3 is not YAML"),
    ("# @package _global_\nnetwork_dim: 8\nnetwork_alhpa: 4\n", 'line 3: unknown key "network_alhpa". Did you mean '
     '"network_alpha"'),
    ("# @package _global_\n\noptimizer: prodigy\n", "line 3: the option of a group is chosen among the defaults:\n"
     "defaults:\n  - override /optimizer: prodigy"),
    ("# @package _global_\n- 8\n", "must hold keys and values"),
])
def test_a_fault_in_an_experiment_file_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "experiment" / "mine.yaml"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        check_command_line([f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine"], TRAIN)
    assert str(path) in str(error.value) and message in str(error.value)


def test_every_experiment_that_ships_is_let_through() -> None:
    folder = CONF_DIR / "experiment"
    for path in folder.rglob("*.yaml"):
        check_command_line([f"experiment={path.relative_to(folder).with_suffix('').as_posix()}"], TRAIN)


def test_a_key_of_another_option_is_explained() -> None:
    error = ConfigCompositionException("Could not override 'optimizer.d_coef'.\nTo append use +optimizer.d_coef=2")
    assert "optimizer.d_coef is a key of optimizer=prodigy alone" in explained(error, TRAIN)


def test_what_sd_scripts_users_type_is_in_the_table_of_knobs_and_here() -> None:
    table = (CONF_DIR.parent / "docs" / "knobs.md").read_text()
    for theirs, ours in SD_SCRIPTS_NAMES.items():
        assert f"`{theirs}`" in table or theirs in ("epoch", "epochs", "batch_size"), theirs
        assert all(key.partition("=")[0] in TRAIN.keys for key in ours.split(" and ")), ours
