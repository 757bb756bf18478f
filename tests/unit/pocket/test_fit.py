"""The build's training loop: interrupted equals uninterrupted, and a checkpoint is one whole file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from sweep.pocket.build import parse_arguments
from sweep.pocket.fit import fit, learning_rate, load_average
from sweep.pocket.recipe import STAGE_ORDER, Stage, settings
from sweep.pocket.stages import STAGE_FUNCTIONS
from sweep.pocket.train_base import stratified_timesteps
from sweep.pocket.train_clip import truths

STAGE = Stage(batch_size=4, num_steps=12, lr=1e-2, warmup_steps=2, checkpoint_steps=3)


class Interrupted(Exception):
    """Stands for a kill."""


def _train(folder: Path, stop_at: int | None = None) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Linear(5, 3)
    calls = 0

    def loss_function(generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        nonlocal calls
        calls += 1
        if calls == stop_at:
            raise Interrupted
        x = torch.randn(4, 5, generator=generator)
        return (model(x) - x[:, :3]).square().mean(), {}

    fit("tiny", STAGE, model, loss_function, folder)
    return model


def test_interrupted_equals_uninterrupted(tmp_path: Path) -> None:
    whole = _train(tmp_path / "whole")
    with pytest.raises(Interrupted):
        _train(tmp_path / "cut", stop_at=8)
    resumed = _train(tmp_path / "cut")
    assert torch.equal(whole.weight, resumed.weight)
    other = nn.Linear(5, 3)
    assert load_average(tmp_path / "cut", "tiny", other) == STAGE.num_steps
    assert torch.equal(other.weight, whole.weight)


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
