"""One trial inside a worker: its folder's lock, its photos, its status."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.data.folder import Dataset, read_dataset
from sweep.errors import LockedError, SweepError
from sweep.files import read_json, read_jsonl, write_json, write_text
from sweep.identity import base_identity, train_id
from sweep.lock import FolderLock, trial_lock
from sweep.redact import without_secrets
from sweep.reg_images import with_drawn
from sweep.stopping import STOP_ASKED, Stopped, is_stop_asked
from sweep.train_config import TrainConfig, train_from_tree
from sweep.trial import FAILED, RUNNING, PackSpec, Status, Trial, TrialFolder, status_from_json, to_json, trial_folder
from sweep.trial_log import say

if TYPE_CHECKING:
    from sweep.evaluation.scorer import ScoreRequest

LOCK_POLL_S = 2.0


@dataclass(slots=True, kw_only=True)
class TrialRun:
    """What a worker knows of one trial."""

    trial: Trial
    config: TrainConfig
    dataset: Dataset
    folder: TrialFolder
    lock: FolderLock
    status: Status
    requests: list[ScoreRequest] = field(default_factory=list)  # one per checkpoint, oldest first

    @property
    def output_name(self) -> str:
        return f"{self.dataset.trigger}-{self.trial.train_id[:8]}"

    def is_as_asked(self, base_id: str) -> bool:
        """Whether photos, captions and base are still those that the trial is known by."""
        return train_id(self.config, self.dataset, base_id) == self.trial.train_id

    def update(self, **changes: Any) -> None:
        """Change the status and write it; what errors say goes into it without their secrets."""
        changes |= {key: without_secrets(changes[key]) for key in ("reason", "diverged", "pruned") if key in changes}
        self.status = replace(self.status, **changes)
        write_json(self.folder.status, to_json(self.status), durable=self.status.status != RUNNING)

    def fail(self, error: BaseException) -> None:
        """A failed trial is a row with its reason; the traceback goes into its log."""
        say(self.folder, "".join(traceback.format_exception(error)))
        self.update(status=FAILED, phase="", reason=_reason(error))

    def say(self, text: str) -> None:
        """Add to the trial's log."""
        say(self.folder, text)


def open_trial(trial: Trial, spec: PackSpec, *, waits: bool = True) -> TrialRun | None:
    """Lock a trial's folder (waiting while another worker trains it) and read its photos.

    A trial that can't be opened is recorded as failed, and None is returned. Raises Stopped if asked to stop while it
    waits.
    waits: False = raise LockedError if another worker trains it.
    """
    folder = trial_folder(Path(spec.results_dir), trial.train_id)
    lock = _locked(folder, spec.control) if waits else trial_lock(folder.root, spec.control)
    run = None
    try:
        run = _opened(trial, folder, lock, Path(spec.results_dir))
    finally:
        if run is None:
            lock.release()
    return run


def _locked(folder: TrialFolder, owner: str) -> FolderLock:
    """The trial's lock; while another worker has it, its log says whom this one waits for.

    owner: the sweep's control file, by which it is known to others and may ask to stop.
    """
    folder.root.mkdir(parents=True, exist_ok=True)
    has_said = False
    while True:
        try:
            return trial_lock(folder.root, owner)
        except LockedError as error:
            if not has_said:
                say(folder, f"waiting: {error}")
                has_said = True
            if is_stop_asked(Path(owner)):
                raise Stopped from None
            STOP_ASKED.wait(LOCK_POLL_S)


def _opened(trial: Trial, folder: TrialFolder, lock: FolderLock, results_dir: Path) -> TrialRun | None:
    import yaml

    status = _status_before(trial, folder)
    try:
        for left_over in folder.root.rglob("*.tmp"):  # of a kill inside a write
            left_over.unlink()
        write_text(folder.config, yaml.safe_dump(dict(trial.config), sort_keys=False))
        config = train_from_tree(trial.config)
        dataset = read_dataset(config.dataset, trigger=config.trigger, class_noun=config.class_noun,
                               repeats=config.repeats, images_per_epoch=config.images_per_epoch)
        if config.dataset.generate_reg is not None:
            dataset = with_drawn(dataset, config, base_identity(config.base_model, results_dir), results_dir)
    except Exception as error:
        say(folder, "".join(traceback.format_exception(error)))
        reason = without_secrets(_reason(error))
        write_json(folder.status, to_json(replace(status, status=FAILED, phase="", reason=reason)))
        return None
    run = TrialRun(trial=trial, config=config, dataset=dataset, folder=folder, lock=lock, status=status)
    run.update()
    return run


def attributed_s(folder: TrialFolder) -> float:
    """What the trial has cost up to its last row."""
    return max((row["attributed_s"] for row in read_jsonl(folder.metrics) if "attributed_s" in row), default=0.0)


def _reason(error: BaseException) -> str:
    return str(error) if isinstance(error, SweepError) else f"{type(error).__name__}: {error}"


def _status_before(trial: Trial, folder: TrialFolder) -> Status:
    """Running from where an earlier worker left it. Trained counts only while the files are there."""
    status = Status(status=RUNNING, phase="loading", step=0, num_steps=trial.num_steps, is_trained=False,
                    attributed_s=attributed_s(folder))
    if not folder.status.exists():
        return status
    try:
        before = status_from_json(read_json(folder.status))
    except (ValueError, TypeError) as error:  # a power cut, a disk's fault
        say(folder, f"{folder.status.name} can't be read ({type(error).__name__}): as if it had not been there")
        return status
    if before.pruned and not folder.prune.exists():
        return status  # whoever asks now wants it whole
    if before.is_trained and (before.diverged or before.pruned or any(folder.checkpoints.glob("*.safetensors"))):
        return replace(status, step=before.step, is_trained=True, diverged=before.diverged, pruned=before.pruned,
                       newest_score=before.newest_score)
    return status
