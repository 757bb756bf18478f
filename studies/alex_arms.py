"""The trainings by which the claims are decided, and the figures that each leaves behind.

Every arm is an ordinary sweep of all people and seeds. What was measured of it is kept as arms/<arm>.json beside the
claims: an arm whose file says the same command, recipe, scoring and weights is not trained again, so that the night can
be cut into pieces, on several machines too.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from studies.alex_words import BARE_COPIES
from studies.phenomena import HOODIE, HoodieWatcher, measured, person_of, score_at, subject_of
from studies.sweeps import run_sweep
from sweep.command_line import CONF_DIR
from sweep.config import load
from sweep.data.settings import NEUTRAL as DATASET_NEUTRAL
from sweep.evaluation.keys import MEASURED_AS, known_by
from sweep.files import read_json, stable_hash, write_json
from sweep.identity import TRAINING_VERSION, without_neutral
from sweep.pocket import WEIGHTS_DIR
from sweep.record.facts import read_record
from sweep.record.provenance import commit, hardware
from sweep.schema import to_tree
from sweep.trial import DONE, FAILED, TrialResult, trial_folder

NUM_PHOTOS = 25
MEASURES = ("likeness", "adherence", "diversity", "memorisation", "memo_rate", BARE_COPIES, "memo_rate_caption",
            "bleed", "usefulness")
HOODIE_SHARE = "hoodie_share"
# All on the pocket base, so that nothing differs but what a claim is about. On two cores two one-thread workers outrun
# one of two threads. The bare trigger is all that a training without captions was told: its copies show there. Nothing
# is confirmed; num_bare there is what it was by default when most of the arms ran.
SCORING = ("scoring.screen.prompts=refine", "scoring.screen.num_seeds=2", "scoring.screen.num_captions=4",
           "scoring.screen.num_bare=8", "scoring.screen.num_class=2", "scoring.choice.strengths=[1.0]",
           "scoring.choice.confirm=0", "scoring.choice.refine_frac=0", "scoring.confirm.num_bare=1")
COMMON = (*SCORING, "base_model=pocket", "dataset.holdout_dir=${dataset.dir}/../holdout", "tracker=none",
          "pack.max_trials=5", "launcher.devices=2", "launcher.threads=1", "save_every_n_epochs=1000")
# In 32 bits: no claim is about the optimizer's 8, which take half of a training's time on a CPU. "8-bit" says what they
# change.
ADAMW = "optimizer=adamw"
ARMS: Mapping[str, tuple[str, ...]] = {  # photos, what it trains
    "tutorial": ("photos", "experiment=tutorial", ADAMW),
    "cosine": ("photos", "experiment=scheduler/cosine_with_restarts", ADAMW),
    "constant": ("photos", "experiment=scheduler/constant", ADAMW),
    "dadaptation": ("photos", "experiment=adaptive/dadaptation"),
    "adafactor": ("photos", "experiment=adaptive/adafactor"),
    "more-epochs": ("photos", "experiment=tutorial", ADAMW, "repeats=5", "max_train_epochs=15"),
    "hoodie-captioned": ("hoodie", "experiment=captions/with", ADAMW),
    "hoodie-uncaptioned": ("hoodie", "experiment=captions/without", ADAMW),
    "regularised": ("photos", "experiment=tutorial", ADAMW, "dataset.generate_reg=375"),
    "8-bit": ("photos", "experiment=tutorial"),
    # LoRA3 at three lengths, each a training of its own: a checkpoint half way down a schedule is no shorter training.
    "1120-steps": ("photos", "experiment=alex/alex_lora3", ADAMW, "max_train_epochs=2"),
    "2240-steps": ("photos", "experiment=alex/alex_lora3", ADAMW, "max_train_epochs=4"),
    "6720-steps": ("photos", "experiment=alex/alex_lora3", ADAMW),
    "alpha-1": ("photos", "experiment=alex/alex_lora4", ADAMW),
    "dim-8": ("photos", "experiment=alex/alex_lora8", ADAMW),
    # Trained to copy, ten times the rate on four photos: can copies be seen at all?
    "copying": ("photos", ADAMW, "network_dim=128", "unet_lr=1e-3", "text_encoder_lr=1e-4", "dataset.num_images=4",
                "dataset.captions=false", "max_train_steps=1200"),
}

Value = tuple[float | None, str]
"""Or None, and why there is none."""


class Arms:
    """What was measured, by arm, person, seed and step."""

    def __init__(self, files: Mapping[str, Mapping[str, Any]], people: Sequence[int], seeds: Sequence[int]):
        self.files, self.people, self.seeds = files, [str(person) for person in people], list(seeds)

    def value(self, arm: str, person: str, seed: int, measure: str) -> Value:
        """A measure of the last file."""
        run = self._run(arm, person, seed)
        if run is None:
            return None, f"{arm} was not trained"
        if not run["figures"]:
            return None, f"{arm} is {run['status']} before its last step"
        value = run["figures"].get(measure, "not measured")
        return (None, value) if isinstance(value, str) else (float(value), "")

    def verdict(self, arm: str, person: str, seed: int) -> str | None:
        """Of the last file, without its additions; None if there is none."""
        run = self._run(arm, person, seed)
        return str(run["figures"]["verdict"]).partition(" + ")[0] if run and run["figures"] else None

    def _run(self, arm: str, person: str, seed: int) -> Mapping[str, Any] | None:
        run = self.files[arm]["runs"].get(f"{person} {seed}") if arm in self.files else None
        assert run is None or isinstance(run, Mapping)
        return run

    def verdicts(self, arm: str) -> list[str]:
        """Of the last files."""
        found = [self.verdict(arm, person, seed) for person in self.people for seed in self.seeds]
        return [verdict for verdict in found if verdict is not None]


def read_arms(folder: Path, people: Sequence[int], seeds: Sequence[int], extra: Sequence[str] = ()) -> Arms:
    """Those of these people and seeds that are kept there."""
    kept = ((arm, kept_of(folder, arm, people, seeds, extra)) for arm in ARMS)
    return Arms({arm: tree for arm, tree in kept if tree is not None}, people, seeds)


def kept_of(folder: Path, arm: str, people: Sequence[int], seeds: Sequence[int],
            extra: Sequence[str] = ()) -> dict[str, Any] | None:
    """An arm's file; None if there is none, or what it tells was trained or scored otherwise."""
    path = _file_of(folder, arm)
    tree = read_json(path) if path.exists() else None
    return tree if tree is not None and tree["asked"] == _asked(arm, people, seeds, extra) else None


def train(arm: str, work: Path, people: Sequence[int], seeds: Sequence[int], extra: Sequence[str]) -> None:
    """Raises CalledProcessError if the sweep can't run; the same call goes on."""
    render_people(work, people)
    run_sweep(arm_arguments(arm, work, people, seeds, extra))


def arm_arguments(arm: str, work: Path, people: Sequence[int], seeds: Sequence[int],
                  extra: Sequence[str]) -> list[str]:
    """What a user would type after train.py -m."""
    kind, *overrides = ARMS[arm]
    folders = ",".join((work / "people" / str(person) / kind / "train").as_posix() for person in people)
    return [f"dataset.dir={folders}", f"seed={','.join(map(str, seeds))}", f"sweep.name={arm}",
            f"sweep.results_dir={work}", *COMMON, *overrides, *extra]


def render_people(work: Path, people: Sequence[int]) -> None:
    """Each person's photos, once as they come and once with the same hoodie on all of them."""
    from sweep.pocket.subject import write_subject

    for person in people:
        for kind, clothes in (("photos", None), ("hoodie", HOODIE)):
            folder = work / "people" / str(person) / kind
            if not (folder / "subject.json").exists():
                write_subject(person, folder, num_photos=NUM_PHOTOS, clothes=clothes)


def keep(arm: str, work: Path, folder: Path, people: Sequence[int], seeds: Sequence[int],
         extra: Sequence[str] = ()) -> None:
    """Measures what the sweep has left behind and writes the arm's file.

    Raises RuntimeError if a training failed or is not there: the same command tries it again. One that diverged is a
    result.
    """
    wanted = {f"{person} {seed}" for person in people for seed in seeds}
    found = {f"{person_of(result.trial)} {result.trial.config['seed']}": result
             for result in read_record(work / arm).results}
    if missing := sorted(key for key in wanted if key not in found or found[key].status == FAILED):
        raise RuntimeError(f"{arm}: person and seed {', '.join(missing)} failed or were not trained; see "
                           f"{work / arm / 'diary.md'}. The same command tries them again.")
    watcher = HoodieWatcher() if ARMS[arm][0] == "hoodie" else None
    write_json(_file_of(folder, arm), {
        "asked": _asked(arm, people, seeds, extra), "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "hardware": hardware(), "commit": commit(),
        "runs": {key: _run_of(found[key], work, watcher) for key in sorted(wanted)}})


def _run_of(result: TrialResult, work: Path, watcher: HoodieWatcher | None) -> dict[str, Any]:
    trial = result.trial
    score = score_at(result, trial.num_steps)
    figures: dict[str, float | str] = {}
    if result.status == DONE and score is not None:
        figures["verdict"] = score.verdict
        for measure in MEASURES:
            value, why = measured(score, measure)
            figures[measure] = why if value is None else round(value, 4)
        if watcher is not None:
            file = trial_folder(work, trial.train_id).checkpoints / score.file
            subject = subject_of(Path(str(trial.config["dataset"]["dir"])).parent)
            figures[HOODIE_SHARE] = watcher.share(file, subject)
    return {"status": result.status, "num_steps": trial.num_steps, "train_id": trial.train_id, "figures": figures}


def _asked(arm: str, people: Sequence[int], seeds: Sequence[int], extra: Sequence[str] = ()) -> dict[str, Any]:
    return {"photos": ARMS[arm][0], "overrides": [*COMMON, *ARMS[arm][1:], *extra], "people": sorted(people),
            "seeds": sorted(seeds), "recipe": _recipe(arm, extra),
            "weights": stable_hash(read_json(WEIGHTS_DIR / "weights.json"))}


def _recipe(arm: str, extra: Sequence[str]) -> str:
    """Hash of what the options' files say besides the command: figures of two recipes or scorings are not compared."""
    overrides = (part for part in (*COMMON, *ARMS[arm][1:], *extra) if not part.startswith("dataset.holdout_dir="))
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = load(compose("config", list(overrides)))
    train = without_neutral(to_tree(config.train))
    train["dataset"] = {key: value for key, value in train["dataset"].items()
                        if key not in DATASET_NEUTRAL or value != DATASET_NEUTRAL[key]}
    return stable_hash([TRAINING_VERSION, train, MEASURED_AS, known_by(to_tree(config.scoring))])


def _file_of(folder: Path, arm: str) -> Path:
    return folder / "arms" / f"{arm}.json"
