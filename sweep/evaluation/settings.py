"""The scoring config: everything that a score depends on besides the file, the photos and the weights.

Values, units and ranges stand in conf/scoring/. Imports no torch: the config is checked before any model is loaded.
What scores are known by is computed here too, so that a plan or a resume finds them without one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sweep.data.folder import Dataset
from sweep.errors import ScoringError
from sweep.files import sha256_of, stable_hash
from sweep.model.base import EMBEDDED
from sweep.schema import bounds, one_of, to_tree

STAGES = ("screen", "refine", "confirm")
MIN_REFERENCES = 3  # photos with the subject's face


@dataclass(frozen=True, slots=True, kw_only=True)
class NoScoring:
    """Train without scoring: no images, no verdict, no answer."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One prompt of the fixed set. {subject} stands for the trigger and class noun, or the class noun alone."""

    text: str
    face: bool
    # the face must show and counts for likeness; false = style, sunglasses, too far away
    screen: bool
    # also used for screening
    probes: dict[str, str]
    # attribute -> the value that the prompt asks for


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """A softmax probe: which of these captions fits the image best?"""

    templates: tuple[str, ...]
    # captions with {class_noun} and {value}; their text features are averaged (Radford et al. 2021, 3.1.4)
    values: dict[str, str]
    # value -> the words that stand for it
    natural: str | None
    # the subject's own value, the aim of drift_to_natural; null = the likeliest on the reference photos


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """One deterministic setting per sweep."""

    name: str = one_of("dpmpp_2m_karras")
    num_steps: int = bounds(2, 1000)
    guidance_scale: float = bounds(1, 50)
    negative_prompt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Which cells a stage draws."""

    prompts: str = one_of("screen", "all")
    first_seed: int = bounds(0, 2**31)
    num_seeds: int = bounds(1, 64)
    num_captions: int = bounds(0, 1000)
    # training captions verbatim, spread over the photos
    num_bare: int = bounds(0, 64)
    # seeds of the bare trigger


@dataclass(frozen=True, slots=True, kw_only=True)
class Validity:
    """When an anchor's floor and ceiling are too close to measure between them."""

    min_dprime: float = bounds(0)
    min_probe_range: float = bounds(0, 1)
    min_clip_range: float = bounds(0, 2)
    max_broken_frac: float = bounds(0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The exponents and weights of adherence and usefulness."""

    likeness: float = bounds(0, 1)
    adherence: float = bounds(0, 1)
    diversity: float = bounds(0, 1)
    bleed: float = bounds(0, 1)
    memo_rate_full: float = bounds(above=0)
    clip_low: float = bounds(above=0)
    probes: float = bounds(0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """Perceptual distances (LPIPS) to the nearest training photo."""

    copy_distance: float = bounds(0)
    duplicate_distance: float = bounds(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class BurnLimits:
    """Log-ratios to the base at which an image counts as burnt."""

    clipped: float = bounds(above=0)
    saturation: float = bounds(above=0)
    contrast: float = bounds(above=0)
    sharpness: float = bounds(above=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Bounds of the verdicts, see the table in scores.md."""

    memorised_rate: float = bounds(0, 1)
    unlike_likeness: float
    min_detect_rate: float = bounds(0, 1)
    broken_likeness: float
    overtrained_adherence: float
    overtrained_diversity: float
    overfit_likeness: float
    good_adherence: float
    overfit_hair: float
    overfit_drift: float
    underfit_likeness: float
    very_good_likeness: float
    good_diversity: float
    good_memorisation: float
    very_good_bleed: float
    bleeds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """How a file and a strength are chosen."""

    strengths: tuple[float, ...] = bounds(above=0)
    refine_frac: float = bounds(0, 1)
    # share of the checkpoints that is refined, at least one
    confirm: bool
    # draw the chosen one again on fresh seeds, and report that


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringConfig:
    """All of it. Two scores with the same `scoring_id` may be compared, others may not."""

    name: str
    formula_version: int = bounds(1)
    weights_dir: str | None
    # where clip/, face.safetensors and perceptual.safetensors lie; null = inside the package
    trigger_subject: str
    class_subject: str
    prompts: tuple[Prompt, ...]
    attributes: dict[str, Attribute]
    face_confidence: float = bounds(0, 1)
    sampler: Sampler
    batch_size: int = bounds(1, 256)
    screen: Stage
    refine: Stage
    confirm: Stage
    validity: Validity
    copies: Copies
    burn: BurnLimits
    weights: Weights
    thresholds: Thresholds
    choice: Choice

    def __post_init__(self) -> None:
        for i, prompt in enumerate(self.prompts):
            where = f"scoring.prompts[{i}]"
            if "{subject}" not in prompt.text:
                raise ScoringError(f"{where}.text = {prompt.text!r} lacks {{subject}}, which stands for the trigger.")
            for attribute, value in prompt.probes.items():
                known = self.attributes.get(attribute)
                if known is None:
                    raise ScoringError(f"{where} probes {attribute!r}; scoring.attributes knows: "
                                       f"{', '.join(self.attributes)}.")
                if value not in known.values:
                    raise ScoringError(f"{where} asks for {attribute} = {value!r}; its values are: "
                                       f"{', '.join(known.values)}.")
        for name in STAGES:
            chosen = self.prompts_of(name)
            if len(chosen) < 3:
                raise ScoringError(f"scoring.{name} has {len(chosen)} prompts; an interval needs at least 3.")
            if not any(self.prompts[i].face for i in chosen):
                raise ScoringError(f"scoring.{name} has no prompt with face: true, so likeness can't be measured.")

    def stage(self, name: str) -> Stage:
        return {"screen": self.screen, "refine": self.refine, "confirm": self.confirm}[name]

    def prompts_of(self, stage: str) -> list[int]:
        """Indices of the stage's prompts."""
        takes_all = self.stage(stage).prompts == "all"
        return [i for i, prompt in enumerate(self.prompts) if takes_all or prompt.screen]


SCORINGS: dict[str, type] = {"pocket": ScoringConfig, "none": NoScoring}

# What decides how numbers become scores, words and choices, but not what is drawn and measured.
_JUDGING = ("weights", "thresholds", "choice", "burn", "validity", "formula_version")
_NEUTRAL = ("batch_size", "weights_dir")  # the weights count by content


def scoring_id(config: ScoringConfig, base_identity: str, resolution: int, backends: Mapping[str, str],
               dataset_key: str) -> str:
    """What makes two scores comparable: config and formula, the base's and the backends' weights, the anchors' photos
    and words (`dataset_key`)."""
    tree = {key: value for key, value in to_tree(config).items() if key not in _NEUTRAL}
    return stable_hash(["scoring", tree, base_identity, resolution, dict(backends), dataset_key])


def measuring_id(config: ScoringConfig, base_identity: str, resolution: int, backends: Mapping[str, str],
                 clip_skip: int = 1, max_token_length: int = 75) -> str:
    """What makes two sets of measured images the same: weights and thresholds may change without drawing again.

    How prompts are read is a trial's own and no part of `scoring_id`: trials of several clip_skips may be compared,
    each against anchors that were drawn as it is.
    """
    tree: dict[str, Any] = {key: value for key, value in to_tree(config).items()
                            if key not in (*_NEUTRAL, *_JUDGING, "screen", "refine", "confirm")}
    tree["copies"] = config.copies.duplicate_distance
    reading = [] if (clip_skip, max_token_length) == (1, 75) else [clip_skip, max_token_length]
    return stable_hash(["measuring", tree, base_identity, resolution, dict(backends), *reading])


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


def check_fits(scoring: ScoringConfig | NoScoring, base_name: str) -> None:
    """Raise ScoringError if this scoring can't judge images of that base."""
    if isinstance(scoring, ScoringConfig) and scoring.name == "pocket" and base_name not in EMBEDDED:
        raise ScoringError(f"scoring=pocket judges images of the pocket bases alone, not of base_model={base_name}: "
                           "its face recogniser and CLIP know no real photographs. Use scoring=none.")
