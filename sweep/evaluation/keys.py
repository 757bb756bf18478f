"""What scores are known by: which two may be compared, and what is drawn and measured only once. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from sweep.data.dataset import Dataset
from sweep.errors import ScoringError
from sweep.evaluation.settings import MIN_REFERENCES, Sampler, ScoringConfig
from sweep.files import sha256_of, stable_hash
from sweep.schema import to_tree

FULL = "torch.float32"
# What decides how numbers become scores, words and choices, but not what is drawn and measured.
MEASURED_AS = 2  # raised when the code measures something else on the same images
_JUDGING = ("weights", "thresholds", "choice", "burn", "validity", "formula_version")
# Backends count by their files' content, thresholds as thresholds, each base by its own identity.
_NEUTRAL = ("batch_size", "keep_images", "backends", "thresholds_file", "base_models")


def scoring_id(config: ScoringConfig, base_identity: str, resolution: int, backends: Mapping[str, str],
               dataset_key: str) -> str:
    """What makes two scores comparable: config and formula, the base's and the backends' weights, the anchors' photos
    and words (`dataset_key`)."""
    tree = {key: value for key, value in known_by(to_tree(config)).items() if key not in _NEUTRAL}
    return stable_hash(["scoring", tree, base_identity, resolution, dict(backends), dataset_key])


def known_by(scoring: Mapping[str, Any]) -> dict[str, Any]:
    """A scoring's plain tree without what came later and changes nothing: the prompts' framing, which names a part of
    the likeness and alters no figure, and guidance scales where there are none to choose between."""
    prompts = [{key: value for key, value in prompt.items() if key != "framing"} for prompt in scoring["prompts"]]
    choice = {key: value for key, value in scoring["choice"].items() if (key, value) != ("guidance_scales", [])}
    return {**scoring, "prompts": prompts, "choice": choice}


def measuring_id(config: ScoringConfig, base_identity: str, resolution: int, backends: Mapping[str, str],
                 clip_skip: int = 1, max_token_length: int = 75, precision: str = FULL) -> str:
    """What makes two sets of measured images the same: weights and thresholds may change without drawing again.

    How prompts are read and the base is rounded (precision) is a trial's own and no part of `scoring_id`: trials of
    several clip_skips may be compared, each against anchors that were drawn as it is.
    """
    tree: dict[str, Any] = {key: value for key, value in known_by(to_tree(config)).items()
                            if key not in (*_NEUTRAL, *_JUDGING, "screen", "refine", "confirm")}
    tree["copies"] = {key: value for key, value in tree["copies"].items() if key != "copy_distance"}
    reading = [] if (clip_skip, max_token_length) == (1, 75) else [clip_skip, max_token_length]
    return stable_hash(["measuring", MEASURED_AS, tree, base_identity, resolution, dict(backends), *reading,
                        *_rounding(precision)])


def drawing_id(sampler: Sampler, base_identity: str, resolution: int, clip_skip: int = 1,
               max_token_length: int = 75, precision: str = FULL) -> str:
    """What an image depends on besides its file, strength, prompt and seed."""
    return stable_hash(["drawing", to_tree(sampler), base_identity, resolution, clip_skip, max_token_length,
                        *_rounding(precision)])


def _rounding(precision: str) -> list[str]:
    return [] if precision == FULL else [precision]


def reference_photos(dataset: Dataset) -> tuple[Path, ...]:
    """The photos that likeness and adherence are anchored on: the held-out ones, or the training photos if none is.

    Raises ScoringError if there are too few held-out photos to measure with.
    """
    if 0 < len(dataset.holdout) < MIN_REFERENCES:
        raise ScoringError(f"dataset.holdout_dir holds {len(dataset.holdout)} photos; likeness is measured against "
                           f"them and needs at least {MIN_REFERENCES}. Add photos to it, or leave dataset.holdout_dir "
                           "out: then the training photos are measured against each other.")
    return dataset.holdout or tuple(photo.path for photo in dataset.photos)


def dataset_key(dataset: Dataset) -> str:
    """What of a dataset makes scores comparable: the reference photos' content, and the words that prompts are made of.

    With held-out photos, trials on other training photos are measured against the same ones, so they may be compared.
    """
    return stable_hash([sorted(_content(path) for path in reference_photos(dataset)), dataset.trigger,
                        dataset.class_noun])


def photos_key(dataset: Dataset) -> str:
    """What of a dataset is measured at all: copies are looked for among the training photos, in their order.

    Captions count through the cells, repeats do not count.
    """
    return stable_hash([dataset_key(dataset), [photo.sha256 for photo in dataset.photos],
                        [_content(path) for path in dataset.holdout]])


def _content(path: Path) -> str:
    stat = path.stat()
    return _content_of(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4096)
def _content_of(path: Path, num_bytes: int, changed_ns: int) -> str:
    return sha256_of(path)
