"""What a trial in training leaves in its folder: LoRA files, rows of metrics, and what is asked of them later."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.data.cache import cached_text_states
from sweep.data.train_data import batch_plan, data_notes, load_train_data
from sweep.files import append_jsonl, read_jsonl, write_text
from sweep.methods import DREAMBOOTH, TEXTUAL_INVERSION
from sweep.model.base import Base
from sweep.network.checkpoint_file import write_checkpoint_file
from sweep.network.embedding_file import write_embedding_file
from sweep.network.lora_file import write_lora
from sweep.network.metadata import training_metadata
from sweep.training.loop import StepRow
from sweep.training.pack import Member, Pack
from sweep.training.precision import dtype_named
from sweep.trial import TrialFolder
from sweep.worker.trial_run import TrialRun

if TYPE_CHECKING:
    import torch

    from sweep.evaluation.scorer import ScoreRequest


def member_of(run: TrialRun, base: Base, results_dir: Path, on_progress: Callable[[int, int], None]) -> Member:
    """The trial as a pack takes it: its photos encoded (or found), at step 0. on_progress: see `load_train_data`."""
    config, dataset = run.config, run.dataset
    plan = batch_plan(config.dataset, dataset, resolution=base.resolution, batch_size=config.train_batch_size,
                      accumulation=config.gradient_accumulation_steps, seed=config.seed)
    data = load_train_data(base, config.dataset, dataset, plan, prior_loss_weight=config.prior_loss_weight,
                           results_dir=results_dir, on_progress=on_progress)
    for note in (*dataset.skipped, *data_notes(config.dataset, dataset, base.resolution)):
        run.say(note)
    cut = [photo.path.name for photo in dataset.all_photos if base.is_cut(photo.caption, config.max_token_length)]
    if cut:
        run.say(f"{len(cut)} captions are longer than max_token_length={config.max_token_length}; their ends are cut "
                f"off: {', '.join(cut)}")
    config = replace(config, trigger=dataset.trigger, class_noun=dataset.class_noun)
    member = Member(train_id=run.trial.train_id, config=config, num_steps=run.trial.num_steps, data=data)
    if "text_encoder" not in member.trained_parts and not config.dataset.varies_captions:
        member.known_text = cached_text_states(base, data.captions, results_dir, clip_skip=config.clip_skip,
                                               max_token_length=config.max_token_length)
    return member


def write_checkpoint(pack: Pack, base: Base, run: TrialRun, member: Member) -> None:
    """A file of the weights as they are, in the form that the method's users know, and its row."""
    metadata = training_metadata(
        run.config, run.dataset, output_name=run.output_name, plan=member.data.plan,
        num_steps=member.num_steps, step=member.step, epoch=member.epoch, base=base)
    path = run.folder.checkpoints / _file_name(run.output_name, member)
    with pack.as_saved(member):
        _write(path, pack, base, member, dtype_named(run.config.save_precision), metadata)
    run.requests.append(_request(run, path, member.epoch, member.step))
    append_jsonl(run.folder.metrics, {"kind": "checkpoint", "step": member.step, "epoch": member.epoch,
                                      "file": path.name})


def _write(path: Path, pack: Pack, base: Base, member: Member, dtype: torch.dtype, metadata: dict[str, str]) -> None:
    method, weights = member.config.method.name, pack.weights_of(member)
    if method == DREAMBOOTH:
        write_checkpoint_file(path, base, pack.targets, weights, dtype=dtype, metadata=metadata)
    elif method == TEXTUAL_INVERSION:
        write_embedding_file(path, pack.targets, weights, dtype=dtype, metadata=metadata)
    else:
        write_lora(path, weights, dtype=dtype, metadata=metadata)


def record_step(run: TrialRun, row: StepRow, *, attributed_s: float, memory_gib: float) -> None:
    """The row of a step; the step in which a trial diverged has none."""
    if not row.member.diverged:
        append_jsonl(run.folder.metrics, {
            "kind": "train", "step": row.step, "epoch": row.member.epoch, "loss": row.loss, "unet_lr": row.unet_lr,
            "text_encoder_lr": row.text_encoder_lr, **_used(row),
            "grad_norm": row.grad_norm if math.isfinite(row.grad_norm) else None, "attributed_s": attributed_s,
            "memory_gib": round(memory_gib, 3)})


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


def existing_requests(run: TrialRun) -> list[ScoreRequest]:
    """The checkpoints that the trial has written, by its metrics."""
    rows = {row["file"]: row for row in read_jsonl(run.folder.metrics) if row["kind"] == "checkpoint"}
    return [_request(run, path, row["epoch"], row["step"]) for row in rows.values()
            if (path := run.folder.checkpoints / row["file"]).exists()]


def unscored(run: TrialRun, scoring_id: str) -> list[ScoreRequest]:
    """Its checkpoints that no row says a score of under this scoring; sweeps that score otherwise share the rows."""
    scored = {row["step"] for row in read_jsonl(run.folder.metrics)
              if row["kind"] == "score" and row["score"]["scoring_id"] == scoring_id}
    return [request for request in run.requests if request.step not in scored]


def rewind_metrics(folder: TrialFolder, step: int) -> None:
    """Drop the rows of steps that will be made again."""
    if folder.metrics.exists():
        rows = [row for row in read_jsonl(folder.metrics) if row["step"] <= step]
        write_text(folder.metrics, "".join(json.dumps(row) + "\n" for row in rows))
