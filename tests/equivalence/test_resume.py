"""Contract 2: interrupted equals uninterrupted, bit for bit in fp32 on the same machine.

The real pack run is driven and killed in-process at a chosen write to disk: whatever was written before stands, nothing
after it happens, which is what kill -9 leaves.
"""

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import sweep.files
from sweep.training import loop
from sweep.training.pack import Pack
from sweep.training.state import latest_save, state_path
from sweep.trial import DIVERGED, DONE, PackSpec, trial_folder
from tests.conftest import make_photos
from tests.equivalence.packs import Killed, files_of, killed_at_write, pack_of, statuses


def pack(results: Path, photos: Path) -> PackSpec:
    """Three trials: two ranks, three optimizers, one with an EMA, one ends early."""
    return pack_of(results, photos, {
        "ends early": {"seed": 1, "scheduler": "cosine_with_restarts", "ema_decay": 0.9, "network": "dylora",
                       "network_dropout": 0.2, "rank_dropout": 0.1, "module_dropout": 0.1, "scale_weight_norms": 0.05},
        "schedule-free": {"seed": 2, "num_steps": 9, "batch_size": 3, "optimizer": "adamw_schedulefree"},
        "8 bit": {"dim": 24, "seed": 3, "num_steps": 9, "optimizer": "adamw8bit", "text_encoder_lr": 0,
                  "network": "loha"}})


def rows_of(results: Path, spec: PackSpec) -> list[list[dict[str, Any]]]:
    """Each trial's metrics without what the machine's pace and memory come to."""
    rows = [list(sweep.files.read_jsonl(trial_folder(results, trial.train_id).metrics)) for trial in spec.trials]
    assert all(row["memory_gib"] > 0.05 for some in rows for row in some if row["kind"] == "train")
    measured = ("attributed_s", "memory_gib")
    return [[{key: row[key] for key in row if key not in measured} for row in some] for some in rows]


@pytest.fixture(scope="module")
def undisturbed(worker, photos, tmp_path_factory) -> tuple[dict[str, bytes], int, list[list[dict[str, Any]]]]:
    """The files of a run that nothing disturbs, how many writes it makes, and the trials' rows."""
    results = tmp_path_factory.mktemp("undisturbed")
    spec = pack(results, photos)
    with killed_at_write(10**9) as count:
        worker.run(spec)
    files = files_of(results)
    assert len(files) == 8  # 2 of the short trial, 3 of each long one
    return files, count[0], rows_of(results, spec)


@pytest.mark.parametrize("share", [0.15, 0.3, 0.45, 0.6, 0.75, 0.9])
def test_killed_and_run_again_gives_the_same_files(worker, photos, tmp_path, undisturbed, share: float) -> None:
    files, num_writes, rows = undisturbed
    spec = pack(tmp_path, photos)
    with pytest.raises(Killed), killed_at_write(int(num_writes * share)):
        worker.run(spec)
    worker.run(spec)
    assert files_of(tmp_path) == files
    assert rows_of(tmp_path, spec) == rows
    for trial, status in zip(spec.trials, statuses(spec), strict=True):
        folder = trial_folder(tmp_path, trial.train_id)
        assert (status.status, status.step) == (DONE, trial.num_steps), status
        steps = [row["step"] for row in sweep.files.read_jsonl(folder.metrics) if row["kind"] == "train"]
        assert steps == list(range(1, trial.num_steps + 1)), "no step is logged twice, none is missing"
        assert not list(folder.state.glob("*")) and not list(folder.root.rglob("*.tmp"))


def test_killed_again_and_again(worker, photos, tmp_path, undisturbed) -> None:
    files, num_writes, _ = undisturbed
    spec = pack(tmp_path, photos)
    num_kills = 0
    for number in range(num_writes // 4, num_writes, 2):
        try:
            with killed_at_write(number):
                worker.run(spec)
            break
        except Killed:
            num_kills += 1
    assert num_kills >= 3
    assert files_of(tmp_path) == files


def test_a_companion_that_is_gone_does_not_cost_the_others_their_steps(worker, photos, tmp_path, undisturbed) -> None:
    """The pack's saves name three trials; one is not asked for any more. The others go on from their own states."""
    _, num_writes, _ = undisturbed
    spec = pack(tmp_path, photos)
    with pytest.raises(Killed), killed_at_write(int(num_writes * 0.65)):
        worker.run(spec)
    smaller = replace(spec, trials=spec.trials[2:])
    state = trial_folder(tmp_path, spec.trials[2].train_id).state
    reached = max(int(path.stem.split("-")[1]) for path in state.glob("*.safetensors"))
    assert reached >= 4 and latest_save({spec.trials[2].train_id: state}) is None
    worker.run(smaller)
    folder = trial_folder(tmp_path, spec.trials[2].train_id)
    assert f"goes on from step {reached}" in folder.log.read_text()
    assert statuses(smaller)[0].status == DONE


def test_a_damaged_state_falls_back_to_the_one_before(worker, photos, tmp_path, undisturbed) -> None:
    files, num_writes, _ = undisturbed
    spec = pack(tmp_path, photos)
    with pytest.raises(Killed), killed_at_write(int(num_writes * 0.7)):
        worker.run(spec)
    folders = {trial.train_id: trial_folder(tmp_path, trial.train_id).state for trial in spec.trials}
    newest = latest_save(folders)
    assert newest is not None
    broken = state_path(folders[spec.trials[1].train_id], newest.steps[spec.trials[1].train_id],
                        newest.position.change)
    broken.write_bytes(broken.read_bytes()[:-10])
    older = latest_save(folders)
    assert older and older != newest
    worker.run(spec)
    assert files_of(tmp_path) == files


def test_changed_photos_fail_the_trial_and_touch_nothing(worker, photos, tmp_path, undisturbed) -> None:
    """A trial is known by its photos; training it on others under the same name would be a lie."""
    mine = make_photos(tmp_path / "mine", num_photos=4)
    spec = pack(tmp_path / "results", mine)
    (mine / "10_alexq man" / "001.txt").write_text("photo of alexq man, mended\n")
    worker.run(spec)
    for status in statuses(spec):
        assert status.status == "failed" and "changed since this trial was asked for" in status.reason
    assert not files_of(tmp_path / "results")


def test_what_its_optimizer_takes_is_a_trials_own_time(worker, photos, tmp_path, monkeypatch) -> None:
    real = Pack.step_optimizer

    def slow(pack, member):
        time.sleep(0.5 if member.config.seed == 2 else 0.0)
        return real(pack, member)

    monkeypatch.setattr(Pack, "step_optimizer", slow)
    spec = pack(tmp_path, photos)
    worker.run(spec)
    one, two, three = statuses(spec)
    slowed_s = 0.5 * two.step
    assert two.step > 0 and two.attributed_s > slowed_s
    assert max(one.attributed_s, three.attributed_s) < two.attributed_s - 0.8 * slowed_s


def test_a_diverged_trial_keeps_its_reason_and_the_others_finish(worker, photos, tmp_path, monkeypatch) -> None:
    real = loop._step

    def poisoned(pack, member, loss, grad_norm, passes_s):
        is_victim = member.config.seed == 2 and member.step == 4
        return real(pack, member, math.nan if is_victim else loss, grad_norm, passes_s)

    monkeypatch.setattr(loop, "_step", poisoned)
    spec = pack(tmp_path, photos)
    worker.run(spec)
    found = statuses(spec)
    assert [status.status for status in found] == [DONE, DIVERGED, DONE]
    assert "at step 5" in found[1].reason and found[1].step == 4
    kept = [name for name in files_of(tmp_path) if name.startswith(spec.trials[1].train_id)]
    assert len(kept) == 1, "its last good checkpoint stays"
