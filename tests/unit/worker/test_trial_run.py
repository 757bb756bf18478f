"""A worker that waits for another sweep's trial can be stopped; a trial that can't be opened says why in its log."""

from __future__ import annotations

import queue
import threading
from pathlib import Path

import pytest

from sweep.files import read_json, write_json
from sweep.lock import trial_lock
from sweep.stopping import STOP_ASKED, Stopped
from sweep.trial import FAILED, PackSpec, Trial, trial_folder
from sweep.worker import trial_run


@pytest.mark.parametrize("by", ["the control file", "the system"])
def test_who_waits_for_a_trial_stops_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    monkeypatch.setattr(trial_run, "LOCK_POLL_S", 0.01 if by == "the control file" else 60)
    trial = Trial(number=1, train_id="t1", settings={}, config={}, num_steps=4)
    spec = PackSpec(trials=(trial,), scoring={}, results_dir=str(tmp_path), device="cpu:0", threads=1,
                    save_state_every_n_steps=2, control=str(tmp_path / "control.json"))
    folder = trial_folder(tmp_path, "t1")
    ended: queue.Queue[BaseException | None] = queue.Queue()

    def wait() -> None:
        try:
            trial_run.open_trial(trial, spec)
            ended.put(None)
        except BaseException as error:
            ended.put(error)

    with trial_lock(folder.root, "another sweep"):
        threading.Thread(target=wait, daemon=True).start()
        with pytest.raises(queue.Empty):
            ended.get(timeout=0.2)
        try:
            if by == "the control file":
                write_json(Path(spec.control), {"command": "stop"})
            else:
                STOP_ASKED.set()
            assert isinstance(ended.get(timeout=10), Stopped)
        finally:
            STOP_ASKED.clear()
    assert "waiting: " in folder.log.read_text() and not folder.status.exists()


def test_a_trial_that_cannot_be_opened_has_its_traceback_in_its_log(tmp_path: Path,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(tree: object) -> None:
        raise OSError("can't read http://me:hunter2@host/photos")

    monkeypatch.setattr(trial_run, "train_from_tree", broken)
    trial = Trial(number=1, train_id="t1", settings={}, config={}, num_steps=4)
    spec = PackSpec(trials=(trial,), scoring={}, results_dir=str(tmp_path), device="cpu:0", threads=1,
                    save_state_every_n_steps=2, control=str(tmp_path / "control.json"))
    assert trial_run.open_trial(trial, spec) is None
    folder = trial_folder(tmp_path, "t1")
    log, status = folder.log.read_text(), read_json(folder.status)
    assert "Traceback" in log and "in broken" in log and "OSError: can't read http://me:***@host/photos" in log
    assert status["status"] == FAILED and status["reason"] == "OSError: can't read http://me:***@host/photos"
    assert "hunter2" not in log
