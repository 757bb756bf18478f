"""Continuous refill: who takes a place late, is ended early or put back is trained as if it had been alone, and a
resume repeats who shared the pass, bit for bit. Driven through the real worker, killed at chosen writes."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import sweep.files
import sweep.worker.places
from sweep.training import loop
from sweep.trial import (
    DONE,
    FAILED,
    PRUNED,
    PackSpec,
    Trial,
    more_trials,
    to_json,
    trial_folder,
)
from tests.equivalence.packs import Killed, files_of, killed_at_write, memberships, pack_of, statuses

# what a trial's number stands for: ranks and optimizers that stack and that don't, and different lengths
SETTINGS = (
    {"dim": 4, "seed": 1, "num_steps": 4}, {"dim": 8, "seed": 2, "num_steps": 7, "optimizer": "adamw8bit"},
    {"dim": 4, "seed": 3, "num_steps": 5, "network_dropout": 0.2, "ema_decay": 0.9},
    {"dim": 4, "seed": 4, "num_steps": 6, "optimizer": "lion", "text_encoder_lr": 0},
)


@pytest.fixture(autouse=True)
def at_once(monkeypatch) -> None:
    """The conductor's wishes are looked for at every boundary, however fast the machine."""
    monkeypatch.setattr("sweep.worker.places.LOOK_EVERY_S", 0.0)


def trial(results: Path, photos: Path, number: int) -> Trial:
    return spec_of(results, photos, numbers=(number,)).trials[0]


def spec_of(results: Path, photos: Path, *, numbers: tuple[int, ...] = (1, 2, 3, 4),
            max_trials: int | None = 2) -> PackSpec:
    return replace(pack_of(results, photos, {str(number): SETTINGS[number - 1] for number in numbers}),
                   max_trials=max_trials)


def losses(results: Path, one: Trial) -> list[float]:
    rows = sweep.files.read_jsonl(trial_folder(results, one.train_id).metrics)
    steps = [(row["step"], row["loss"]) for row in rows if row["kind"] == "train"]
    assert [step for step, _ in steps] == list(range(1, len(steps) + 1)), "no step twice, none missing"
    return [loss for _, loss in steps]


@contextmanager
def out_of_memory(*, at_call: int, above: int) -> Iterator[None]:
    """The base's forward pass runs out of memory at its n-th call, and again with more than `above` rows."""
    real, count = loop.forward, [0]

    def forward(pack, one):
        count[0] += 1
        if count[0] >= at_call and one.num_rows > above:
            raise torch.OutOfMemoryError("the GPU's memory is full")
        return real(pack, one)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "forward", forward)
        yield


@pytest.fixture(scope="module")
def alone(worker, photos, tmp_path_factory) -> dict[str, list[float]]:
    """Each trial's losses, trained in a pack of its own."""
    results = tmp_path_factory.mktemp("alone")
    found = {}
    for number in (1, 2, 3, 4):
        spec = spec_of(results, photos, numbers=(number,), max_trials=1)
        worker.run(spec)
        found[spec.trials[0].train_id] = losses(results, spec.trials[0])
    return found


@pytest.fixture(scope="module")
def refilled(worker, photos, tmp_path_factory) -> tuple[Path, dict[str, bytes], int]:
    """Four trials on two places, undisturbed: the folder, its files, and how many writes it makes."""
    results = tmp_path_factory.mktemp("refilled")
    with killed_at_write(10**9) as count:
        worker.run(spec_of(results, photos))
    return results, files_of(results), count[0]


def test_waiting_trials_take_free_places_and_equal_themselves_alone(photos, refilled, alone) -> None:
    results, files, _ = refilled
    spec = spec_of(results, photos)
    [first, second, third, fourth] = [t.train_id for t in spec.trials]
    assert [(update, list(members.items())) for update, members in memberships(results)] == [
        (0, [(first, 0), (second, 0)]), (4, [(third, 0), (second, 4)]), (7, [(fourth, 0), (third, 3)]),
        (9, [(fourth, 2)]), (13, [])]
    assert [status.status for status in statuses(spec)] == [DONE] * 4
    assert len(files) == 9
    for one in spec.trials:
        assert losses(results, one) == pytest.approx(alone[one.train_id], rel=1e-4)
        folder = trial_folder(results, one.train_id)
        assert not list(folder.state.glob("*")) and not (folder.root / "worker.lock").exists()


@pytest.mark.parametrize("share", [0.35, 0.55, 0.8])
def test_killed_in_the_middle_of_refills_gives_the_same_files(worker, photos, tmp_path, refilled, share) -> None:
    _, files, num_writes = refilled
    spec = spec_of(tmp_path, photos)
    with pytest.raises(Killed), killed_at_write(int(num_writes * share)):
        worker.run(spec)
    worker.run(spec)
    assert files_of(tmp_path) == files
    for one in spec.trials:
        assert len(losses(tmp_path, one)) == one.num_steps


def pruned_at(monkeypatch, results: Path, one: Trial, *, step: int) -> None:
    """The conductor asks to end a trial while its step is being made."""
    real = loop._step

    def stepping(pack, member, *rest):
        if member.train_id == one.train_id and member.step == step - 1:
            sweep.files.write_json(trial_folder(results, one.train_id).prune, {"reason": "behind", "by": "median"})
        return real(pack, member, *rest)

    monkeypatch.setattr(loop, "_step", stepping)


def test_a_pruned_trial_ends_at_once_and_keeps_its_checkpoint(worker, photos, tmp_path, alone, monkeypatch) -> None:
    spec = spec_of(tmp_path, photos, numbers=(2, 3, 4))
    pruned_at(monkeypatch, tmp_path, spec.trials[0], step=4)
    worker.run(spec)
    found = statuses(spec)
    assert [status.status for status in found] == [PRUNED, DONE, DONE]
    assert (found[0].step, found[0].reason) == (4, "ended early at step 4: behind (median)")
    assert [row["step"] for row in sweep.files.read_jsonl(trial_folder(tmp_path, spec.trials[0].train_id).metrics)
            if row["kind"] == "checkpoint"] == [3]
    assert memberships(tmp_path)[1] == (4, {spec.trials[2].train_id: 0, spec.trials[1].train_id: 4})
    for one in spec.trials[1:]:
        assert losses(tmp_path, one) == pytest.approx(alone[one.train_id], rel=1e-4)


def test_asked_for_again_without_the_wish_to_end_it_a_trial_is_trained_whole(worker, photos, tmp_path, alone,
                                                                             monkeypatch) -> None:
    spec = spec_of(tmp_path, photos, numbers=(1,))
    pruned_at(monkeypatch, tmp_path, spec.trials[0], step=2)
    worker.run(spec)
    assert statuses(spec)[0].status == PRUNED
    worker.run(spec)
    assert statuses(spec)[0].status == PRUNED, "the wish stands: nothing is trained again"
    monkeypatch.undo()
    trial_folder(tmp_path, spec.trials[0].train_id).prune.unlink()
    worker.run(spec)
    assert statuses(spec)[0].status == DONE
    assert losses(tmp_path, spec.trials[0]) == pytest.approx(alone[spec.trials[0].train_id], rel=1e-4)


@pytest.mark.parametrize("is_logged", [True, False])
def test_a_resume_ends_it_where_it_was_ended(worker, photos, tmp_path, monkeypatch, is_logged) -> None:
    """The wish comes at step 3 and the kill inside the save that follows. At the resume prune.json is there from the
    start; the log says where it took effect."""
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    with monkeypatch.context() as patch:
        spec = spec_of(undisturbed, photos, numbers=(2, 3, 4))
        pruned_at(patch, undisturbed, spec.trials[0], step=3)
        worker.run(spec)
    expected = files_of(undisturbed)
    spec = spec_of(killed, photos, numbers=(2, 3, 4))

    def dying(*arguments):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        pruned_at(patch, killed, spec.trials[0], step=3)
        real = sweep.worker.places.save_states
        patch.setattr("sweep.worker.places.save_states", lambda pack, dirs, position: (
            dying() if position.change == 2 else real(pack, dirs, position)))
        worker.run(spec)
    if not is_logged:  # as an older version, which kept no log, would do
        for path in killed.glob("trials/*/packs.jsonl"):
            path.write_text("".join(f"{line}\n" for line in path.read_text().splitlines()
                                    if json.loads(line)["change"] == 1))
    worker.run(spec)
    assert statuses(spec)[0].step == (3 if is_logged else 2)
    assert not is_logged or files_of(killed) == expected


def test_trials_join_a_running_pack(worker, photos, tmp_path, alone) -> None:
    """The conductor adds two to a pack of one; one of them can't share its pass."""
    spec = spec_of(tmp_path, photos, numbers=(1,), max_trials=1)
    path = tmp_path / "packs" / "pack.json"
    late = trial(tmp_path, photos, 3)
    stranger = replace(trial(tmp_path, photos, 4), config={**trial(tmp_path, photos, 4).config, "clip_skip": 2})
    for one in (stranger, late):
        sweep.files.append_jsonl(more_trials(path), {"trial": to_json(one)})
    worker.run(spec, path)
    assert memberships(tmp_path)[1] == (4, {late.train_id: 0})
    assert statuses(replace(spec, trials=(late,)))[0].status == DONE
    assert losses(tmp_path, late) == pytest.approx(alone[late.train_id], rel=1e-4)
    assert not trial_folder(tmp_path, stranger.train_id).status.exists(), "it is left to the next pack"


def test_out_of_memory_halves_the_pack_and_goes_on(worker, photos, tmp_path, alone) -> None:
    """Four trials; the third update runs out of memory. Two go on from the save at step 2, the others wait."""
    spec = spec_of(tmp_path, photos, max_trials=4)
    with out_of_memory(at_call=3, above=2):
        worker.run(spec)
    assert [status.status for status in statuses(spec)] == [DONE] * 4
    sizes = [(update, len(members)) for update, members in memberships(tmp_path)]
    assert sizes[:2] == [(0, 4), (2, 2)] and max(size for _, size in sizes[1:]) == 2
    for one in spec.trials:
        assert losses(tmp_path, one) == pytest.approx(alone[one.train_id], rel=1e-4)
        log = trial_folder(tmp_path, one.train_id).log.read_text()
        assert "memory ran out with 4 trials in a pass: on with 2" in log


def test_out_of_memory_before_the_first_save_and_again(worker, photos, tmp_path, alone) -> None:
    spec = spec_of(tmp_path, photos, max_trials=4)
    with out_of_memory(at_call=1, above=1):
        worker.run(spec)
    assert [status.status for status in statuses(spec)] == [DONE] * 4
    for one in spec.trials:
        assert losses(tmp_path, one) == pytest.approx(alone[one.train_id], rel=1e-4)


def test_killed_after_memory_ran_out(worker, photos, tmp_path, alone) -> None:
    spec = spec_of(tmp_path, photos, max_trials=4)
    with out_of_memory(at_call=3, above=2):
        for number in range(25, 10**9, 6):
            try:
                with killed_at_write(number):
                    worker.run(spec)
                break
            except Killed:
                pass
    assert [status.status for status in statuses(spec)] == [DONE] * 4
    for one in spec.trials:
        assert losses(tmp_path, one) == pytest.approx(alone[one.train_id], rel=1e-4)


def test_a_trial_that_memory_never_holds_fails_alone(worker, photos, tmp_path) -> None:
    spec = spec_of(tmp_path, photos, numbers=(1, 2), max_trials=2)
    real = loop.forward

    def forward(pack, one):
        if any(each.train_id == spec.trials[1].train_id for each, _ in one.batches):
            raise torch.OutOfMemoryError("the GPU's memory is full")
        return real(pack, one)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "forward", forward)
        worker.run(spec)
    found = statuses(spec)
    assert [status.status for status in found] == [DONE, FAILED]
    assert "does not hold this trial, even alone" in found[1].reason


def test_a_file_of_a_refilled_trial_is_its_own(photos, refilled, worker, tmp_path) -> None:
    """What is in the file, not only the losses on the way: the same up to rounding as from a pack of its own."""
    results, _, _ = refilled
    spec = spec_of(tmp_path, photos, numbers=(3,), max_trials=1)
    worker.run(spec)
    [path] = trial_folder(tmp_path, spec.trials[0].train_id).checkpoints.glob("alexq-????????.safetensors")
    mine, other = load_file(path), load_file(trial_folder(results, spec.trials[0].train_id).checkpoints / path.name)
    distance = math.sqrt(sum(float((mine[key] - other[key]).square().sum()) for key in mine))
    size = math.sqrt(sum(float(mine[key].square().sum()) for key in mine))
    assert 0 < size and distance / size < 1e-4
