"""`python evaluate.py`: score LoRA files that are already there, rank them, name one. No training."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.data.folder import Dataset, DatasetConfig, read_dataset
from sweep.errors import ConfigError, ScoringError
from sweep.evaluation.keys import photos_key, reference_photos
from sweep.evaluation.lora_files import FoundLora, find_loras
from sweep.evaluation.settings import SCORINGS, NoScoring, check_fits
from sweep.files import stable_hash, write_json, write_text
from sweep.model.base import BASE_MODELS, BaseModelConfig
from sweep.model.text import check_token_length
from sweep.schema import bounds, build, family, one_of
from sweep.trial import AXES, Answer, Score, to_json

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from sweep.evaluation.scorer import Scorer


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateConfig:
    """What evaluate.py may be told; see conf/evaluate.yaml."""

    lora: str | None
    base_model: BaseModelConfig = family(BASE_MODELS)
    dataset: DatasetConfig
    trigger: str | None
    class_noun: str | None
    clip_skip: int = bounds(1, 12)
    max_token_length: int = bounds(75, 225)
    scoring: Any = family(SCORINGS)
    results_dir: str
    device: str = one_of("auto", "cpu", "cuda")
    threads: int | None = bounds(1, 4096)


def load(cfg: DictConfig) -> EvaluateConfig:
    """Check a composed config and make it typed. Raises ConfigError."""
    from omegaconf import OmegaConf

    return build(EvaluateConfig, OmegaConf.to_container(cfg, resolve=True))


def evaluate(config: EvaluateConfig) -> Answer:
    """Score every LoRA file that `config.lora` names, print the ranking, write it under `results_dir`.

    Raises AdapterFileError, DataError, ModelError or ScoringError before anything is drawn.
    """
    if config.lora is None:
        raise ConfigError("Say which files to score: python evaluate.py lora=FILE|FOLDER|'PATTERN' "
                          "dataset.dir=PHOTOS_OF_THE_SUBJECT")
    if isinstance(config.scoring, NoScoring):
        raise ScoringError("scoring=none measures nothing; leave it out, or give scoring=pocket.")
    check_fits(config.scoring, config.base_model.name)
    check_token_length(config.max_token_length)
    loras, skipped = find_loras(config.lora)
    dataset = read_dataset(config.dataset, trigger=config.trigger, class_noun=config.class_noun, repeats=None)
    reference_photos(dataset)  # too few held-out photos are told before the base is loaded
    for line in (*skipped, *dataset.skipped):
        print(f"note: {line}", file=sys.stderr)
    scorer = _scorer(config, dataset)
    _check_readable(loras, scorer)
    for line in scorer.notes:
        print(f"note: {line}", file=sys.stderr)
    folder = _folder(config, scorer)
    scores, answer = _score(loras, scorer, folder)
    ranked = rank(scores, answer)
    write_text(folder / "table.csv", table_csv(ranked, answer))
    write_json(folder / "answer.json", to_json(answer))
    show(ranked, answer, folder)
    return answer


def rank(scores: Sequence[Score], answer: Answer) -> list[Score]:
    """The named file first, then by mean - 1 standard error of the screening."""
    from sweep.evaluation.choice import best_of

    order = [scores[i] for i in best_of(scores, len(scores))]
    return sorted(order, key=lambda score: score.file_sha256 != answer.score.file_sha256)


def table_csv(ranked: Sequence[Score], answer: Answer) -> str:
    """One row per file from the screening, and the named one's own measurement as the last row."""
    names = ["rank", "file", "epoch", "step", "strength", "stage",
             *(f"{axis}{suffix}" for axis in AXES for suffix in ("", "_low", "_high")), "verdict", "notes"]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    rows = [(str(place), score) for place, score in enumerate(ranked, start=1)]
    for place, score in [*rows, ("answer", answer.score)]:
        axes = [_cell(value) for axis in AXES for value in
                (score.axes[axis].value, score.axes[axis].low, score.axes[axis].high)]
        writer.writerow([place, score.file, score.epoch, score.step, score.strength, score.stage, *axes, score.verdict,
                         "; ".join(score.notes)])
    return buffer.getvalue()


def show(ranked: Sequence[Score], answer: Answer, folder: Path) -> None:
    """Print the table and one sentence that names the file."""
    header = ["", "file", "likeness", "adherence", "memorisation", "usefulness", "verdict"]
    rows = [[str(place), score.file, *(_shown(score, axis) for axis in header[2:6]), score.verdict]
            for place, score in enumerate(ranked, start=1)]
    title = f"{len(ranked)} files on {ranked[0].num_images} images each, at strength 1 (value, 90 % interval)"
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(*header, title=title)
        for row in rows:
            table.add_row(*row)
        Console().print(table)
    else:
        widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
        print(title)
        for row in [header, *rows]:
            print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    final = answer.score
    fresh = f"; on {final.num_images} fresh images: " if final.stage == "confirm" else ": "
    print(f"\nUse {answer.file} at strength {answer.strength:g}{fresh}usefulness {_shown(final, 'usefulness')}, "
          f"{final.verdict}.\n{answer.reason}.\nSheets, table and answer: {folder}")


def _scorer(config: EvaluateConfig, dataset: Dataset) -> Scorer:
    from sweep.identity import base_identity

    identity = base_identity(config.base_model, Path(config.results_dir))
    import torch

    from sweep.evaluation.scorer import Scorer
    from sweep.model.loading import load_base
    from sweep.network.targets import find_targets

    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda, but this machine has no usable GPU. Use device=cpu or device=auto.")
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    device = "cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu"
    base = load_base(config.base_model, identity, device)
    return Scorer(base, find_targets(base), config.scoring, dataset, Path(config.results_dir),
                  clip_skip=config.clip_skip, max_token_length=config.max_token_length)


def _check_readable(loras: Sequence[FoundLora], scorer: Scorer) -> None:
    """Read every file once, so that one that does not fit the base is told before an hour of drawing."""
    from sweep.network.lora_file import read_lora

    for lora in loras:
        unknown = read_lora(lora.path, scorer.targets).unknown
        if unknown:
            print(f"{lora.path}: {len(unknown)} tensors mean nothing for this base and are left out: "
                  f"{', '.join(unknown[:5])}{', ...' if len(unknown) > 5 else ''}", file=sys.stderr)


def _folder(config: EvaluateConfig, scorer: Scorer) -> Path:
    """The same question has the same folder, so that a new epoch costs only its own images."""
    assert config.lora is not None
    asked = str(Path(config.lora).expanduser().absolute())
    key = stable_hash([asked, photos_key(scorer.dataset), scorer.scoring_id], num_digits=8)
    return Path(config.results_dir) / f"evaluate-{key}"


def _score(loras: Sequence[FoundLora], scorer: Scorer, folder: Path) -> tuple[list[Score], Answer]:
    from sweep.evaluation.scorer import ScoreRequest

    requests = [ScoreRequest(file=lora.path, epoch=lora.epoch, step=lora.step, scores_dir=folder / "scores",
                             images_dir=folder / "images") for lora in loras]
    progress = _draw_progress if sys.stderr.isatty() else None
    scores = scorer.screen(requests, progress)
    answer = scorer.finish([requests], progress)[0]
    if progress is not None:
        print(file=sys.stderr)
    return scores, answer


def _draw_progress(done: int, total: int) -> None:
    print(f"\r{done} of {total} images", end="", file=sys.stderr, flush=True)


def _shown(score: Score, axis: str) -> str:
    estimate = score.axes[axis]
    if estimate.value is None:
        return "?"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.2f}"
    return f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
