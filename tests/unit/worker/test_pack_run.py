"""Who gets a place in a pack: what the probe of memory decides, and what becomes of trials that can't be made."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from sweep.files import write_json
from sweep.stopping import Stopped
from sweep.trial import FAILED, PackSpec, Trial, pack_spec_from_json, to_json
from sweep.worker import pack_run, pack_trials, places, probe
from sweep.worker.membership import Change
from sweep.worker.pack_run import PackRun
from sweep.worker.places import Places


class Run:
    """A trial of a pack as far as its membership goes."""

    def __init__(self, number: int, folder: Path):
        config = {"train_batch_size": 1, "network_dim": number}
        self.trial = Trial(number=number, train_id=f"t{number}", settings={}, config=config, num_steps=4)
        self.status = SimpleNamespace(is_trained=False, status="running")
        self.folder = SimpleNamespace(prune=folder / "prune.json")
        self.lock = SimpleNamespace(release=lambda: None)
        self.dataset = self.failure = None

    def fail(self, error: BaseException) -> None:
        self.failure, self.status.status = error, FAILED

    def say(self, text: str) -> None:
        pass


@pytest.fixture
def new_pack_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Trials 1 to 4, of which the last is the largest. Of a trial's making the test decides."""
    monkeypatch.setattr(pack_trials, "draw_missing", lambda *_, **__: None)
    monkeypatch.setattr(pack_trials, "member_of", lambda run, *_: SimpleNamespace(train_id=run.trial.train_id))
    monkeypatch.setattr(probe, "num_that_fit", lambda *_: 5)
    monkeypatch.setattr(probe, "note_room", lambda *_: None)
    monkeypatch.setattr(probe, "trial_bytes", lambda *_: 1)

    def new(**options: Any) -> PackRun:
        runs = [Run(number, tmp_path) for number in range(1, 5)]
        spec = PackSpec(trials=tuple(run.trial for run in runs), scoring={}, results_dir=str(tmp_path), device="cpu:0",
                        threads=1, save_state_every_n_steps=2, control=str(tmp_path / "control.json"), **options)
        spec = pack_spec_from_json(to_json(spec))
        return PackRun(cast(Any, SimpleNamespace(device=None)), [], cast(Any, runs), spec, lambda run: None)

    return new


@pytest.mark.parametrize(("limit", "num_places"), [(None, 5), (3, 3), (8, 5)])
def test_as_many_as_memory_holds_at_most_so_many(new_pack_run, monkeypatch, limit, num_places) -> None:
    monkeypatch.setattr(pack_run, "Pack", lambda *_: SimpleNamespace(members=[]))
    for owner, step in ((Places, "resume"), (PackRun, "_train")):
        monkeypatch.setattr(owner, step, lambda self, pack: None)
    pack = new_pack_run(max_trials=limit, fits_memory=limit is not None)
    pack.run()
    assert pack.places.max_trials == num_places
    exact = new_pack_run(max_trials=8)
    exact.run()
    assert exact.places.max_trials == 8, "a number alone is taken at its word"


def test_a_probe_that_runs_out_of_memory_leaves_one_place(new_pack_run, monkeypatch) -> None:
    def fails(*_: Any) -> int:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(probe, "trial_bytes", fails)
    pack = new_pack_run()
    with pytest.raises(torch.OutOfMemoryError):
        pack.places.probe([])
    assert pack.places.max_trials == 1
    pack.places.halve()
    assert sorted(pack.trials.by_id) == ["t1", "t2", "t3"], "the largest failed; the others have their turn"


def test_a_trial_that_cannot_be_probed_fails_alone(new_pack_run, monkeypatch) -> None:
    def fails(base: Any, targets: Any, member: Any) -> int:
        if member.train_id in ("t4", "t3"):
            raise ValueError("no such layer")
        return 1

    monkeypatch.setattr(probe, "trial_bytes", fails)
    pack = new_pack_run()
    runs = dict(pack.trials.by_id)
    pack.places.probe([])
    assert {i: run.status.status for i, run in runs.items()} == {
        "t1": "running", "t2": "running", "t3": FAILED, "t4": FAILED}
    assert sorted(pack.trials.by_id) == ["t1", "t2"] and pack.places.max_trials == 5


def test_a_stop_is_heard_while_photos_are_encoded_and_fails_no_trial(new_pack_run, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(pack_trials, "member_of", lambda run, base, folder, on_progress: on_progress(1, 2))
    pack = new_pack_run()
    write_json(tmp_path / "control.json", {"command": "stop"})
    with pytest.raises(Stopped):
        pack.trials.member(pack.trials.by_id["t1"])
    assert pack.trials.by_id["t1"].status.status == "running"


def test_a_recorded_joiner_that_cannot_be_made_does_not_wait_any_more(new_pack_run, monkeypatch) -> None:
    def unreadable(run: Any, *_: Any) -> Any:
        if run.trial.train_id == "t2":
            raise ValueError("a photo is gone")
        return SimpleNamespace(train_id=run.trial.train_id)

    monkeypatch.setattr(pack_trials, "member_of", unreadable)
    pack, bank = new_pack_run(max_trials=2), cast(Any, SimpleNamespace(members=[]))
    monkeypatch.setattr(places, "bank_order", lambda trial: trial.number)
    pack.trials.waiting = dict.fromkeys(("t2", "t1", "t3", "t4"), 0)
    pack.places.pending = [Change(history="", number=1, after=0, update=0, members={"t2": 0}, waiting={}, pruned={},
                           max_trials=None)]
    joining: dict[str, Any] = {}
    assert pack.places._recorded(bank, joining) is None and pack.places.pending == []
    change = pack.places._decided(bank, joining)
    assert change is not None and list(change.members) == ["t1", "t3"] and list(change.waiting) == ["t4"]
