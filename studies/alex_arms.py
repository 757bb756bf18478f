"""The trainings by which the claims are decided, and the figures that each leaves behind.

Every arm is an ordinary sweep of all people and seeds. What was measured of it is kept as arms/<arm>.json beside the
claims: an arm whose file says the same command and weights is not trained again, so that the night can be cut into
pieces, on several machines too.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from studies.phenomena import HOODIE, HoodieWatcher, measured, person_of, score_at, subject_of
from sweep.files import read_json, stable_hash, write_json
from sweep.pocket import WEIGHTS_DIR
from sweep.record.facts import read_record
from sweep.record.provenance import commit, hardware
from sweep.trial import TrialResult, trial_folder

NUM_PHOTOS = 25
MEASURES = ("likeness", "adherence", "diversity", "memorisation", "memo_rate", "bleed", "usefulness")
HOODIE_SHARE = "hoodie_share"
# All on the pocket base, so that nothing differs but what a claim is about. On two cores two one-thread workers outrun
# one of two threads.
COMMON = ("scoring.screen.prompts=refine", "scoring.screen.num_seeds=2", "scoring.screen.num_captions=4",
          "scoring.screen.num_class=2", "scoring.choice.strengths=[1.0]", "scoring.choice.confirm=0",
          "scoring.choice.refine_frac=0", "base_model=pocket", "dataset.holdout_dir=${dataset.dir}/../holdout",
          "tracker=none", "pack.max_trials=5", "launcher.devices=2", "launcher.threads=1")
# In 32 bits: no claim is about the optimizer's 8, which take half of a training's time on a CPU. "8-bit" says what they
# change.
ADAMW = "optimizer=adamw"
ARMS: Mapping[str, tuple[str, ...]] = {  # photos, what it trains
    "tutorial": ("photos", "experiment=tutorial", ADAMW, "save_every_n_epochs=5"),
    "cosine": ("photos", "experiment=scheduler/cosine_with_restarts", ADAMW, "save_every_n_epochs=5"),
    "constant": ("photos", "experiment=scheduler/constant", ADAMW, "save_every_n_epochs=5"),
    "dadaptation": ("photos", "experiment=adaptive/dadaptation", "save_every_n_epochs=5"),
    "adafactor": ("photos", "experiment=adaptive/adafactor", "save_every_n_epochs=5"),
    "more-epochs": ("photos", "experiment=tutorial", ADAMW, "repeats=5", "max_train_epochs=15",
                    "save_every_n_epochs=15"),
    "hoodie-captioned": ("hoodie", "experiment=captions/with", ADAMW, "save_every_n_epochs=5"),
    "hoodie-uncaptioned": ("hoodie", "experiment=captions/without", ADAMW, "save_every_n_epochs=5"),
    "regularised": ("photos", "experiment=tutorial", ADAMW, "dataset.generate_reg=375", "save_every_n_epochs=5"),
    "8-bit": ("photos", "experiment=tutorial", "save_every_n_epochs=5"),
    "long": ("photos", "experiment=alex/alex_lora3", ADAMW),
    "alpha-1": ("photos", "experiment=alex/alex_lora4", ADAMW, "save_every_n_epochs=12"),
    "dim-8": ("photos", "experiment=alex/alex_lora8", ADAMW, "save_every_n_epochs=12"),
}

Value = tuple[float | None, str]
"""Or None, and why there is none."""


class Arms:
    """What was measured, by arm, person, seed and step."""

    def __init__(self, files: Mapping[str, Mapping[str, Any]], people: Sequence[int], seeds: Sequence[int]):
        self.files, self.people, self.seeds = files, [str(person) for person in people], list(seeds)

    def value(self, arm: str, person: str, seed: int, measure: str, step: int | None = None) -> Value:
        """A measure of the checkpoint at this step; None = the last one."""
        if arm not in self.files:
            return None, f"{arm} was not trained"
        run = self.files[arm]["runs"].get(f"{person} {seed}")
        if run is None:
            return None, f"{arm} was not trained"
        found = run["checkpoints"].get(str(run["num_steps"] if step is None else step))
        if found is None:
            return None, "no checkpoint at this step"
        value = found.get(measure, "not measured")
        return (None, value) if isinstance(value, str) else (float(value), "")

    def verdict(self, arm: str, person: str, seed: int) -> str | None:
        """Of the last file, without its additions; None if there is none."""
        run = self.files[arm]["runs"].get(f"{person} {seed}") if arm in self.files else None
        last = None if run is None else run["checkpoints"].get(str(run["num_steps"]))
        return None if last is None else str(last["verdict"]).partition(" + ")[0]

    def verdicts(self, arm: str) -> list[str]:
        """Of the last files."""
        found = [self.verdict(arm, person, seed) for person in self.people for seed in self.seeds]
        return [verdict for verdict in found if verdict is not None]


def read_arms(folder: Path, people: Sequence[int], seeds: Sequence[int]) -> Arms:
    """Those of these people and seeds that are kept there."""
    kept = ((arm, kept_of(folder, arm, people, seeds)) for arm in ARMS)
    return Arms({arm: tree for arm, tree in kept if tree is not None}, people, seeds)


def kept_of(folder: Path, arm: str, people: Sequence[int], seeds: Sequence[int]) -> dict[str, Any] | None:
    """An arm's file; None if there is none, or what it tells was trained otherwise."""
    path = _file_of(folder, arm)
    tree = read_json(path) if path.exists() else None
    return tree if tree is not None and tree["asked"] == _asked(arm, people, seeds) else None


def train(arm: str, work: Path, people: Sequence[int], seeds: Sequence[int], extra: Sequence[str]) -> None:
    """Raises CalledProcessError if a training fails; the same call goes on."""
    render_people(work, people)
    subprocess.run(arm_command(arm, work, people, seeds, extra), check=True)


def arm_command(arm: str, work: Path, people: Sequence[int], seeds: Sequence[int], extra: Sequence[str]) -> list[str]:
    """What a user would type."""
    kind, *overrides = ARMS[arm]
    folders = ",".join((work / "people" / str(person) / kind / "train").as_posix() for person in people)
    return [sys.executable, "train.py", "-m", f"dataset.dir={folders}", f"seed={','.join(map(str, seeds))}",
            f"sweep.name={arm}", f"sweep.results_dir={work}", *COMMON, *overrides, *extra]


def render_people(work: Path, people: Sequence[int]) -> None:
    """Each person's photos, once as they come and once with the same hoodie on all of them."""
    from sweep.pocket.subject import write_subject

    for person in people:
        for kind, clothes in (("photos", None), ("hoodie", HOODIE)):
            folder = work / "people" / str(person) / kind
            if not (folder / "subject.json").exists():
                write_subject(person, folder, num_photos=NUM_PHOTOS, clothes=clothes)


def keep(arm: str, work: Path, folder: Path, people: Sequence[int], seeds: Sequence[int]) -> None:
    """Measures what the sweep has left behind and writes the arm's file."""
    watcher = HoodieWatcher() if ARMS[arm][0] == "hoodie" else None
    runs = {f"{person_of(result.trial)} {result.trial.config['seed']}": _run_of(result, work, watcher)
            for result in read_record(work / arm).results
            if person_of(result.trial) in map(str, people) and result.trial.config["seed"] in seeds}
    write_json(_file_of(folder, arm), {
        "asked": _asked(arm, people, seeds), "date": time.strftime("%Y-%m-%d", time.gmtime()), "hardware": hardware(),
        "commit": commit(), "runs": runs})


def _run_of(result: TrialResult, work: Path, watcher: HoodieWatcher | None) -> dict[str, Any]:
    trial = result.trial
    checkpoints: dict[str, dict[str, float | str]] = {}
    for step in sorted({score.step for score in result.scores if score.stage == "screen"}):
        score = score_at(result, step)
        assert score is not None
        figures: dict[str, float | str] = {"verdict": score.verdict}
        for measure in MEASURES:
            value, why = measured(score, measure)
            figures[measure] = why if value is None else round(value, 4)
        if watcher is not None and step == trial.num_steps:
            file = trial_folder(work, trial.train_id).checkpoints / score.file
            subject = subject_of(Path(str(trial.config["dataset"]["dir"])).parent)
            figures[HOODIE_SHARE] = watcher.share(file, subject)
        checkpoints[str(step)] = figures
    return {"num_steps": trial.num_steps, "checkpoints": checkpoints}


def _asked(arm: str, people: Sequence[int], seeds: Sequence[int]) -> dict[str, Any]:
    return {"photos": ARMS[arm][0], "overrides": [*COMMON, *ARMS[arm][1:]], "people": list(people),
            "seeds": list(seeds), "weights": stable_hash(read_json(WEIGHTS_DIR / "weights.json"))}


def _file_of(folder: Path, arm: str) -> Path:
    return folder / "arms" / f"{arm}.json"
