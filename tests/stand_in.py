"""A launcher that trains nothing: it writes what a worker would write, in milliseconds, by a formula of the settings.
For the conductor's own behaviour over thousands of trials; what a real worker does is tested with the real one."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from sweep.command_line import CONF_DIR
from sweep.conductor.conduct import LauncherMaker, conduct
from sweep.data.folder import read_dataset
from sweep.evaluation.backends.registry import backend_identities
from sweep.evaluation.keys import dataset_key, scoring_id
from sweep.evaluation.settings import SCORINGS
from sweep.files import append_jsonl, read_json, read_jsonl, write_json
from sweep.identity import base_identity
from sweep.schema import build_family
from sweep.search.grid import cells_of
from sweep.train_config import train_from_tree
from sweep.trial import (
    AXES,
    DIVERGED,
    DONE,
    FAILED,
    PRUNED,
    RUNNING,
    Answer,
    Estimate,
    PackSpec,
    Score,
    Status,
    Trial,
    TrialResult,
    more_trials,
    pack_spec_from_json,
    to_json,
    trial_folder,
)

NUM_PROMPTS = 8
Curve = Callable[[Trial, float], float]


def peak(trial: Trial, done: float) -> float:
    """Usefulness after a share of the training: best at unet_lr = 1e-4 and dim 32, and rising."""
    config = trial.config
    rate = abs(math.log10(max(config["unet_lr"], 1e-9)) + 4)
    rank = abs(math.log2(config["network_dim"]) - 5)
    return max(0.0, 0.9 - 0.3 * rate - 0.05 * rank) * (0.5 + 0.5 * done)


class StandIn:
    """num_steps_per_poll: how many checkpoints every running trial gets from one poll to the next; 0 = all at once.

    fails, diverges: numbers of trials -> reason; dies: numbers -> how often the worker dies of it; is_stillborn: it
    always dies, before it has opened a trial.
    """

    def __init__(self, num_slots: int = 1, *, curve: Curve = peak, num_checkpoints: int = 4, is_gradual: bool = False,
                 fails: Mapping[int, str] | None = None, diverges: Mapping[int, str] | None = None,
                 dies: dict[int, int] | None = None, pause_s: float = 0.0, is_stillborn: bool = False):
        self._num_slots, self._curve, self._num_checkpoints = num_slots, curve, num_checkpoints
        self._is_gradual, self._dies, self._pause_s = is_gradual, dies or {}, pause_s
        self._ends = {number: (status, reason) for status, some in ((FAILED, fails), (DIVERGED, diverges))
                      for number, reason in (some or {}).items()}
        self._is_stillborn = is_stillborn
        self._packs: dict[Path, _Running] = {}
        self.started: list[tuple[int, ...]] = []
        self.is_closed = False
        self._scoring_ids: dict[str, str] = {}

    @property
    def num_free(self) -> int:
        return self._num_slots - len(self._packs)

    def device_of_next(self) -> tuple[str, int]:
        return "cpu:0", 1

    def start(self, spec: Path) -> None:
        assert self.num_free > 0
        self._packs[spec] = _Running(spec, pack_spec_from_json(read_json(spec)))
        self.started.append(tuple(trial.number for trial in self._packs[spec].spec.trials))

    def poll(self) -> list[tuple[Path, str | None]]:
        if self._pause_s:
            time.sleep(self._pause_s)
        ended: list[tuple[Path, str | None]] = []
        for path, pack in list(self._packs.items()):
            reason = self._advance(pack)
            while not self._is_gradual and reason is None and pack.live:
                reason = self._advance(pack)
            if reason is not None or not pack.live:
                del self._packs[path]
                ended.append((path, reason))
        return ended

    def stop(self) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True

    def _advance(self, pack: _Running) -> str | None:
        if self._is_stillborn:
            return "the worker process ended with exit code 1"
        pack.fill()
        for trial in list(pack.live):
            if self._dies.get(trial.number, 0) > 0:
                self._dies[trial.number] -= 1
                for member in pack.live:
                    self._write(pack, member, RUNNING)
                return "the worker process ended with exit code -9"
            if trial.number in self._ends:
                status, reason = self._ends[trial.number]
                self._write(pack, trial, status, reason=reason)
                pack.live.remove(trial)
                continue
            self._checkpoint(pack, trial)
        pack.fill()
        return None

    def _checkpoint(self, pack: _Running, trial: Trial) -> None:
        folder = trial_folder(Path(pack.spec.results_dir), trial.train_id)
        number = pack.done.get(trial.train_id, 0) + 1
        pack.done[trial.train_id] = number
        step = trial.num_steps * number // self._num_checkpoints
        is_scored = pack.spec.scoring["name"] != "none"
        score = self._score(pack.spec, trial, step) if is_scored else None
        if score is not None:
            write_json(folder.scores / f"{score.score_id}.json", to_json(score), durable=False)
            append_jsonl(folder.metrics, {"kind": "score", "step": step, "epoch": number, "score": to_json(score),
                                          "attributed_s": float(number)})
        is_last, is_pruned = number == self._num_checkpoints, folder.prune.exists()
        if is_last or is_pruned:
            folder.checkpoints.mkdir(parents=True, exist_ok=True)
            (folder.checkpoints / "stand-in.safetensors").write_bytes(b"")
            if score is not None:
                answer = Answer(file=score.file, epoch=number, step=step, strength=1.0, score=score, reason="")
                write_json(folder.answer(score.scoring_id), to_json(answer), durable=False)
            pack.live.remove(trial)
        status = PRUNED if is_pruned and not is_last else DONE if is_last else RUNNING
        reason = read_json(folder.prune)["reason"] if status == PRUNED else ""
        self._write(pack, trial, status, step=step, newest=score.score_id if score else "", reason=reason)

    def _write(self, pack: _Running, trial: Trial, status: str, *, step: int = 0, newest: str = "",
               reason: str = "") -> None:
        write_json(trial_folder(Path(pack.spec.results_dir), trial.train_id).status, to_json(Status(
            status=status, phase="training", step=step, num_steps=trial.num_steps,
            is_trained=status in (DONE, PRUNED), pruned=reason if status == PRUNED else "",
            attributed_s=float(pack.done.get(trial.train_id, 0)), newest_score=newest, reason=reason)), durable=False)

    def _score(self, spec: PackSpec, trial: Trial, step: int) -> Score:
        value = self._curve(trial, step / trial.num_steps)
        known = Estimate(value=value, low=value - 0.1, high=value + 0.1, raw=value, n=NUM_PROMPTS)
        return Score(
            score_id=f"s{step:08d}", scoring_id=self._scoring_id(spec, trial), file="stand-in.safetensors",
            file_sha256="e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", epoch=1, step=step,
            strength=1.0, stage="screen", num_images=NUM_PROMPTS, axes=dict.fromkeys(AXES, known), details={},
            replicates={f"p{i}": value + 0.002 * (i % 3 - 1) for i in range(NUM_PROMPTS)}, verdict="good", notes=(),
            elapsed_s=0.0)

    def _scoring_id(self, spec: PackSpec, trial: Trial) -> str:
        key = repr([trial.config["base_model"], trial.config["dataset"]])
        if key not in self._scoring_ids:
            config = train_from_tree(trial.config)
            scoring: Any = build_family(SCORINGS, spec.scoring, "scoring")
            photos = read_dataset(config.dataset, trigger=config.trigger, class_noun=config.class_noun, repeats=None)
            self._scoring_ids[key] = scoring_id(
                scoring, base_identity(config.base_model, Path(spec.results_dir)), config.base_model.resolution,
                backend_identities(scoring), dataset_key(photos))
        return self._scoring_ids[key]


class _Running:
    """One pack, with the trials that join it."""

    def __init__(self, path: Path, spec: PackSpec):
        self.path, self.spec = path, spec
        self.live: list[Trial] = []
        self.done: dict[str, int] = {}
        self._waiting = deque(spec.trials)
        self._num_joined = 0

    def fill(self) -> None:
        rows = list(read_jsonl(more_trials(self.path)))
        self._waiting.extend(Trial(**row["trial"]) for row in rows[self._num_joined:])
        self._num_joined = len(rows)
        while self._waiting and len(self.live) < (self.spec.max_trials or len(self.spec.trials)):
            self.live.append(self._waiting.popleft())


def run_sweep(lines: Sequence[str], launcher_of: LauncherMaker | None = None) -> list[TrialResult]:
    """What `train.py -m lines` does, with a launcher of one's own; a StandIn's if None."""
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cells = cells_of(lines, lambda overrides: compose("config", overrides=overrides),
                         GlobalHydra.instance().config_loader())
        return conduct(cells, launcher_of or (lambda config, folder: StandIn()),
                       command=["python", "train.py", "-m", *lines])
