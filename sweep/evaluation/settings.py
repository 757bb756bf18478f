"""The scoring config: everything that a score depends on besides the file, the photos and the weights.

Values, units and ranges stand in conf/scoring/. Imports no torch: the config is checked before any model is loaded.
What scores are known by stands in keys.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from sweep.errors import ScoringError
from sweep.framings import FRAMINGS
from sweep.model.base import EMBEDDED
from sweep.schema import bounds, build, near_match, one_of

STAGES = ("screen", "refine", "confirm")
MIN_REFERENCES = 3  # photos with the subject's face
MIN_CLASS_PROMPTS = 3
_DRAWN = {"screen": ("screen",), "refine": ("screen", "refine"), "unscreened": ("refine", "confirm"), "all": STAGES}


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
    stage: str = one_of("screen", "refine", "confirm")
    # the first stage that draws it; "confirm" keeps it from all choosing
    probes: dict[str, str]
    # attribute -> the value that the prompt asks for
    framing: str | None = one_of(*FRAMINGS, default=None)
    # how far away the subject is; its likeness is told by framing too, also where it does not count (face: false)


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
class PromptSet:
    """A user's own prompts in a YAML file, in place of those of conf/scoring/."""

    version: int = bounds(1)
    prompts: tuple[Prompt, ...]
    class_prompts: tuple[str, ...]
    attributes: dict[str, Attribute]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """One deterministic setting per sweep."""

    name: str = one_of("dpmpp_2m_karras", "euler_a")
    num_steps: int = bounds(2, 1000)
    guidance_scale: float = bounds(1, 50)
    negative_prompt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Which cells a stage draws."""

    prompts: str = one_of("screen", "refine", "unscreened", "all")
    # those of that stage and the ones before it; all but the screened ones; all
    first_seed: int = bounds(0, 2**31)
    num_seeds: int = bounds(1, 64)
    num_varied: int = bounds(0, 1000)
    # prompts that are drawn with one seed more, spread over the stage's, so that diversity is known
    num_captions: int = bounds(0, 1000)
    # training captions verbatim, spread over the photos
    num_bare: int = bounds(0, 64)
    # seeds of the bare trigger
    num_class: int = bounds(0, 64)
    # seeds of each class prompt, which show what bleeds into the class


@dataclass(frozen=True, slots=True, kw_only=True)
class Validity:
    """When an anchor's floor and ceiling are too close to measure between them."""

    min_dprime: float = bounds(0)
    min_probe_range: float = bounds(0, 1)
    min_clip_range: float = bounds(0, 2)
    min_leak_range: float = bounds(0, 2)
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

    def __post_init__(self) -> None:
        total = self.likeness + self.adherence + self.diversity
        if abs(total - 1) > 1e-6 or self.likeness + self.adherence == 0:
            raise ScoringError(f"scoring.weights: likeness={self.likeness:g}, adherence={self.adherence:g} and "
                               f"diversity={self.diversity:g} sum to {total:g}; they are exponents of a mean and must "
                               "sum to 1, and the first two can't both be 0.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """Distances to the nearest training photo, whole or as its copies come: mirrored, cropped, recoloured."""

    copy_distance: float = bounds(0)
    duplicate_distance: float = bounds(0)
    flips: bool
    # a mirrored photo is a copy too
    crop_frac: float = bounds(0, 0.5)
    # share of each side that a cropped copy may lack; 0 = crops are not looked for
    recoloured: bool
    # also compare with brightness and contrast of each colour evened out


@dataclass(frozen=True, slots=True, kw_only=True)
class BurnLimits:
    """Log-ratios to the base at which an image counts as burnt."""

    clipped: float = bounds(above=0)
    saturation: float = bounds(above=0)
    contrast: float = bounds(above=0)
    sharpness: float = bounds(above=0)


# Thresholds of one field that rise; each that is passed is one word better.
RISING = (("unlike_likeness", "broken_likeness", "underfit_likeness", "very_good_likeness"),
          ("overtrained_adherence", "good_adherence"), ("overtrained_diversity", "good_diversity"))


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
    very_good_leak: float
    bleeds: float
    leaks: float

    def __post_init__(self) -> None:
        for rising in RISING:
            for lower, upper in pairwise(rising):
                if getattr(self, lower) > getattr(self, upper):
                    raise ScoringError(f"thresholds: {lower}={getattr(self, lower):g} is above {upper}="
                                       f"{getattr(self, upper):g}; it must not be, or verdicts contradict each other.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """How a file and a strength are chosen."""

    strengths: tuple[float, ...] = bounds(above=0)
    guidance_scales: tuple[float, ...] = bounds(1, 50)
    # each strength is tried at each of them, against anchors at the sampler's own; none = at the sampler's alone
    refine_frac: float = bounds(0, 1)
    # share of the checkpoints that is refined, at least one
    stop_early: bool
    # an arm that is surely worse than the best after the screened prompts is drawn no further
    confirm: int = bounds(0, 64)
    # so many of the best arms are drawn again on fresh seeds, and only that is reported; 0 = none

    def __post_init__(self) -> None:
        if not self.strengths:
            raise ScoringError("scoring.choice.strengths=[] leaves nothing to choose; give at least one, e.g. [1.0].")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendConfig:
    """A model that looks at images, and its weights."""

    name: str
    path: str | None
    # its file or folder, or a hub id; null = where it is usually found
    sha256: str | None
    # what its first file must hash to; null = any
    download: bool
    # whether a hub id that is not in the hub's cache may be downloaded


ROLES = {"face": ("pocket", "dlib", "insightface", "none"), "subject": ("none", "pocket", "dino", "clip", "siglip"),
         "prompt": ("pocket", "clip", "siglip"), "perceptual": ("pocket", "lpips"),
         "copies": ("perceptual", "sscd", "dino_lpips")}


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendRoles:
    """One member for each role, see ROLES."""

    face: BackendConfig
    # likeness of people; none = the subject has no face
    subject: BackendConfig
    # likeness of what has no face, by whole images
    prompt: BackendConfig
    perceptual: BackendConfig
    copies: BackendConfig

    def __post_init__(self) -> None:
        for role, config in self.by_role().items():
            if config.name not in ROLES[role]:
                raise ScoringError(f"scoring.backends.{role}.name = {config.name!r} is unknown."
                                   f"{near_match(config.name, ROLES[role])} Known: {', '.join(ROLES[role])}.")
        if (self.face.name == "none") == (self.subject.name == "none"):
            raise ScoringError(f"scoring.backends.face={self.face.name} and subject={self.subject.name}: likeness is "
                               "measured on faces or on whole images; set one of the two to none.")

    def by_role(self) -> dict[str, BackendConfig]:
        return {role: getattr(self, role) for role in ROLES}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringConfig:
    """All of it. Two scores with the same `scoring_id` may be compared, others may not."""

    name: str
    formula_version: int = bounds(1)
    backends: BackendRoles
    trigger_subject: str
    class_subject: str
    prompt_file: str | None
    # a user's own PromptSet, read once: a config holds the prompts themselves from then on
    prompts_version: int = bounds(1)
    # raised when a set's words change; scores of two versions are never compared
    prompts: tuple[Prompt, ...]
    class_prompts: tuple[str, ...]
    # drawn without the trigger: does the subject bleed into its class?
    attributes: dict[str, Attribute]
    face_confidence: float = bounds(0, 1)
    same_face: float | None = bounds(-1, 1)
    # mean cosine from which on two faces are of one person; null = the recogniser's own
    sampler: Sampler
    batch_size: int = bounds(1, 256)
    base_models: tuple[str, ...]
    # further bases that evaluate.py scores the files on, each with anchors of its own
    keep_images: bool
    screen: Stage
    refine: Stage
    confirm: Stage
    validity: Validity
    copies: Copies
    burn: BurnLimits
    weights: Weights
    thresholds_file: str | None
    # a user's own Thresholds, read once: a config holds the thresholds themselves from then on
    thresholds: Thresholds
    choice: Choice

    def __post_init__(self) -> None:
        if self.thresholds_file is not None:
            own_thresholds = read_thresholds(self.thresholds_file)
            object.__setattr__(self, "thresholds_file", None)
            object.__setattr__(self, "thresholds", own_thresholds)
        if self.prompt_file is not None:
            own = read_prompt_set(self.prompt_file)
            read = {"prompt_file": None, "prompts_version": own.version, "prompts": own.prompts,
                    "class_prompts": own.class_prompts, "attributes": own.attributes}
            for key, content in read.items():
                object.__setattr__(self, key, content)
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
        for attribute, probe in self.attributes.items():
            if probe.natural is not None and probe.natural not in probe.values:
                raise ScoringError(f"scoring.attributes.{attribute}.natural = {probe.natural!r} is none of its values: "
                                   f"{', '.join(probe.values)}; null takes the likeliest on the photos.")
        for i, text in enumerate(self.class_prompts):
            if "{subject}" not in text:
                raise ScoringError(f"scoring.class_prompts[{i}] = {text!r} lacks {{subject}}, which stands for the "
                                   "class noun.")
        for name in STAGES:
            if self.stage(name).num_class and len(self.class_prompts) < MIN_CLASS_PROMPTS:
                raise ScoringError(f"scoring.{name}.num_class = {self.stage(name).num_class}, but "
                                   f"scoring.class_prompts has {len(self.class_prompts)} prompts; an interval needs at "
                                   f"least {MIN_CLASS_PROMPTS}.")
            chosen = self.prompts_of(name)
            if len(chosen) < 3:
                raise ScoringError(f"scoring.{name} has {len(chosen)} prompts; an interval needs at least 3.")
            if not any(self.prompts[i].face for i in chosen):
                raise ScoringError(f"scoring.{name} has no prompt with face: true, so likeness can't be measured.")
            if not any(self.prompts[i].probes for i in chosen):
                raise ScoringError(f"scoring.{name} has no prompt with probes, so adherence can't be measured; "
                                   "conf/scoring/person.yaml shows what they look like.")

    def stage(self, name: str) -> Stage:
        return {"screen": self.screen, "refine": self.refine, "confirm": self.confirm}[name]

    def prompts_of(self, stage: str) -> list[int]:
        """Indices of the stage's prompts."""
        drawn = _DRAWN[self.stage(stage).prompts]
        return [i for i, prompt in enumerate(self.prompts) if prompt.stage in drawn]


SCORINGS: dict[str, type] = {**dict.fromkeys(("pocket", "person", "animal", "object", "style"), ScoringConfig),
                             "none": NoScoring}


def read_prompt_set(path: str) -> PromptSet:
    """Raises ScoringError or ConfigError naming the file, the key, what was given and what is allowed."""
    return build(PromptSet, _yaml(path, "scoring.prompt_file", "conf/scoring/person.yaml shows what prompts look like"),
                 path)


def read_thresholds(path: str) -> Thresholds:
    """Raises ScoringError or ConfigError naming the file, the key, what was given and what is allowed."""
    return build(Thresholds, _yaml(path, "scoring.thresholds_file", "`python -m sweep.calibrate` writes such a file"),
                 path)


def _yaml(path: str, key: str, example: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ScoringError(f"{key}={path} can't be read as YAML: {error}. {example}.") from error


def check_trains_on_one_base(scoring: ScoringConfig | NoScoring) -> None:
    """Raise ScoringError if a sweep is asked to score on other bases than it trains on."""
    if isinstance(scoring, ScoringConfig) and scoring.base_models:
        raise ScoringError(f"scoring.base_models=[{','.join(scoring.base_models)}]: a sweep scores on the base that it "
                           "trains on, so that its files can be compared. Score them on others when they are there: "
                           "python evaluate.py lora=results/trials/ID/checkpoints scoring.base_models=[...]")


def check_fits(scoring: ScoringConfig | NoScoring, base_name: str) -> None:
    """Raise ScoringError if this scoring can't judge images of that base."""
    if not isinstance(scoring, ScoringConfig) or base_name in EMBEDDED:
        return
    of_the_pocket = [role for role, config in scoring.backends.by_role().items() if config.name == "pocket"]
    if of_the_pocket:
        raise ScoringError(f"scoring={scoring.name} judges images of the pocket bases alone, not of "
                           f"base_model={base_name}: its models ({', '.join(of_the_pocket)}) know no real photographs. "
                           "Use scoring=person, animal, object or style; or scoring=none.")
