"""Contract 2: interrupted equals uninterrupted, bit for bit in fp32 on the same machine."""

import shutil
from pathlib import Path

import pytest
import torch

from sweep.training.loop import train
from sweep.training.pack import Member, Pack
from sweep.training.state import forget_states, latest_save, load_states, ordered, save_states, state_path
from tests.equivalence.trials import member


def trials() -> list[Member]:
    return [member("a", dim=4, seed=1, num_steps=6, scheduler="cosine_with_restarts"),
            member("b", dim=4, seed=2, num_steps=9, batch_size=3),
            member("c", dim=24, seed=3, num_steps=9, optimizer="adamw8bit", text_encoder_lr=0)]


def run_and_save(base, targets, folders: dict[str, Path], *, stop_after: int | None = None) -> dict[str, torch.Tensor]:
    """Train as the worker does, saving every second pass and when a member leaves; goes on from the latest save."""
    members = trials()
    steps = latest_save(folders)
    pack = Pack(base, targets, ordered(members, steps) if steps else members)
    if steps:
        load_states(pack, folders, steps)
    final = {}
    for number, _ in enumerate(train(pack), start=1):
        finished = [m for m in pack.members if m.is_finished]
        final |= {m.train_id: pack.flat_of(m).clone() for m in finished}
        if finished:
            pack.drop(finished)
            save_states(pack, folders)
            for m in finished:
                forget_states(folders[m.train_id])
        elif number % 2 == 0:
            save_states(pack, folders)
        if number == stop_after:
            break
    return final


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    return {name: tmp_path / name for name in "abc"}


@pytest.fixture(scope="module")
def undisturbed(base, targets, tmp_path_factory) -> dict[str, torch.Tensor]:
    root = tmp_path_factory.mktemp("undisturbed")
    return run_and_save(base, targets, {name: root / name for name in "abc"})


@pytest.mark.parametrize("stop_after", [3, 7])  # before and after a member has left
def test_resumed_equals_uninterrupted(base, targets, folders, undisturbed, stop_after: int) -> None:
    first = run_and_save(base, targets, folders, stop_after=stop_after)
    assert set(first) == ({"a"} if stop_after == 7 else set())
    second = run_and_save(base, targets, folders)
    for name, weights in {**first, **second}.items():
        assert torch.equal(weights, undisturbed[name]), name
    assert set(second) == {"a", "b", "c"} - set(first)


def test_a_save_that_was_cut_short_does_not_count(base, targets, folders, undisturbed) -> None:
    run_and_save(base, targets, folders, stop_after=4)
    state_path(folders["b"], 4).unlink()  # killed after a's state of step 4 and before b's
    assert latest_save(folders) == {"a": 2, "b": 2, "c": 2}
    broken = state_path(folders["c"], 4)
    broken.write_bytes(broken.read_bytes()[:-10])
    final = run_and_save(base, targets, folders)
    assert all(torch.equal(final[name], undisturbed[name]) for name in "abc")


def test_only_the_last_two_saves_are_kept(base, targets, folders) -> None:
    run_and_save(base, targets, folders, stop_after=5)
    pack_steps = [sorted(int(p.stem.split("-")[1]) for p in folder.iterdir()) for folder in folders.values()]
    assert pack_steps == [[2, 4]] * 3
    shutil.rmtree(folders["a"])
    assert latest_save({name: folders[name] for name in "bc"}) == {}, "a save that lacks a member is no save"
