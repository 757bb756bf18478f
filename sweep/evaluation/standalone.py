"""`python evaluate.py`: score LoRA files or images that are already there, rank them, name one. No training."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.command_line import CONF_DIR
from sweep.data.folder import Dataset, DatasetConfig, read_dataset
from sweep.data.images import image_facts
from sweep.errors import ConfigError, ModelError, ScoringError
from sweep.evaluation.grid import GRIDS, BestGrid, GridConfig, NoGrid, draw_grid, grid_of_best
from sweep.evaluation.index import write_index
from sweep.evaluation.inner_ranks import check_inner_ranks, smallest_as_good, with_inner_ranks
from sweep.evaluation.inpainting import inpainting_base
from sweep.evaluation.keys import photos_key, reference_photos
from sweep.evaluation.loose_images import ImageSet, find_images, score_images
from sweep.evaluation.lora_files import FoundLora, find_loras
from sweep.evaluation.ranking import rank, show, show_images, table_csv
from sweep.evaluation.settings import MIN_REFERENCES, SCORINGS, NoScoring, check_fits
from sweep.evaluation.uses import UsesConfig, check_uses, chosen, score_uses
from sweep.files import stable_hash, write_json, write_text
from sweep.model.base import BASE_MODELS, EMBEDDED, BaseModelConfig
from sweep.model.text import check_token_length
from sweep.schema import bounds, build, build_family, family, one_of
from sweep.trial import Answer, Score, to_json

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from sweep.evaluation.generate import OnProgress
    from sweep.evaluation.scorer import Scorer


PHOTO_PIXELS, POCKET_PIXELS = 512, 64
MAX_POCKET_PIXELS = 4 * POCKET_PIXELS  # the pocket world's pictures may come enlarged, photographs are larger


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateConfig:
    """What evaluate.py may be told; see conf/evaluate.yaml."""

    sweep: str | None
    lora: str | None
    inner_ranks: tuple[int, ...] = bounds(1, 4096)
    ranking: bool
    images: str | None
    uses: UsesConfig
    base_model: BaseModelConfig = family(BASE_MODELS)
    dataset: DatasetConfig
    trigger: str | None
    class_noun: str | None
    clip_skip: int = bounds(1, 12)
    max_token_length: int = bounds(75, 225)
    scoring: Any = family(SCORINGS)
    grid: Any = family(GRIDS)
    results_dir: str
    device: str = one_of("auto", "cpu", "cuda")
    threads: int | None = bounds(1, 4096)


def load(cfg: DictConfig) -> EvaluateConfig:
    """Check a composed config and make it typed. Raises ConfigError."""
    from omegaconf import OmegaConf

    return build(EvaluateConfig, OmegaConf.to_container(cfg, resolve=True))


def evaluate(config: EvaluateConfig) -> list[Answer]:
    """Do what the config asks for: rank LoRA files on each base, name one and draw a grid of them, or score images.

    Returns the answers, one for each base; none without a ranking. Raises AdapterFileError, DataError, ModelError or
    ScoringError before anything is drawn.
    """
    if isinstance(config.scoring, NoScoring):
        raise ScoringError("scoring=none measures nothing; leave it out, or give scoring=pocket, person, animal, "
                           "object or style.")
    if (config.lora is None) == (config.images is None):
        raise ConfigError("Say what to score: python evaluate.py lora=FILE|FOLDER|'PATTERN' "
                          "dataset.dir=PHOTOS_OF_THE_SUBJECT, or images=FOLDER for images that exist already.")
    check_token_length(config.max_token_length)
    if config.images is not None:
        if (config.scoring.base_models or config.uses.any or isinstance(config.grid, GridConfig)
                or not config.ranking):
            raise ConfigError("images=FOLDER scores images as they are: grid, ranking=false, uses and "
                              "scoring.base_models are about LoRA files; give lora=... for these.")
        _score_images(config)
        return []
    if not config.ranking and (config.uses.any or not isinstance(config.grid, GridConfig)):
        raise ConfigError("ranking=false draws a grid and nothing else: it needs grid=plain or grid=tutorial, since "
                          "grid=best shows what the ranking puts first and uses ask about the file that it names.")
    bases = bases_of(config)
    for base in bases:
        check_fits(config.scoring, base.name)
    assert config.lora is not None
    loras, skipped = find_loras(config.lora)
    check_inner_ranks(loras, config.inner_ranks)
    check_uses(config.uses)
    dataset = _dataset(config, skipped)
    inpainting = inpainting_base(config.uses.inpaint, config.base_model.resolution)
    _check_weights(config, [*bases, *([inpainting] if inpainting else [])])
    answers = [_on_base(replace(config, base_model=base), loras, dataset) for base in bases]
    return [answer for answer in answers if answer is not None]


def bases_of(config: EvaluateConfig) -> list[BaseModelConfig]:
    """base_model and those of scoring.base_models, each once. A name of conf/base_model is that base as conf has it."""
    import yaml

    bases = [config.base_model]
    for given in config.scoring.base_models:
        if given in BASE_MODELS:
            tree = yaml.safe_load((CONF_DIR / "base_model" / f"{given}.yaml").read_text(encoding="utf-8"))
            base = build_family(BASE_MODELS, tree, f"scoring.base_models={given}")
        else:
            base = replace(config.base_model, path=given)
        bases += [base] if base not in bases else []
    return bases


def _on_base(config: EvaluateConfig, loras: Sequence[FoundLora], dataset: Dataset) -> Answer | None:
    """The answer on one base; None without a ranking."""
    if config.scoring.base_models:
        print(f"On {config.base_model.path or config.base_model.name}:")
    scorer = _scorer(config, dataset)
    _check_readable(loras, scorer)
    for line in scorer.notes:
        print(f"note: {line}", file=sys.stderr)
    if config.ranking and scorer.real.num_faces < MIN_REFERENCES:
        raise ScoringError(f"{scorer.real.num_faces} of the photos that likeness is measured against show the subject "
                           f"(near-duplicates count once); a ranking needs at least {MIN_REFERENCES}. Add photos, or "
                           "look at the files with ranking=false grid=plain.")
    folder = _folder(config, scorer)
    if config.inner_ranks:
        loras = with_inner_ranks(loras, config.inner_ranks, folder / "inner", scorer.targets)
    if not config.ranking:
        pages = _grid(config.grid, loras, [], scorer, folder)
        print(f"The same on one page: {write_index(folder, [], None, pages)}")
        return None
    scores, answer = _score(loras, scorer, folder)
    ranked = rank(scores, answer)
    write_text(folder / "table.csv", table_csv(ranked, answer))
    write_json(folder / "answer.json", to_json(answer))
    show(ranked, answer)
    if config.inner_ranks and (words := smallest_as_good(scores, loras)):
        print(f"{words}.")
    file_of = {id(score): lora for score, lora in zip(scores, loras, strict=True)}
    pages = _grid(config.grid, loras, [file_of[id(score)] for score in ranked], scorer, folder)
    print(f"All on one page: {write_index(folder, ranked, answer, pages)}; sheets, table and answer lie beside it.")
    if config.uses.any:
        score_uses(config.uses, chosen(loras, answer), answer, scorer, folder, _on_progress())
    return answer


def _grid(config: Any, loras: Sequence[FoundLora], best: Sequence[FoundLora], scorer: Scorer,
          folder: Path) -> list[Path]:
    """Draw what the config asks for and print the pages' paths. best: the same files, best first."""
    if isinstance(config, NoGrid):
        return []
    if isinstance(config, BestGrid):
        loras = [lora for lora in loras if lora in best[:config.num_files]]
        config = grid_of_best(config, scorer.scoring, loras)
    progress = _on_progress()
    pages = draw_grid(config, loras, scorer, folder, progress)
    if progress is not None:
        print(file=sys.stderr)
    for page in pages:
        print(page)
    return pages


def _score_images(config: EvaluateConfig) -> list[ImageSet]:
    """Needs neither a base nor prompts."""
    assert config.images is not None
    sets = find_images(config.images)
    dataset = _dataset(config, [])
    from sweep.evaluation.backends.registry import load_backends
    from sweep.evaluation.measure import Observer

    resolution = _size_of_images(config, dataset, sets)
    observer = Observer(config.scoring, load_backends(config.scoring), dataset, None, resolution)
    real = observer.real_photos()
    for line in real.notes:
        print(f"note: {line}", file=sys.stderr)
    key = stable_hash([str(Path(config.images).expanduser().absolute()), photos_key(dataset)], num_digits=8)
    folder = Path(config.results_dir) / f"images-{key}"
    scored = score_images(sets, observer, folder)
    show_images(scored, real.ceiling_faces, folder)
    return scored


def _size_of_images(config: EvaluateConfig, dataset: Dataset, sets: Mapping[str, Sequence[Path]]) -> int:
    """Pixels at which images and photos are looked at: the base's, or 512 where the base is the pocket's and the models
    that look are not. Raises ScoringError for photographs before the pocket's models."""
    of_the_pocket = [role for role, backend in config.scoring.backends.by_role().items() if backend.name == "pocket"]
    if not of_the_pocket:
        return PHOTO_PIXELS if config.base_model.name in EMBEDDED else config.base_model.resolution
    paths = [*(photo.path for photo in dataset.photos), *(path for files in sets.values() for path in files)]
    largest = max(paths, key=lambda path: min(image_facts(path).size))
    if min(image_facts(largest).size) > MAX_POCKET_PIXELS:
        width, height = image_facts(largest).size
        raise ScoringError(f"{largest} has {width} x {height} pixels; scoring={config.scoring.name} looks with models "
                           f"({', '.join(of_the_pocket)}) that know nothing but the pocket world's pictures of "
                           f"{POCKET_PIXELS}. For photographs give scoring=person, animal, object or "
                           "style.")
    return POCKET_PIXELS


def _dataset(config: EvaluateConfig, skipped: Sequence[str]) -> Dataset:
    dataset = read_dataset(config.dataset, trigger=config.trigger, class_noun=config.class_noun, repeats=None)
    reference_photos(dataset)  # too few held-out photos are told before the base is loaded
    for line in (*skipped, *dataset.skipped):
        print(f"note: {line}", file=sys.stderr)
    return dataset


def _check_weights(config: EvaluateConfig, bases: Sequence[BaseModelConfig]) -> None:
    """Name every base and every model of the scores that isn't there, in one error, before any of them is loaded."""
    from sweep.evaluation.backends.registry import in_one, what_is_missing
    from sweep.identity import base_identity

    problems = []
    for base in bases:
        try:
            base_identity(base, Path(config.results_dir))
        except ModelError as error:
            problems.append(str(error))
    problems += what_is_missing(config.scoring)
    if problems:
        raise ModelError(in_one(problems))


def _scorer(config: EvaluateConfig, dataset: Dataset) -> Scorer:
    from sweep.identity import base_identity

    identity = base_identity(config.base_model, Path(config.results_dir))
    import torch

    from sweep.evaluation.scorer import Scorer
    from sweep.model.loading import load_base
    from sweep.network.targets import find_layers

    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda, but this machine has no usable GPU. Use device=cpu or device=auto.")
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    device = "cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu"
    base = load_base(config.base_model, identity, device)
    return Scorer(base, find_layers(base), config.scoring, dataset, Path(config.results_dir),
                  clip_skip=config.clip_skip, max_token_length=config.max_token_length)


def _check_readable(loras: Sequence[FoundLora], scorer: Scorer) -> None:
    """Read every file once, so that one that does not fit the base is told before an hour of drawing."""
    from sweep.network.trained_file import read_trained

    for lora in loras:
        unknown = read_trained(lora.path, scorer.targets).unknown
        if unknown:
            print(f"{lora.path}: {len(unknown)} tensors mean nothing for this base and are left out: "
                  f"{', '.join(unknown[:5])}{', ...' if len(unknown) > 5 else ''}", file=sys.stderr)


def _folder(config: EvaluateConfig, scorer: Scorer) -> Path:
    """The same question has the same folder, so that a new epoch costs only its own images."""
    assert config.lora is not None
    asked = str(Path(config.lora).expanduser().absolute())
    ranks = [sorted(config.inner_ranks)] if config.inner_ranks else []
    reading = (config.clip_skip, config.max_token_length)
    key = stable_hash([asked, photos_key(scorer.dataset), scorer.scoring_id, *ranks,
                       *(reading if reading != (1, 75) else ())], num_digits=8)
    return Path(config.results_dir) / f"evaluate-{key}"


def _score(loras: Sequence[FoundLora], scorer: Scorer, folder: Path) -> tuple[list[Score], Answer]:
    from sweep.evaluation.scorer import ScoreRequest

    requests = [ScoreRequest(file=lora.path, epoch=lora.epoch, step=lora.step, scores_dir=folder / "scores",
                             images_dir=folder / "images", name=lora.called) for lora in loras]
    progress = _on_progress()
    scores = scorer.screen(requests, progress)
    answer = scorer.finish([requests], progress)[0]
    if progress is not None:
        print(file=sys.stderr)
    return scores, answer


def _on_progress() -> OnProgress | None:
    return _draw_progress if sys.stderr.isatty() else None


def _draw_progress(done: int, total: int) -> None:
    print(f"\r{done} of {total} images", end="", file=sys.stderr, flush=True)
