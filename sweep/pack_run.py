"""One pack from its photos to its answers: train together, save, screen, score, and lose nothing to a kill."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.data.buckets import Fit
from sweep.data.cache import View, cached_moments, cached_text_states
from sweep.data.train_data import batch_plan, data_notes, load_train_data, photo_fits
from sweep.files import append_jsonl, read_json, read_jsonl, write_text
from sweep.model.base import Base
from sweep.network.lora_file import write_lora
from sweep.network.metadata import training_metadata
from sweep.network.targets import Target
from sweep.reg_images import draw_missing
from sweep.training.loop import StepRow, train
from sweep.training.pack import Member, Pack
from sweep.training.precision import dtype_named
from sweep.training.state import forget_states, latest_save, load_states, newest_step, ordered, save_states
from sweep.training.validation import HeldOut, validation_losses
from sweep.trial import DIVERGED, DONE, PackSpec, TrialFolder, to_json
from sweep.trial_run import TrialRun, attributed_s

if TYPE_CHECKING:
    from sweep.evaluation.scorer import Scorer, ScoreRequest

STATUS_EVERY_S = 1.0  # how often a running trial's status.json is renewed


class Stopped(Exception):
    """The control file asked to stop; everything is saved."""


class PackRun:
    """The trials of one pack. scorers: by train id, None where scoring is off."""

    def __init__(self, base: Base, targets: list[Target], runs: Sequence[TrialRun],
                 scorers: dict[str, Scorer | None], spec: PackSpec):
        self.base, self.targets, self.runs, self.scorers, self.spec = base, targets, list(runs), scorers, spec
        self.by_id = {run.trial.train_id: run for run in runs}
        self.state_dirs = {run.trial.train_id: run.folder.state for run in runs}
        self._last_status_s = 0.0
        self._held_out_of: dict[tuple[tuple[str, str, Fit], ...], tuple[HeldOut, ...]] = {}

    def train(self) -> None:
        """Train until every trial has its last file, screening checkpoints on the way. Raises Stopped if asked to."""
        pack = self._resume()
        self._screen(self.runs)
        for num_passes, rows in enumerate(train(pack), start=1):
            for row in rows:
                self._record_step(row)
            due = [self.by_id[m.train_id] for m in pack.members if m.is_at_checkpoint and not m.diverged]
            self._save_checkpoints(pack, due)
            self._validate(pack, due)
            finished = [m for m in pack.members if m.is_finished]
            if finished:
                self._leave(pack, finished)
            elif due or num_passes % self.spec.save_state_every_n_steps == 0:
                save_states(pack, self.state_dirs)
            self._screen(due)
            if self._is_stop_asked():
                save_states(pack, self.state_dirs)
                raise Stopped

    def finish(self) -> None:
        """Score the trials to the end and say which file to use; then they are done."""
        for run in self.runs:
            run.update(phase="scoring")
        for scorer, runs in self._by_scorer(run for run in self.runs if run.requests):
            started = time.perf_counter()
            try:
                scorer.finish([run.requests for run in runs], on_progress=self._stop_if_asked)
            except Stopped:
                raise
            except Exception as error:  # the other photos' trials still get their answers
                for run in runs:
                    run.fail(error)
                continue
            share_s = (time.perf_counter() - started) / len(runs)
            for run in runs:
                run.update(attributed_s=run.status.attributed_s + share_s)
                self._done(run)
        for run in self.runs:
            if not run.requests or self.scorers[run.trial.train_id] is None:
                self._done(run)

    def _done(self, run: TrialRun) -> None:
        run.update(status=DIVERGED if run.status.diverged else DONE, phase="", reason=run.status.diverged)

    def _resume(self) -> Pack:
        """The pack as the newest complete save left it. Trials without their companions' saves go on from their own
        newest state: their rounding then differs from an undisturbed run, which their logs say."""
        members = [_member(self.base, run, self.spec) for run in self.runs]
        steps = latest_save(self.state_dirs)
        rest = [m for m in members if m.train_id not in steps and not self.by_id[m.train_id].status.is_trained]
        own = {m.train_id: newest_step(m.train_id, self.state_dirs) for m in rest}
        for train_id, step in own.items():
            if step:
                self.by_id[train_id].say(f"goes on from step {step} with other companions than before the interruption")
        chosen = [m for m in members if m.train_id in steps or m in rest] if rest else ordered(members, steps)
        pack = Pack(self.base, self.targets, chosen)
        load_states(pack, self.state_dirs, {**own, **steps})
        for run in self.runs:
            run.requests = _existing_requests(run)
        for member in pack.members:
            run = self.by_id[member.train_id]
            _rewind_metrics(run.folder, member.step)
            run.requests = [request for request in run.requests if request.step <= member.step]
            run.update(step=member.step, attributed_s=attributed_s(run.folder), is_trained=False)
        self._log_membership(pack)
        return pack

    def _log_membership(self, pack: Pack) -> None:
        """Who shares the pass from here on: written before the first step with these members."""
        steps = {m.train_id: m.step for m in pack.members}
        for member in pack.members:
            append_jsonl(self.by_id[member.train_id].folder.packs,
                         {"step": member.step, "members": steps, "threads": self.spec.threads,
                          "device_name": _device_name(self.base)})

    def _record_step(self, row: StepRow) -> None:
        run = self.by_id[row.member.train_id]
        spent_s = run.status.attributed_s + row.share_s
        run.status = replace(run.status, step=row.step, attributed_s=spent_s)
        if not row.member.diverged:
            append_jsonl(run.folder.metrics, {
                "kind": "train", "step": row.step, "epoch": row.member.epoch, "loss": row.loss, "unet_lr": row.unet_lr,
                "text_encoder_lr": row.text_encoder_lr, **_used(row),
                "grad_norm": row.grad_norm if math.isfinite(row.grad_norm) else None, "attributed_s": spent_s})
        if time.monotonic() - self._last_status_s > STATUS_EVERY_S:
            self._last_status_s = time.monotonic()
            for each in self.runs:
                each.update()

    def _save_checkpoints(self, pack: Pack, due: Sequence[TrialRun]) -> None:
        by_id = {member.train_id: member for member in pack.members}
        for run in due:
            member = by_id[run.trial.train_id]
            request = _write_checkpoint(pack, self.base, run, member)
            run.requests.append(request)
            append_jsonl(run.folder.metrics, {"kind": "checkpoint", "step": member.step, "epoch": member.epoch,
                                              "file": request.file.name})

    def _validate(self, pack: Pack, due: Sequence[TrialRun]) -> None:
        """The loss on held-out photos, trials of the same photos together. Before the state is saved, so that a resume
        finds either both the checkpoint and its validation behind it or makes both again."""
        groups: dict[tuple[HeldOut, ...], list[TrialRun]] = {}
        for run in due if self.spec.validate else ():
            groups.setdefault(self._held_out(run), []).append(run)
        for photos, runs in groups.items():
            if not photos:
                continue
            started = time.perf_counter()
            ids = {run.trial.train_id for run in runs}
            members = [member for member in pack.members if member.train_id in ids]
            found = validation_losses(pack, members, photos)
            share_s = (time.perf_counter() - started) / len(runs)
            for member, validation in zip(members, found, strict=True):
                run = self.by_id[member.train_id]
                run.status = replace(run.status, attributed_s=run.status.attributed_s + share_s)
                append_jsonl(run.folder.metrics, {"kind": "validation", "step": member.step, "epoch": member.epoch,
                                                  "loss": validation.loss, "buckets": validation.buckets,
                                                  "attributed_s": run.status.attributed_s})

    def _held_out(self, run: TrialRun) -> tuple[HeldOut, ...]:
        """Encoded once per pack; trials on the same photos, cut alike, get the same tuple."""
        photos = run.dataset.validation
        fits = photo_fits(run.config.dataset, photos, self.base.resolution)
        key = tuple((photo.sha256, photo.caption, fit) for photo, fit in zip(photos, fits, strict=True))
        if key not in self._held_out_of:
            self._held_out_of[key] = tuple(
                HeldOut(moments_MHW=cached_moments(self.base, photo, View(fit), Path(self.spec.results_dir)),
                        caption=photo.caption) for photo, fit in zip(photos, fits, strict=True))
        return self._held_out_of[key]

    def _screen(self, runs: Iterable[TrialRun]) -> None:
        """Score the checkpoints that have no score yet, together. After the state is saved: a kill in here costs no
        step, and a resume makes up for it."""
        for scorer, group in self._by_scorer(run for run in runs if run.requests):
            pairs = [(run, request) for run in group for request in _unscored(run)]
            if not pairs:
                continue
            started = time.perf_counter()
            scores = scorer.screen([request for _, request in pairs], on_progress=self._stop_if_asked)
            share_s = (time.perf_counter() - started) / len(pairs)
            for (run, _), score in zip(pairs, scores, strict=True):
                run.update(attributed_s=run.status.attributed_s + share_s, newest_score=score.score_id)
                append_jsonl(run.folder.metrics, {"kind": "score", "step": score.step, "epoch": score.epoch,
                                                  "score": to_json(score), "attributed_s": run.status.attributed_s})

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
            diverged = f"diverged: {member.diverged}" if member.diverged else ""
            self.by_id[member.train_id].update(is_trained=True, phase="scoring", diverged=diverged, step=member.step)
        pack.drop(finished)
        self._log_membership(pack)
        save_states(pack, self.state_dirs)
        for member in finished:
            forget_states(self.state_dirs[member.train_id])

    def _is_stop_asked(self) -> bool:
        return _is_stop_asked(self.spec)

    def _stop_if_asked(self, num_done: int, num_all: int) -> None:
        """Between two groups of images: what has been drawn is kept."""
        if self._is_stop_asked():
            raise Stopped


def _is_stop_asked(spec: PackSpec) -> bool:
    control = Path(spec.control)
    return control.exists() and bool(read_json(control).get("command") == "stop")


def _draw_reg_images(base: Base, run: TrialRun, spec: PackSpec) -> None:
    """Those that no trial has needed before. Raises Stopped if asked to; what has been drawn is kept."""
    def on_progress(num_done: int, num_all: int) -> None:
        run.update(phase="drawing" if num_done < num_all else "training")
        if _is_stop_asked(spec):
            raise Stopped

    draw_missing(base, run.dataset, say=run.say, on_progress=on_progress)


def _member(base: Base, run: TrialRun, spec: PackSpec) -> Member:
    config, dataset = run.config, run.dataset
    _draw_reg_images(base, run, spec)
    plan = batch_plan(config.dataset, dataset, resolution=base.resolution, batch_size=config.train_batch_size,
                      accumulation=config.gradient_accumulation_steps, seed=config.seed)
    data = load_train_data(base, config.dataset, dataset, plan, prior_loss_weight=config.prior_loss_weight,
                           results_dir=Path(spec.results_dir))
    for note in (*dataset.skipped, *data_notes(config.dataset, dataset, base.resolution)):
        run.say(note)
    cut = [photo.path.name for photo in dataset.all_photos if base.is_cut(photo.caption, config.max_token_length)]
    if cut:
        run.say(f"{len(cut)} captions are longer than max_token_length={config.max_token_length}; their ends are cut "
                f"off: {', '.join(cut)}")
    member = Member(train_id=run.trial.train_id, config=config, num_steps=run.trial.num_steps, data=data)
    if "text_encoder" not in member.trained_parts and not config.dataset.varies_captions:
        member.known_text = cached_text_states(base, data.captions, Path(spec.results_dir), clip_skip=config.clip_skip,
                                               max_token_length=config.max_token_length)
    return member


def _write_checkpoint(pack: Pack, base: Base, run: TrialRun, member: Member) -> ScoreRequest:
    metadata = training_metadata(
        run.config, run.dataset, output_name=run.output_name, plan=member.data.plan,
        num_steps=member.num_steps, step=member.step, epoch=member.epoch, base=base)
    path = run.folder.checkpoints / _file_name(run.output_name, member)
    with pack.as_saved(member):
        write_lora(path, pack.weights_of(member), dtype=dtype_named(run.config.save_precision), metadata=metadata)
    return _request(run, path, member.epoch, member.step)


def _used(row: StepRow) -> dict[str, float | bool]:
    """What a plain trial has no need to say: rates that the optimizer found itself, and fp16's scale."""
    scheduled = {"unet": row.unet_lr, "text_encoder": row.text_encoder_lr}
    used: dict[str, float | bool] = {f"used_{part}_lr": rate for part, rate in row.used_rates.items()
                                     if rate != scheduled[part]}
    if row.loss_scale is not None:
        used |= {"loss_scale": row.loss_scale, "is_skipped": row.is_skipped}
    return used


def _file_name(name: str, member: Member) -> str:
    """sd-scripts' names: NAME-000001 per epoch, NAME-step00000100 within one, NAME for the end."""
    if member.step == member.num_steps:
        return f"{name}.safetensors"
    if member.step % member.data.steps_per_epoch == 0:
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


def _unscored(run: TrialRun) -> list[ScoreRequest]:
    scored = {row["step"] for row in read_jsonl(run.folder.metrics) if row["kind"] == "score"}
    return [request for request in run.requests if request.step not in scored]


def _rewind_metrics(folder: TrialFolder, step: int) -> None:
    """Drop the rows of steps that will be made again."""
    if folder.metrics.exists():
        rows = [row for row in read_jsonl(folder.metrics) if row["step"] <= step]
        write_text(folder.metrics, "".join(json.dumps(row) + "\n" for row in rows))


def _device_name(base: Base) -> str:
    import torch

    return torch.cuda.get_device_name(base.device) if base.device.type == "cuda" else "cpu"
