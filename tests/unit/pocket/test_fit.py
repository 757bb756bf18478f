"""The build's training loop: interrupted equals uninterrupted, and a checkpoint is one whole file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from sweep.errors import ModelError
from sweep.files import read_jsonl
from sweep.pocket import checkpoint, export
from sweep.pocket import fit as fit_module
from sweep.pocket.build import parse_arguments
from sweep.pocket.checkpoint import Progress, checkpoint_path, load_average
from sweep.pocket.export import export_checkpoints, vae_steps
from sweep.pocket.fit import fit, learning_rate
from sweep.pocket.models import new_vae
from sweep.pocket.networks import Judge
from sweep.pocket.recipe import RECIPE_VERSION, STAGE_ORDER, Stage, settings
from sweep.pocket.stages import STAGE_FUNCTIONS
from sweep.pocket.tokenizer import train_tokenizer
from sweep.pocket.train_base import stratified_timesteps
from sweep.pocket.train_clip import truths

STAGE = Stage(batch_size=4, num_steps=12, lr=1e-2, warmup_steps=2, checkpoint_steps=3)


class Interrupted(Exception):
    """Stands for a kill."""


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.5), nn.Linear(8, 3))


def _train(folder: Path, stop_at: int | None = None, stage: Stage = STAGE) -> nn.Module:
    model = _model()
    calls = 0

    def loss_function(generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        nonlocal calls
        calls += 1
        if calls == stop_at:
            raise Interrupted
        x = torch.randn(4, 5, generator=generator)
        return (model(x) - x[:, :3]).square().mean(), {}

    fit("tiny", stage, model, loss_function, folder)
    return model


def _equal(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_interrupted_equals_uninterrupted(tmp_path: Path) -> None:
    whole = _train(tmp_path / "whole")
    with pytest.raises(Interrupted):
        _train(tmp_path / "cut", stop_at=8)
    torch.rand(7)  # whatever else drew from the global generator, which dropout takes its masks from
    resumed = _train(tmp_path / "cut")
    assert _equal(whole, resumed)
    other = _model()
    progress = load_average(tmp_path / "cut", "tiny", other)
    assert (progress.step, progress.samples, progress.processes) == (STAGE.num_steps, STAGE.num_steps * 4, 1)
    assert _equal(other, whole)


def test_a_run_can_be_prolonged_but_not_go_on_under_another_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _train(tmp_path)
    longer = replace(STAGE, num_steps=15, warmup_steps=3, checkpoint_steps=5)
    _train(tmp_path, stage=longer)
    assert load_average(tmp_path, "tiny", _model()).samples == 15 * 4
    with pytest.raises(ModelError, match=r"tiny\.safetensors was trained with lr 0\.01 instead of 0\.5.*--work"):
        _train(tmp_path, stage=replace(longer, num_steps=18, lr=0.5))
    monkeypatch.setattr(checkpoint, "RECIPE_VERSION", 99)
    with pytest.raises(ModelError, match=rf"recipe_version {RECIPE_VERSION} instead of 99.*move the file away"):
        load_average(tmp_path, "tiny", _model())
    monkeypatch.setattr(checkpoint, "RECIPE_VERSION", RECIPE_VERSION)
    monkeypatch.setattr(checkpoint, "SEED", 5)
    with pytest.raises(ModelError, match="seed 20261 instead of 5"):
        _train(tmp_path, stage=longer)


def test_a_checkpoint_that_says_only_its_step_still_loads(tmp_path: Path) -> None:
    whole = _train(tmp_path / "whole")
    with pytest.raises(Interrupted):
        _train(tmp_path / "cut", stop_at=8)
    path = checkpoint_path(tmp_path / "cut", "tiny")
    save_file(load_file(path), path, metadata={"step": "6"})
    assert load_average(tmp_path / "cut", "tiny", _model()) == Progress(step=6, samples=None, processes=None)
    assert _equal(_train(tmp_path / "cut"), whole)
    # How many pictures it saw before nobody knows, then or later.
    assert load_average(tmp_path / "cut", "tiny", _model()) == Progress(step=12, samples=None, processes=1)


def test_the_log_holds_each_step_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_module._Log, "EVERY", 2)
    with pytest.raises(Interrupted):
        _train(tmp_path, stop_at=9)  # logged up to 8, saved up to 6
    _train(tmp_path)
    assert [row["step"] for row in read_jsonl(tmp_path / "log" / "tiny.jsonl")] == [2, 4, 6, 8, 10, 12]


def test_export_needs_the_vae_that_the_base_was_trained_on(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no .*vae\.safetensors.*--stages vae,latents"):
        export_checkpoints(tmp_path / "out", tmp_path, train_tokenizer())


def test_a_set_says_how_much_it_has_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "calibrate", lambda backbone: None)  # renders a thousand pictures
    judge = Judge()
    stage = replace(STAGE, num_steps=1, batch_size=2)

    def loss_function(generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        return judge(torch.rand(2, 3, 64, 64, generator=generator))["hat"].mean(), {}

    fit("judge", stage, judge, loss_function, tmp_path)
    vae = {name: tensor.contiguous() for name, tensor in new_vae().state_dict().items()}
    save_file(vae, tmp_path / "vae.safetensors", metadata={"step": "38"})
    export_checkpoints(tmp_path / "out", tmp_path, train_tokenizer())
    manifest = json.loads((tmp_path / "out" / "weights.json").read_text(encoding="utf-8"))
    assert manifest["steps"] == {"unet": 0, "clip": 0, "face": 0, "perceptual": 0, "judge": 1, "decoder": 0, "vae": 38}
    assert manifest["samples"]["judge"] == 2 and not manifest["trained"]
    save_file(vae, tmp_path / "vae.safetensors")
    assert vae_steps(tmp_path / "vae.safetensors") == "unknown"


def test_learning_rate_warms_up_holds_and_ends_at_zero() -> None:
    stage = replace(STAGE, num_steps=100, warmup_steps=10, decay_frac=0.25)
    rates = [learning_rate(stage, step) for step in range(100)]
    assert rates[0] == pytest.approx(1e-3) and rates[9] == rates[74] == 1e-2
    assert 0 < rates[99] < 1e-3


def test_every_stage_has_a_function_and_unknown_ones_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert tuple(STAGE_FUNCTIONS) == STAGE_ORDER
    assert settings("vae", "first").num_steps < settings("vae", "full").num_steps
    with pytest.raises(SystemExit):
        parse_arguments(["--stages", "vae,unett"])
    message = capsys.readouterr().err
    assert "unett" in message and "latents" in message


def test_timesteps_are_one_in_each_part_and_never_behind_the_schedules_end(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = stratified_timesteps(32, 1000, torch.Generator().manual_seed(0))
    assert torch.equal((drawn * 32).div(1000, rounding_mode="floor"), torch.arange(32))
    largest = torch.tensor(1.0).nextafter(torch.tensor(0.0))
    monkeypatch.setattr(torch, "rand", lambda num, generator: largest.expand(num))
    assert int(stratified_timesteps(32, 1000, torch.Generator()).max()) == 999


def test_a_caption_is_true_of_every_picture_that_shows_what_it_names() -> None:
    shown = torch.tensor([[1, 5], [1, 6], [2, 5]])
    named = torch.tensor([[True, False], [True, True], [False, False]])
    expected = torch.tensor([[True, False, True], [True, True, True], [False, False, True]])
    assert torch.equal(truths(shown, shown, named), expected)
