"""What a sweep will cost: time, files, images, packs. For `plan=true`; imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from sweep.conductor.file_size import counted_bytes
from sweep.config import RunConfig
from sweep.evaluation.cells import most_images
from sweep.evaluation.settings import NoScoring, ScoringConfig
from sweep.files import read_jsonl
from sweep.methods import LORA, file_word, method_of
from sweep.preflight import Checked
from sweep.record import rates
from sweep.room import base_label, known_room, largest
from sweep.trial import Trial, TrialResult, trial_folder


def expected_s(results_dir: Path, key: str, *, num_steps: int, num_checkpoints: int, num_trials: int) -> float | None:
    """Seconds of one worker, from what steps, screened checkpoints and last scorings cost here before; None before the
    first measurement. key: what these depend on most: base, resolution, device, scoring."""
    parts = [rates.expected(results_dir, f"{key} {unit}", number) for unit, number in
             (("step", num_steps), ("checkpoint", num_checkpoints), ("trial", num_trials))]
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def rate_key(config: RunConfig) -> str:
    """What the cost of steps, checkpoints and last scorings is remembered by."""
    base = config.train.base_model
    return f"{base.name} {base.resolution}px {config.launcher.device} scoring={config.scoring.name}"


def remember_costs(results_dir: Path, key: str, done: Sequence[TrialResult]) -> None:
    """Tell the time of finished trials' parts apart by their metrics, whose rows say what was spent until then.

    Sweeps that score otherwise write into the same metrics: of scores only those of the result's own scoring count.
    """
    training_s = screening_s = last_s = 0.0
    num_steps = num_checkpoints = 0
    for result in done:
        before_s, own = 0.0, result.answer.score.scoring_id if result.answer else None
        for row in read_jsonl(trial_folder(results_dir, result.trial.train_id).metrics):
            if "attributed_s" not in row:
                continue
            spent_s, before_s = row["attributed_s"] - before_s, row["attributed_s"]
            if row["kind"] == "score" and row["score"]["scoring_id"] != own:
                continue
            if row["kind"] == "score":
                screening_s, num_checkpoints = screening_s + spent_s, num_checkpoints + 1
            else:
                training_s += spent_s
        num_steps += result.step
        last_s += max(0.0, result.attributed_s - before_s)
    rates.remember(results_dir, f"{key} step", training_s, num_steps)
    rates.remember(results_dir, f"{key} checkpoint", screening_s, num_checkpoints or len(done))
    rates.remember(results_dir, f"{key} trial", last_s, len(done))


def plan_lines(results_dir: Path, todo: Sequence[Checked], packs: Sequence[Sequence[Trial]],
               scoring: ScoringConfig | NoScoring) -> list[str]:
    """Lines of the plan: packs where they are known, images to draw, how large the files will be."""
    if not todo:
        return []
    sizes = " + ".join(str(len(pack)) for pack in packs[:12]) + (" + ..." if len(packs) > 12 else "")
    lines = [f"packs: {sizes} trials"] if packs else []
    if not isinstance(scoring, NoScoring):
        alike = Counter((id(one.dataset), one.num_checkpoints) for one in todo)
        datasets = {id(one.dataset): one.dataset for one in todo}
        num_images = sum(num * most_images(scoring, datasets[key], num_checkpoints)
                         for (key, num_checkpoints), num in alike.items())
        lines.append(f"scoring: about {num_images} images")
    return [*lines, _file_sizes(results_dir, todo)]


def _file_sizes(results_dir: Path, todo: Sequence[Checked]) -> str:
    """By earlier files of the same kind; before the first, counted from the base's layers where their shapes tell."""
    remembered = rates.all_of(results_dir)
    num_bytes = 0.0
    for one in todo:
        rate = remembered.get(_bytes_key(one.trial))
        each = counted_bytes(one.config) if rate is None else rate * _size(one.trial)
        if each is None:
            return "GB: not known before the first file here"
        num_bytes += each * one.num_checkpoints
    return f"{file_word([one.trial for one in todo])}s: about {num_bytes / 1e9:.2g} GB"


def room_said(results_dir: Path, asked: int | None, todo: Sequence[Trial]) -> str:
    """How many train at a time, as asked for or as found for trials like the largest of these before."""
    found = known_room(results_dir, largest(todo)) if todo else None
    if found is None:
        return "" if asked is None or not todo else f"up to {min(asked, len(todo))} at a time"
    num = min(asked or found.max_trials, len(todo))
    return f"up to {num} at a time in {num * found.gib_each:.1f} GiB"


def remember_sizes(results_dir: Path, done: Sequence[TrialResult]) -> None:
    """How large files are for each unit of rank; the newest trial's of each kind."""
    for result in {_bytes_key(result.trial): result for result in done}.values():
        files = list(trial_folder(results_dir, result.trial.train_id).checkpoints.glob("*.safetensors"))
        rates.remember(results_dir, _bytes_key(result.trial), sum(path.stat().st_size for path in files),
                       _size(result.trial) * len(files))


def _size(trial: Trial) -> int:
    method = method_of(trial.config)
    if method["name"] != LORA:
        return int(method.get("num_vectors", 1))
    return int(trial.config["network_dim"]) + int(trial.config["conv_dim"] or 0)


def _bytes_key(trial: Trial) -> str:
    """What a file's size depends on beside the rank."""
    config = trial.config
    method = method_of(config)["name"]
    made = sorted(config["network"].items()) if method == LORA else method
    return (f"{base_label(config['base_model'])} {made} unet={config['unet_lr'] > 0} "
            f"text={config['text_encoder_lr'] > 0} {config['save_precision']} bytes")
