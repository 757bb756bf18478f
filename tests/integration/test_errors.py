"""What a user gets wrong is one clear error, before any model is loaded and with nothing written."""

from pathlib import Path

import pytest

from tests.conftest import make_photos


@pytest.mark.parametrize(("arguments", "message"), [
    (("network_dmi=8",), 'Did you mean "network_dim"?'),
    (("+network_dmi=8",), 'Did you mean "network_dim"?'),
    (("network_dim=0",), "network_dim = 0 must be at least 1"),
    (("network_dim=abc",), "network_dim = 'abc' must be a whole number"),
    (("optimizer=adamax",), "adamw8bit"),
    (("dataset.dir=/nowhere/at/all",), "there is no such folder"),
    (("base_model=sd15", "dataset.dir=/tmp", "scoring=none"), "base_model.path=FOLDER"),
    (("base_model.path=/nowhere/sd", "network_dim=4"), "does not exist"),
    (("unet_lr=0", "text_encoder_lr=0"), "train nothing"),
    (("scheduler=constant", "lr_warmup_steps=10"), "scheduler=constant_with_warmup"),
    (("-m", "optimizer=prodigy", "unet_lr=1,2", "text_encoder_lr=0.5"), "one instance takes one rate"),
    (("-m", "network_dim=0,-8"), "network_dim = 0 must be at least 1"),  # of several, one that works is enough
])
def test_one_clear_error(command, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    run = command("train.py", *arguments, f"sweep.results_dir={tmp_path / 'results'}")
    assert run.returncode == 2
    assert message in run.stderr
    assert run.stderr.startswith("error: "), "the message alone, no traceback and nothing of Hydra's"
    assert not list(tmp_path.glob("results/*/sweep.yaml"))


def test_an_empty_folder_and_a_corrupt_photo(command, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    run = command("train.py", f"dataset.dir={empty}", f"sweep.results_dir={tmp_path / 'results'}")
    assert run.returncode == 2 and "holds no photos" in run.stderr

    photos = make_photos(tmp_path / "photos", num_photos=3)
    (photos / "10_alexq man" / "001.png").write_bytes(b"\x89PNG but not really")
    run = command("train.py", f"dataset.dir={photos}", f"sweep.results_dir={tmp_path / 'results'}")
    assert run.returncode == 2 and "001.png: not a readable image" in run.stderr


def test_a_results_folder_that_is_a_file(command, tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    run = command("train.py", f"sweep.results_dir={tmp_path / 'results'}")
    assert run.returncode == 2 and "is a file. Give a folder." in run.stderr


def test_a_typo_in_an_experiment_file(command, tmp_path: Path) -> None:
    """Hydra itself would take the unknown key without a word, and names neither file nor line."""
    experiment = tmp_path / "experiment" / "mine.yaml"
    experiment.parent.mkdir()
    experiment.write_text("# @package _global_\nnetwork_dim: 8\nnetwork_alhpa: 4\n")
    run = command("train.py", f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine",
                  f"sweep.results_dir={tmp_path / 'results'}")
    assert run.returncode == 2
    assert 'line 3: unknown key "network_alhpa". Did you mean "network_alpha"?' in run.stderr


def test_help_is_there_at_once(command) -> None:
    import time

    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        run = command("train.py", "--help")
        seconds.append(time.perf_counter() - started)
    assert run.returncode == 0 and "network_dim: 32" in run.stdout
    assert min(seconds) < 1.5  # 0.6 on an idle machine; the bound leaves room for a busy one
