"""The records that every layer shares: what a trial is, what was measured, what came out. Imports nothing of ours.

A trial's folder, `results/trials/<train_id>/`, holds everything about it; other processes meet here and only here:

    config.yaml                 the resolved training config
    status.json                 a `Status`, replaced atomically
    worker.lock/                while a worker trains or scores it
    metrics.jsonl               one row per logged step, checkpoint, validation and score
    packs.jsonl                 which trials shared the pass, from which step on; written before it takes effect
    train.log                   tracebacks and warnings
    checkpoints/NAME-000001.safetensors ... NAME.safetensors
    state/step-00000250-0001.safetensors what a resume needs; the last two are kept
    prune.json                  {"reason", "by"}: written by the conductor, ends the trial at its next step boundary
    scores/<score_id>.json      one `Score` each
    scores/answer-<scoring_id>.json      the trial's `Answer` under one scoring config
    scores/anchors/<scoring_id>.json     {"elapsed_s", "num_images"}, where this trial was the first to need the anchors
    images/<score_id>.png       a sheet of the scored images, with prompts and figures
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WAITING, RUNNING, DONE, FAILED, DIVERGED = "waiting", "running", "done", "failed", "diverged"
PRUNED = "pruned"  # ended early by its conductor; its newest checkpoint is an answer's candidate
REFUSED = "refused"  # its settings can't work together; it is never started and has no folder
FINISHED = (DONE, FAILED, DIVERGED, PRUNED, REFUSED)

AXES = ("likeness", "adherence", "memorisation", "diversity", "usefulness")


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """One measured axis: its normalised value with a 90 % interval, or why it can't be known.

    value, low, high: normalised between the anchors (0 = floor, 1 = ceiling), unclipped; None if invalid.
    raw: the value before normalisation, in the metric's own unit.
    n: how many independent units (prompts, images) stand behind it.
    reason: why it is invalid; empty if it is valid.
    """

    value: float | None
    low: float | None
    high: float | None
    raw: float | None
    n: int
    reason: str = ""

    @property
    def is_valid(self) -> bool:
        return self.value is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What one LoRA file at one strength scored on one set of cells."""

    score_id: str
    scoring_id: str  # the scoring config, backends, anchors and formula version; only equal ones are compared
    file: str  # file name inside the trial's checkpoints/
    file_sha256: str
    epoch: int
    step: int
    strength: float
    stage: str  # "screen" | "refine" | "confirm"
    num_images: int
    axes: Mapping[str, Estimate]  # keys: AXES
    details: Mapping[str, float | None]  # probes, detect_rate, memo_rate, memo_gap, drift_to_natural, burn ...
    replicates: Mapping[str, float]  # usefulness with each prompt left out, by prompt; empty if it can't be known
    verdict: str
    notes: tuple[str, ...]  # additions to the verdict and what was dropped, in words
    elapsed_s: float
    guidance_scale: float | None = None  # None = the sampler's own, which the anchors are drawn at
    # How much further below and above usefulness may lie, at 90 %, than replicates show: by how few images say whether
    # the file copies, and by its bleed, which other prompts measure. (The ceiling's error all files share.)
    margins: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Which file of a trial to use, at which strength, and why."""

    file: str
    epoch: int
    step: int
    strength: float
    score: Score  # measured on cells that played no part in the choice where the budget allows
    reason: str  # a sentence: what can't be told apart, from where on it gets worse
    guidance_scale: float | None = None  # None = the sampler's own
    kind: str = "lora"  # "checkpoint", "embedding": such a file is used otherwise, and has no strength
    photo_notes: tuple[str, ...] = ()  # what is wrong with the photos that it was measured against, in words

    @property
    def at(self) -> str:
        """"0.8", or "0.8 and guidance 4" where the sampler's own is not the best."""
        return spoken_arm(self.strength, self.guidance_scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One fully resolved training config with a number in its sweep."""

    number: int  # from 1, in the order of the grid
    train_id: str
    settings: Mapping[str, Any]  # the swept keys alone
    config: Mapping[str, Any]  # the whole training config as a plain tree; empty if its settings make none
    num_steps: int
    refused: str = ""  # why it can't work, if it can't


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """A trial's row in the record; a failed trial is a row too."""

    trial: Trial
    status: str
    step: int
    attributed_s: float  # its share of the pack's time, training and scoring
    answer: Answer | None
    scores: tuple[Score, ...]
    reason: str = ""  # why it failed, diverged or was refused
    breach: str = ""  # which of the sweep's limits its answer breaks, in words


def spoken_arm(strength: float, guidance_scale: float | None) -> str:
    return f"{strength:g}" + ("" if guidance_scale is None else f" and guidance {guidance_scale:g}")


def to_json(record: Any) -> Any:
    """A record as plain JSON values."""
    return dataclasses.asdict(record)


def score_from_json(tree: Mapping[str, Any]) -> Score:
    axes = {name: Estimate(**axis) for name, axis in tree["axes"].items()}
    return Score(**{**tree, "axes": axes, "notes": tuple(tree["notes"]),
                    "margins": tuple(tree.get("margins", (0.0, 0.0)))})


def answer_from_json(tree: Mapping[str, Any]) -> Answer:
    return Answer(**{**tree, "score": score_from_json(tree["score"]),
                     "photo_notes": tuple(tree.get("photo_notes", ()))})


@dataclass(frozen=True, slots=True)
class TrialFolder:
    """Where the parts of a trial lie; see the module's docstring."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def status(self) -> Path:
        return self.root / "status.json"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def packs(self) -> Path:
        return self.root / "packs.jsonl"

    @property
    def log(self) -> Path:
        return self.root / "train.log"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def scores(self) -> Path:
        return self.root / "scores"

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def prune(self) -> Path:
        """Written by the conductor: {"reason", "by"} ends the trial at its next step boundary."""
        return self.root / "prune.json"

    def anchors_cost(self, scoring_id: str) -> Path:
        return self.scores / "anchors" / f"{scoring_id}.json"

    def answer(self, scoring_id: str) -> Path:
        return self.scores / f"answer-{scoring_id}.json"


def trial_folder(results_dir: Path, train_id: str) -> TrialFolder:
    return TrialFolder(results_dir / "trials" / train_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackSpec:
    """What a worker is told: everything one pack needs, as a JSON file that can travel to another machine."""

    trials: tuple[Trial, ...]  # in the order in which they take a place
    scoring: Mapping[str, Any]  # the scoring config as a plain tree
    results_dir: str
    device: str  # "cpu:0", "cuda:1", "auto:0": kind and index of the worker
    threads: int  # CPU threads
    save_state_every_n_steps: int
    control: str  # path of the control file: {"command": "stop"} ends the pack at the next step boundary
    max_trials: int | None = None  # so many of `trials` share a pass, the others wait; None = as many as fit
    fits_memory: bool = False  # True = max_trials is a limit: as many as memory holds, at most so many
    validate: bool = False  # measure the loss on held-out photos at every checkpoint


def more_trials(spec: Path) -> Path:
    """Beside a pack's spec: trials that join it when a place is free, a row {"trial": ...} each."""
    return spec.with_name(f"{spec.name}.more.jsonl")


def pack_spec_from_json(tree: Mapping[str, Any]) -> PackSpec:
    return PackSpec(**{**tree, "trials": tuple(Trial(**trial) for trial in tree["trials"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Where a trial stands; `status.json`, written by its worker alone."""

    status: str  # RUNNING, WAITING for a place in its pack, or one of FINISHED
    phase: str  # "loading" (the base) | "training" | "drawing" (regularisation images) | "scoring" | ""
    step: int
    num_steps: int
    is_trained: bool  # its last file is written (it may still have to be scored)
    attributed_s: float  # its share of the time of all passes and of scoring
    newest_score: str = ""  # score_id of the checkpoint screened last
    diverged: str = ""  # at which step and with which loss, if it has
    pruned: str = ""  # by whom, why and at which step it was ended early, if it was
    reason: str = ""  # why it failed, diverged or was ended early


def status_from_json(tree: Mapping[str, Any]) -> Status:
    return Status(**tree)
