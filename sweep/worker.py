"""What every launcher starts: for one pack, cache -> train -> generate -> score.

    python -m sweep.worker SPEC.json ...     these packs, one after the other
    python -m sweep.worker -                 packs whose paths come on standard input; the base stays loaded

A worker and the conductor meet only in files: the pack's spec, the trials' folders, and a control file that may say
"stop". Everything here can be killed at any moment and run again.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.config import TrainConfig, train_from_tree
from sweep.data.batches import BatchPlan
from sweep.data.cache import cached_moments
from sweep.data.folder import Dataset, read_dataset
from sweep.errors import ConfigError, SweepError
from sweep.evaluation.settings import SCORINGS
from sweep.files import append_jsonl, read_json, read_jsonl, stable_hash, write_json, write_text
from sweep.identity import base_identity
from sweep.model.base import Base, load_base
from sweep.network.lora_file import write_lora
from sweep.network.metadata import training_metadata
from sweep.network.targets import Target, find_targets
from sweep.schema import build_family, to_tree
from sweep.training.loop import StepRow, train
from sweep.training.pack import Member, Pack
from sweep.training.state import forget_states, latest_save, load_states, ordered, save_states
from sweep.trial import (
    DIVERGED,
    DONE,
    FAILED,
    RUNNING,
    PackSpec,
    Status,
    Trial,
    TrialFolder,
    pack_spec_from_json,
    status_from_json,
    to_json,
    trial_folder,
)

if TYPE_CHECKING:
    import torch

    from sweep.evaluation.scorer import Scorer, ScoreRequest

STATUS_EVERY_S = 1.0  # how often a running trial's status.json is renewed


@dataclass(slots=True, kw_only=True)
class TrialRun:
    """One trial inside a worker: its record, its photos, and its place in the pack while it trains."""

    trial: Trial
    config: TrainConfig
    dataset: Dataset
    folder: TrialFolder
    status: Status
    requests: list[ScoreRequest] = field(default_factory=list)  # one per checkpoint

    @property
    def output_name(self) -> str:
        return f"{self.dataset.trigger}-{self.trial.train_id[:8]}"

    def update(self, **changes: Any) -> None:
        self.status = replace(self.status, **changes)
        write_json(self.folder.status, to_json(self.status), durable=self.status.status != RUNNING)

    def fail(self, error: BaseException) -> None:
        """A failed trial is a row with its reason; the traceback goes into its log."""
        with self.folder.log.open("a") as log:
            log.write("".join(traceback.format_exception(error)))
        reason = str(error) if isinstance(error, SweepError) else f"{type(error).__name__}: {error}"
        self.update(status=FAILED, phase="", reason=reason)


class Worker:
    """Runs packs one after the other; the base, its targets and the scorers stay from pack to pack."""

    def __init__(self) -> None:
        self._bases: dict[tuple[str, str], tuple[Base, list[Target]]] = {}
        self._scorers: dict[str, Scorer] = {}

    def run(self, spec: PackSpec) -> None:
        """Train and score a pack. What fails is recorded as failed, with its reason; nothing is raised."""
        import torch

        torch.set_num_threads(spec.threads)
        runs = [run for trial in spec.trials if (run := _open(trial, spec)) is not None]
        if not runs:
            return
        try:
            base, targets = self._base(runs[0].config, _device(spec.device), spec)
            scorers = {run.trial.train_id: self._scorer(base, targets, run, spec) for run in runs}
            pack_run = PackRun(base, targets, runs, scorers, spec)
            if pack_run.train():
                pack_run.finish()
        except Exception as error:
            for run in runs:
                if run.status.status == RUNNING:
                    run.fail(error)

    def _base(self, config: TrainConfig, device: torch.device, spec: PackSpec) -> tuple[Base, list[Target]]:
        identity = base_identity(config.base_model, Path(spec.results_dir))
        key = (identity, str(device))
        if key not in self._bases:
            self._bases.clear()  # one base at a time: on a GPU two may not fit
            self._scorers.clear()
            base = load_base(config.base_model, identity, device)
            self._bases[key] = base, find_targets(base)
        return self._bases[key]

    def _scorer(self, base: Base, targets: list[Target], run: TrialRun, spec: PackSpec) -> Scorer | None:
        """The scorer for a trial's photos; None if scoring is off."""
        scoring = build_family(SCORINGS, spec.scoring, "scoring")
        if scoring.name == "none":
            return None
        from sweep.evaluation.scorer import Scorer

        key = stable_hash([to_tree(scoring), run.dataset.identity, [str(p) for p in run.dataset.holdout],
                           run.dataset.trigger, run.dataset.class_noun])
        if key not in self._scorers:
            self._scorers[key] = Scorer(base, targets, scoring, run.dataset, Path(spec.results_dir))
        return self._scorers[key]


def _open(trial: Trial, spec: PackSpec) -> TrialRun | None:
    """Set up a trial's folder and read its photos; a trial that can't be set up is recorded as failed."""
    import yaml

    folder = trial_folder(Path(spec.results_dir), trial.train_id)
    folder.root.mkdir(parents=True, exist_ok=True)
    write_text(folder.config, yaml.safe_dump(dict(trial.config), sort_keys=False))
    status = Status(status=RUNNING, phase="training", step=0, num_steps=trial.num_steps, is_trained=False,
                    attributed_s=_attributed_s(folder))
    if folder.status.exists() and (before := status_from_json(read_json(folder.status))).is_trained:
        status = replace(status, step=before.step, is_trained=True, reason=before.reason)
    try:
        config = train_from_tree(trial.config)
        dataset = read_dataset(config.dataset, trigger=config.trigger, class_noun=config.class_noun,
                               repeats=config.repeats)
    except SweepError as error:
        write_json(folder.status, to_json(replace(status, status=FAILED, phase="", reason=str(error))))
        return None
    run = TrialRun(trial=trial, config=config, dataset=dataset, folder=folder, status=status)
    run.update()
    return run


def _device(name: str) -> torch.device:
    """"auto:1" -> cuda:1 if there are that many GPUs, else the CPU."""
    import torch

    kind, _, index = name.partition(":")
    num_gpus = torch.cuda.device_count()
    if kind == "cuda" and int(index) >= num_gpus:
        raise ConfigError(f"launcher.device=cuda with worker {index}, but this machine has {num_gpus} usable GPUs.")
    return torch.device(f"cuda:{index}" if kind != "cpu" and int(index) < num_gpus else "cpu")


class PackRun:
    """One pack from its photos to its answers."""

    def __init__(self, base: Base, targets: list[Target], runs: Sequence[TrialRun],
                 scorers: dict[str, Scorer | None], spec: PackSpec):
        self.base, self.targets, self.runs, self.scorers, self.spec = base, targets, list(runs), scorers, spec
        self.by_id = {run.trial.train_id: run for run in runs}
        self.state_dirs = {run.trial.train_id: run.folder.state for run in runs}
        self.control = Path(spec.control)
        self._last_status_s = 0.0

    def train(self) -> bool:
        """Train until every trial has its last file. False if a control file asked to stop (the states are saved)."""
        for run in self.runs:
            run.requests = _existing_requests(run) if run.status.is_trained else []
        pack = self._resume()
        for num_passes, rows in enumerate(train(pack), start=1):
            for row in rows:
                self._record_step(row)
            due = [m for m in pack.members if m.is_at_checkpoint and not m.diverged]
            self._save_checkpoints(pack, due)
            finished = [m for m in pack.members if m.is_finished]
            if finished:
                self._leave(pack, finished)
            elif due or num_passes % self.spec.save_state_every_n_steps == 0:
                save_states(pack, self.state_dirs)
            if pack.members and self._is_stopped():
                save_states(pack, self.state_dirs)
                return False
        return True

    def finish(self) -> None:
        """Score the trials to the end and say which file to use; then they are done."""
        for run in self.runs:
            run.update(phase="scoring")
        for scorer, runs in self._by_scorer(run for run in self.runs if run.requests):
            started = time.perf_counter()
            scorer.finish([run.requests for run in runs])
            share_s = (time.perf_counter() - started) / len(runs)
            for run in runs:
                run.update(attributed_s=run.status.attributed_s + share_s)
        for run in self.runs:
            run.update(status=DIVERGED if run.status.reason else DONE, phase="")

    def _resume(self) -> Pack:
        """The pack as the newest complete save left it, or from the start."""
        members = [_member(self.base, run, self.spec) for run in self.runs]
        steps = latest_save(self.state_dirs)
        if steps:
            pack = Pack(self.base, self.targets, ordered(members, steps))
            load_states(pack, self.state_dirs, steps)
        else:
            untrained = [m for m in members if not self.by_id[m.train_id].status.is_trained]
            pack = Pack(self.base, self.targets, untrained)
        for member in pack.members:
            run = self.by_id[member.train_id]
            _rewind_metrics(run.folder, member.step)
            run.requests = [r for r in _existing_requests(run) if r.step <= member.step]
            run.update(step=member.step, attributed_s=_attributed_s(run.folder))
        self._log_membership(pack)
        return pack

    def _log_membership(self, pack: Pack) -> None:
        """Who shares the pass from here on: written before the first step with these members."""
        steps = {m.train_id: m.step for m in pack.members}
        for member in pack.members:
            append_jsonl(self.by_id[member.train_id].folder.packs,
                         {"step": member.step, "members": steps, "threads": self.spec.threads,
                          "device": self.spec.device})

    def _record_step(self, row: StepRow) -> None:
        run = self.by_id[row.member.train_id]
        attributed_s = run.status.attributed_s + row.share_s
        run.status = replace(run.status, step=row.step, attributed_s=attributed_s)
        if row.member.diverged:
            return
        append_jsonl(run.folder.metrics, {
            "kind": "train", "step": row.step, "epoch": row.member.epoch, "loss": row.loss, "unet_lr": row.unet_lr,
            "text_encoder_lr": row.text_encoder_lr, "grad_norm": row.grad_norm, "attributed_s": attributed_s})
        if time.monotonic() - self._last_status_s > STATUS_EVERY_S:
            self._last_status_s = time.monotonic()
            for each in self.runs:
                each.update()

    def _save_checkpoints(self, pack: Pack, due: Sequence[Member]) -> None:
        """Write the LoRA files that are due, and screen them together."""
        for member in due:
            run = self.by_id[member.train_id]
            request = _write_checkpoint(pack, self.base, run, member)
            run.requests.append(request)
            append_jsonl(run.folder.metrics, {"kind": "checkpoint", "step": member.step, "epoch": member.epoch,
                                              "file": request.file.name})
        for scorer, runs in self._by_scorer(self.by_id[member.train_id] for member in due):
            started = time.perf_counter()
            scores = scorer.screen([run.requests[-1] for run in runs])
            share_s = (time.perf_counter() - started) / len(runs)
            for run, score in zip(runs, scores, strict=True):
                run.update(attributed_s=run.status.attributed_s + share_s, newest_score=score.score_id)
                append_jsonl(run.folder.metrics, {"kind": "score", "step": score.step, "epoch": score.epoch,
                                                  "score": to_json(score),
                                                  "attributed_s": run.status.attributed_s})

    def _by_scorer(self, runs: Iterable[TrialRun]) -> list[tuple[Scorer, list[TrialRun]]]:
        """Trials on the same photos are scored together; without scoring there is no group."""
        groups: dict[int, tuple[Scorer, list[TrialRun]]] = {}
        for run in runs:
            scorer = self.scorers[run.trial.train_id]
            if scorer is not None:
                groups.setdefault(id(scorer), (scorer, []))[1].append(run)
        return list(groups.values())

    def _leave(self, pack: Pack, finished: Sequence[Member]) -> None:
        """Take finished members out. The order matters to a kill in between: first they are known as trained, then the
        rest is saved as the smaller pack, and only then their states, which an older save still needs, go."""
        for member in finished:
            run = self.by_id[member.train_id]
            reason = f"diverged: {member.diverged}" if member.diverged else ""
            run.update(is_trained=True, phase="scoring", reason=reason, step=member.step)
        pack.drop(finished)
        self._log_membership(pack)
        save_states(pack, self.state_dirs)
        for member in finished:
            forget_states(self.state_dirs[member.train_id])

    def _is_stopped(self) -> bool:
        return self.control.exists() and bool(read_json(self.control).get("command") == "stop")


def _member(base: Base, run: TrialRun, spec: PackSpec) -> Member:
    photos, config = run.dataset.photos, run.config
    plan = BatchPlan(tuple(photo.repeats for photo in photos), config.train_batch_size, config.seed)
    moments = cached_moments(base, photos, config.base_model.resolution, Path(spec.results_dir))
    return Member(train_id=run.trial.train_id, config=config, num_steps=run.trial.num_steps, moments_NMHW=moments,
                  captions=tuple(photo.caption for photo in photos), plan=plan)


def _write_checkpoint(pack: Pack, base: Base, run: TrialRun, member: Member) -> ScoreRequest:
    import torch

    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[run.config.save_precision]
    metadata = training_metadata(
        run.config, run.dataset, output_name=run.output_name, steps_per_epoch=member.plan.steps_per_epoch,
        num_steps=member.num_steps, step=member.step, epoch=member.epoch, base_identity=base.identity)
    path = run.folder.checkpoints / _file_name(run.output_name, member)
    write_lora(path, pack.targets, pack.weights_of(member), alpha=run.config.network_alpha, dtype=dtype,
               metadata=metadata)
    return _request(run, path, member.epoch, member.step)


def _file_name(name: str, member: Member) -> str:
    """sd-scripts' names: NAME-000001 per epoch, NAME-step00000100 within one, NAME for the end."""
    if member.step == member.num_steps:
        return f"{name}.safetensors"
    if member.step % member.plan.steps_per_epoch == 0:
        return f"{name}-{member.epoch:06d}.safetensors"
    return f"{name}-step{member.step:08d}.safetensors"


def _request(run: TrialRun, path: Path, epoch: int, step: int) -> ScoreRequest:
    from sweep.evaluation.scorer import ScoreRequest

    return ScoreRequest(file=path, epoch=epoch, step=step, scores_dir=run.folder.scores, images_dir=run.folder.images)


def _existing_requests(run: TrialRun) -> list[ScoreRequest]:
    """The checkpoints that the trial has written, by its metrics."""
    rows = {row["file"]: row for row in read_jsonl(run.folder.metrics) if row["kind"] == "checkpoint"}
    return [_request(run, path, row["epoch"], row["step"]) for row in rows.values()
            if (path := run.folder.checkpoints / row["file"]).exists()]


def _rewind_metrics(folder: TrialFolder, step: int) -> None:
    """Drop the rows of steps that will be made again."""
    rows = [row for row in read_jsonl(folder.metrics) if row["step"] <= step]
    if folder.metrics.exists():
        write_text(folder.metrics, "".join(json.dumps(row) + "\n" for row in rows))


def _attributed_s(folder: TrialFolder) -> float:
    """What the trial has cost up to its last row."""
    return max((row["attributed_s"] for row in read_jsonl(folder.metrics) if "attributed_s" in row), default=0.0)


def main(arguments: Sequence[str]) -> int:
    """Run the packs named on the command line or on standard input. Answers each on standard output when it is done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the conductor's to understand
    worker = Worker()
    for path in _paths_from_stdin() if list(arguments) == ["-"] else arguments:
        worker.run(pack_spec_from_json(read_json(Path(path))))
        print(path, flush=True)
    return 0


def _paths_from_stdin() -> Iterator[str]:
    """Lines up to "exit". A conductor that dies closes the pipe without it: then this process ends at once, so that a
    new conductor's worker never shares a trial's folder with an orphan."""
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line.strip())
            if line.strip() == "exit":
                return
        os._exit(1)

    threading.Thread(target=read, daemon=True).start()
    while (line := lines.get()) != "exit":
        yield line


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
