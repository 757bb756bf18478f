"""results/<sweep>/views.json: what views need beyond a sweep's question, so that each can be rebuilt from disk.

Also `read_record`: a sweep's whole record from its folder, for every command that starts from a finished sweep.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sweep.errors import ConfigError
from sweep.files import read_json, read_jsonl, write_json
from sweep.limits import breach
from sweep.record.entry import SweepEntry, read_entry
from sweep.record.results import read_result
from sweep.trial import Trial, TrialResult, to_json, trial_folder

VIEWS = "views.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """scoring_ids: by train_id, what its scores are known by; trials that aren't scored are left out.
    photos: by key, the training photos in the order that scores number them, each as {"path", "caption"}.
    photos_of: train_id -> key. copy_distance: nearer than this to a training photo is a copy; None without scoring.
    sampler: how the scored images were drawn, as the card states it.
    limits: beyond which a trial is infeasible, by key of `search`, as the last command had them.
    """

    scoring_ids: Mapping[str, str] = field(default_factory=dict)
    photos: Mapping[str, list[dict[str, str]]] = field(default_factory=dict)
    photos_of: Mapping[str, str] = field(default_factory=dict)
    copy_distance: float | None = None
    sampler: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """All that stands on disk about one sweep."""

    dir: Path
    entry: SweepEntry
    results: tuple[TrialResult, ...]
    facts: Facts

    @property
    def results_dir(self) -> Path:
        return self.dir.parent


def add_facts(sweep_dir: Path, new: Facts) -> Facts:
    """Write what is new beside what an earlier start of the sweep wrote, and return all."""
    old = read_facts(sweep_dir)
    merged = Facts(scoring_ids={**old.scoring_ids, **new.scoring_ids}, photos={**old.photos, **new.photos},
                   photos_of={**old.photos_of, **new.photos_of}, sampler=new.sampler or old.sampler, limits=new.limits,
                   copy_distance=old.copy_distance if new.copy_distance is None else new.copy_distance)
    write_json(sweep_dir / VIEWS, to_json(merged))
    return merged


def read_facts(sweep_dir: Path) -> Facts:
    """Empty for a sweep of a version that wrote none."""
    path = sweep_dir / VIEWS
    return Facts(**read_json(path)) if path.exists() else Facts()


def find_sweep(sweep: str, results_dir: Path = Path("results")) -> Path:
    """The folder of a sweep by its name or its path. Raises ConfigError naming the sweeps there are."""
    for path in (Path(sweep), results_dir / sweep):
        if (path / "sweep.yaml").exists():
            return path
    known = sorted(path.parent.name for path in results_dir.glob("*/sweep.yaml"))
    raise ConfigError(f"There is no sweep {sweep!r} in {results_dir}. Known there: {', '.join(known) or 'none'}. "
                      "Give a name of these, or the path of a sweep's folder.")


def read_record(sweep_dir: Path) -> Record:
    """A sweep from its folder alone. Raises ConfigError if its sweep.yaml can't be read."""
    entry, facts = read_entry(sweep_dir / "sweep.yaml"), read_facts(sweep_dir)
    newest = {trial.train_id: trial for trial in trials_of(sweep_dir)}
    results_dir = sweep_dir.parent
    results = [read_result(results_dir, trial, facts.scoring_ids.get(trial.train_id)
                           or _newest_scoring(results_dir, trial)) for trial in newest.values()]
    return Record(dir=sweep_dir, entry=entry, results=with_breaches(results, facts.limits), facts=facts)


def with_breaches(results: Iterable[TrialResult], limits: Mapping[str, float]) -> tuple[TrialResult, ...]:
    """The results, each with the limits that its answer breaks."""
    return tuple(result if result.answer is None else replace(result, breach=breach(limits, result.answer.score))
                 for result in results)


def _newest_scoring(results_dir: Path, trial: Trial) -> str | None:
    answers = trial_folder(results_dir, trial.train_id).scores.glob("answer-*.json")
    newest = max(answers, key=lambda path: path.stat().st_mtime, default=None)
    return newest.stem.removeprefix("answer-") if newest else None


def trials_of(sweep_dir: Path) -> list[Trial]:
    """All trials ever asked of a sweep; without those refused for photos that have been mended since."""
    return without_mended(read_trials(sweep_dir / "trials.jsonl").values())


def read_trials(path: Path) -> dict[str, Trial]:
    """The newest line of each, by train_id. Equal parts of their configs are held once: a large sweep's trials share
    nearly all of them."""
    parts: dict[str, Any] = {}
    newest = {}
    for row in read_jsonl(path):
        config = {key: parts.setdefault(repr(value), value) for key, value in row["config"].items()}
        newest[row["train_id"]] = Trial(**{**row, "config": config})
    return newest


def without_mended(trials: Collection[Trial]) -> list[Trial]:
    """Without those that were refused and can run now: what is mended, photos or a file of settings, gives a trial
    another train_id."""
    able = [trial for trial in trials if not trial.refused]
    configs, settings = [trial.config for trial in able], [trial.settings for trial in able]
    return [trial for trial in trials if not trial.refused or not (
        trial.config in configs if trial.config else trial.settings in settings)]
