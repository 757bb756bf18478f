"""What a sweep will cost beside its steps: files, images, packs. For `plan=true`; imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from sweep.evaluation.cells import cells_of
from sweep.evaluation.settings import NoScoring, ScoringConfig
from sweep.preflight import Checked
from sweep.record import rates
from sweep.trial import Trial, TrialResult, trial_folder


def plan_lines(results_dir: Path, todo: Sequence[Checked], packs: Sequence[Sequence[Trial]],
               scoring: ScoringConfig | NoScoring) -> list[str]:
    """Lines of the plan; what isn't known is left out."""
    if not todo:
        return []
    sizes = " + ".join(str(len(pack)) for pack in packs[:12]) + (" + ..." if len(packs) > 12 else "")
    lines = [f"packs: {sizes} trials"]
    if not isinstance(scoring, NoScoring):
        lines.append(f"scoring: about {sum(_num_images(scoring, one) for one in todo)} images")
    num_bytes = [rates.expected_s(results_dir, _bytes_key(one.trial), _size(one.trial) * one.num_checkpoints)
                 for one in todo]
    known = [each for each in num_bytes if each is not None]
    if len(known) == len(num_bytes):
        lines.append(f"LoRA files: about {sum(known) / 1e9:.2g} GB")
    return lines


def remember_sizes(results_dir: Path, done: Sequence[TrialResult]) -> None:
    """How large files are for each unit of rank; the newest trial's of each kind."""
    for result in {_bytes_key(result.trial): result for result in done}.values():
        files = list(trial_folder(results_dir, result.trial.train_id).checkpoints.glob("*.safetensors"))
        rates.remember(results_dir, _bytes_key(result.trial), sum(path.stat().st_size for path in files),
                       _size(result.trial) * len(files))


def _num_images(scoring: ScoringConfig, one: Checked) -> int:
    screen, refine, confirm = (len(cells_of(scoring, stage, one.dataset)) for stage in ("screen", "refine", "confirm"))
    num_refined = max(1, math.ceil(scoring.choice.refine_frac * one.num_checkpoints))
    return (one.num_checkpoints * screen + num_refined * len(scoring.choice.strengths) * refine
            + (confirm if scoring.choice.confirm else 0))


def _size(trial: Trial) -> int:
    return int(trial.config["network_dim"]) + int(trial.config["conv_dim"] or 0)


def _bytes_key(trial: Trial) -> str:
    """What a file's size depends on beside the rank."""
    config = trial.config
    return (f"{config['base_model']['name']} {sorted(config['network'].items())} unet={config['unet_lr'] > 0} "
            f"text={config['text_encoder_lr'] > 0} bytes")
