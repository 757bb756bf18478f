"""Weights & Biases as a sink of the exporter: one run per trial, and one for the sweep with the chosen file."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.files import read_json, stable_hash, write_json
from sweep.record.best import best_results, choice_of
from sweep.record.card import PUBLISH
from sweep.record.entry import SweepEntry
from sweep.record.facts import Record
from sweep.record.payload import flat, payload, summary_of, tag_of
from sweep.record.pictures import read_tiles
from sweep.record.sentences import answer_sentence
from sweep.record.settings import WandbConfig
from sweep.record.sweep_log import note
from sweep.record.workspace import save_workspace
from sweep.schema import to_tree
from sweep.trial import AXES, Trial, TrialFolder, TrialResult, trial_folder

if TYPE_CHECKING:
    import wandb

_INIT_TIMEOUT_S = 30
_FINISH_TIMEOUT_S = 120
_MAX_TAG_CHARS = 64  # wandb refuses longer tags


class WandbSink:
    """See `sweep.record.exporter.Sink`."""

    name = "wandb"
    patience_s = float(_INIT_TIMEOUT_S + _FINISH_TIMEOUT_S)

    def __init__(self, config: WandbConfig, mode: str, entry: SweepEntry, sweep_dir: Path, results_dir: Path) -> None:
        self._config, self._mode, self._entry, self._has_begun = config, mode, entry, False
        self._sweep_dir, self._results_dir = sweep_dir.resolve(), results_dir.resolve()

    def marks_path(self, trial: Trial) -> Path:
        """In the trial's folder: its run is one and the same whichever sweep shows it."""
        place = stable_hash([self._config.entity, self._config.project], num_digits=6)
        return trial_folder(self._results_dir, trial.train_id).root / f"shown-wandb-{place}.json"

    def open(self, trial: Trial) -> WandbRun:
        run = self._init(id=_id_of_agent() or trial.train_id, name=f"{self._entry.name}-{trial.number:03d}",
                         job_type="trial", config=flat(to_tree(trial.config)))
        return WandbRun(run, self._entry.name)

    def conclude(self, record: Record) -> None:
        """A run of the sweep itself: the table of trials, the answer, and the chosen file as an artifact with its card.
        Shown again only if it says something else."""
        import wandb

        csv = self._sweep_dir / "trials.csv"
        shown = self._sweep_dir / "wandb" / "concluded.json"
        state = stable_hash(csv.read_text(encoding="utf-8") if csv.exists() else "")
        is_shown = shown.exists() and read_json(shown) == state
        if is_shown or _id_of_agent() or not any(result.answer for result in record.results):
            return
        asked = {"command": record.entry.command, "swept": list(record.entry.swept_keys), **flat(record.entry.question)}
        run = self._init(id=f"sweep-{stable_hash(record.entry.name)}", name=record.entry.name, job_type="sweep",
                         config=asked)
        best, ties = best_results(record.results)
        run.summary.update({"answer": answer_sentence(record.entry, record.results), "num_trials": len(record.results),
                            "is_tie": bool(ties), **(summary_of(best) if best else {})})
        run.log({"trials": _trial_table(record)})
        folder = record.dir / PUBLISH
        if best is not None and best.answer is not None and folder.exists():
            artifact = wandb.Artifact(_artifact_name(record.entry.name), type="model", metadata=summary_of(best),
                                      description=(folder / "README.md").read_text(encoding="utf-8"))
            artifact.add_dir(str(folder))
            run.log_artifact(artifact, aliases=["chosen", re.sub(r"\W+", "-", best.answer.score.verdict)])
        run.finish()
        write_json(shown, state)
        if self._mode == "online":
            save_workspace(run.entity, self._config.project, record.entry)

    def _init(self, **about: Any) -> wandb.Run:
        """A run, online if that is wanted and the first one gets through; else it and all later ones are kept offline.
        """
        import wandb

        try:
            run = self._init_in(self._mode, **about)
        except wandb.errors.CommError as error:
            if self._mode != "online" or self._has_begun:
                raise
            self._mode = "offline"
            note(self._sweep_dir, f"wandb can't be reached, {error}: its runs are kept offline; python -m "
                                  f"sweep.record.sync {self._entry.name} sends them")
            wandb.teardown()  # it would hold the run's id
            run = self._init_in("offline", **about)
        self._has_begun = True
        return run

    def _init_in(self, mode: str, **about: Any) -> wandb.Run:
        import wandb

        wandb_dir = self._sweep_dir / "wandb"
        wandb_dir.mkdir(parents=True, exist_ok=True)  # without it wandb falls back to a temporary folder
        settings = wandb.Settings(init_timeout=_INIT_TIMEOUT_S, finish_timeout=_FINISH_TIMEOUT_S, silent=True,
                                  console="off", symlink=False, disable_git=True, x_disable_stats=True)
        run = wandb.init(
            project=self._config.project, entity=self._config.entity, group=self._entry.name, dir=str(self._sweep_dir),
            mode="online" if mode == "online" else "offline", reinit="create_new", settings=settings,
            resume="allow" if mode == "online" else None, **about)
        run.define_metric("step")
        run.define_metric("*", step_metric="step")
        return run


def _id_of_agent() -> str | None:
    """The run that `wandb agent` began for this process of one trial (docs/wandb_sweep.yaml)."""
    return os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None


class WandbRun:
    """See `sweep.record.exporter.Run`."""

    def __init__(self, run: wandb.Run, sweep_name: str) -> None:
        self._run, self._sweep_name = run, sweep_name
        self._last: tuple[int, float] | None = None

    def log(self, row: Mapping[str, Any], folder: TrialFolder) -> None:
        shown = payload(row) | _picture(row, folder)
        if row["kind"] == "train" and "attributed_s" in row:
            step, spent_s = int(row["step"]), float(row["attributed_s"])
            if self._last is not None and step > self._last[0] and spent_s > self._last[1]:
                shown["train/steps_per_s"] = (step - self._last[0]) / (spent_s - self._last[1])
            self._last = step, spent_s
        self._run.log(shown)

    def end(self, result: TrialResult, folder: TrialFolder) -> None:
        if result.scores:
            self._run.log({"step": result.step, "scores": _score_table(result, folder)})
        samples = _sample_table(result, folder)
        if samples is not None:
            self._run.log({"step": result.step, "samples": samples})
        self._run.summary.update(summary_of(result))
        kept = [tag for tag in self._run.tags or () if tag != "failed" and not tag.startswith("sweep:")]
        others = [tag for tag in self._run.tags or () if tag.startswith("sweep:")]
        mine = f"sweep:{self._sweep_name}"[:_MAX_TAG_CHARS]
        self._run.tags = tuple(dict.fromkeys([*kept, tag_of(result), *others, mine]))

    def finish(self) -> None:
        self._run.finish()


def _score_table(result: TrialResult, folder: TrialFolder) -> wandb.Table:
    """Every score of a trial, with its contact sheet."""
    import wandb

    rows = []
    for score in result.scores:
        sheet = folder.images / f"{score.score_id}.png"
        axes = [score.axes[name].value if name in score.axes else None for name in AXES]
        rows.append([score.stage, score.step, score.epoch, score.strength, *axes, score.verdict,
                     "; ".join(score.notes), wandb.Image(os.fspath(sheet)) if sheet.exists() else None])
    return wandb.Table(["stage", "step", "epoch", "strength", *AXES, "verdict", "notes", "sheet"], rows)


def _sample_table(result: TrialResult, folder: TrialFolder) -> wandb.Table | None:
    """The images that the answer's figures were measured on, one row each."""
    import wandb

    if result.answer is None:
        return None
    tiles = read_tiles(folder.images / f"{result.answer.score.score_id}.png")
    rows = [[cell["text"], cell["seed"], cell["kind"], cell.get("nearest"), wandb.Image(image)]
            for cell, image in tiles]
    return wandb.Table(["prompt", "seed", "kind", "nearest_photo_distance", "image"], rows) if rows else None


def _trial_table(record: Record) -> wandb.Table:
    import wandb

    swept = record.entry.swept_keys
    rows = []
    for result in record.results:
        axes = result.answer.score.axes if result.answer else {}
        rows.append([result.trial.number, result.trial.train_id, *(str(result.trial.settings.get(k)) for k in swept),
                     *(axes[name].value if name in axes else None for name in AXES), tag_of(result),
                     choice_of(result, record.results), result.attributed_s / 60])
    return wandb.Table(["number", "train_id", *swept, *AXES, "verdict", "choice", "attributed_minutes"], rows)


def _artifact_name(sweep_name: str) -> str:
    return re.sub(r"[^\w.-]", "-", f"{sweep_name}-lora")


def _picture(row: Mapping[str, Any], folder: TrialFolder) -> dict[str, Any]:
    """The contact sheet of a score."""
    if row["kind"] != "score":
        return {}
    path = folder.images / f"{row['score']['score_id']}.png"
    if not path.exists():
        return {}
    import wandb

    return {f"{row['score']['stage']}/sheet": wandb.Image(os.fspath(path))}
