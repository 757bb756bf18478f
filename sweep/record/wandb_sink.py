"""Weights & Biases as a sink of the exporter: one run per trial, and one for the sweep with the chosen file."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.errors import ConfigError
from sweep.files import read_json, stable_hash, write_json
from sweep.record.asked import brought, settings_of, shared
from sweep.record.best import best_results, choices_of, on_front
from sweep.record.card import PUBLISH
from sweep.record.entry import SweepEntry
from sweep.record.facts import Record
from sweep.record.figures import FIGURES, values_of
from sweep.record.payload import Speed, payload, summary_of, sweep_tag, tag_of
from sweep.record.pictures import read_tiles
from sweep.record.sentences import answer_sentence
from sweep.record.settings import WandbConfig
from sweep.record.sweep_log import note
from sweep.record.workspace import save_workspace
from sweep.schema import flat, to_tree
from sweep.trial import Trial, TrialFolder, TrialResult, trial_folder

if TYPE_CHECKING:
    import wandb

_INIT_TIMEOUT_S = 60
_ASK_TIMEOUT_S = 20
# wandb asks two things before a run begins and repeats each until it is answered, after 2, 4, 8, 16 ... seconds: five
# losses in a row would outlast the limit above. With this between them a dozen tries fit in.
_MAX_WAIT_S = 5.0


class WandbSink:
    """See `sweep.record.exporter.Sink`. mode: "online" or "offline"; keeps_offline: what can't be sent becomes an
    offline run, so that wandb's own tools can show it."""

    name = "wandb"

    def __init__(self, config: WandbConfig, mode: str, entry: SweepEntry, sweep_dir: Path, results_dir: Path, *,
                 keeps_offline: bool = True) -> None:
        self._config, self._mode, self._entry, self._keeps_offline = config, mode, entry, keeps_offline
        self._sync = f"python -m sweep.record.sync {shlex.quote(sweep_dir.as_posix())}"
        self._sweep_dir, self._results_dir = sweep_dir.resolve(), results_dir.resolve()
        self.patience_s = float(config.wait_s)
        write_json(target_path(self._sweep_dir), {"project": config.project, "entity": config.entity})

    def shown_path(self, trial: Trial) -> Path:
        """In the trial's folder: its run is one and the same whichever sweep shows it."""
        place = stable_hash([self._config.entity, self._config.project, *filter(None, [_id_of_agent()])], num_digits=6)
        return trial_folder(self._results_dir, trial.train_id).root / f"shown-wandb-{place}.jsonl"

    def open(self, trial: Trial) -> WandbRun:
        run = self._init(id=_id_of_agent() or trial.train_id, name=f"{self._entry.name}-{trial.number:03d}",
                         job_type="trial", config=flat(to_tree(trial.config)))
        if self._mode == "offline":
            return WandbRun(run, None)
        # A run that goes on tells only the highest step it heard of, also in a summary that came before its rows.
        return WandbRun(run, self.num_rows_there(trial) if run.starting_step else 0, self._offline_parts(run.id))

    def conclude(self, record: Record) -> None:
        """A run of the sweep itself: the table of trials, the answer, and the chosen file as an artifact with its card.
        Shown again only if it says something else."""
        if self.is_concluded(record) or _id_of_agent():
            return
        import wandb

        config = {"command": record.entry.command, "swept": list(record.entry.swept_keys),
                  **shared(record.entry, record.results)}
        run = self._init(id=f"sweep-{stable_hash(record.entry.name)}", name=record.entry.name, job_type="sweep",
                         config=config)
        best, ties = best_results(record.results)
        answer = answer_sentence(record.entry, record.results, record.results_dir.as_posix())
        run.summary.update({"answer": answer, "num_trials": len(record.results), "is_tie": bool(ties),
                            **(summary_of(best) if best else {})})
        run.log({"trials": _trial_table(record)})
        folder = record.dir / PUBLISH
        if best is not None and best.answer is not None and folder.exists():
            artifact = wandb.Artifact(_artifact_name(record.entry.name), type="model", metadata=summary_of(best),
                                      description=(folder / "README.md").read_text(encoding="utf-8"))
            artifact.add_dir(str(folder))
            run.log_artifact(artifact, aliases=["chosen", re.sub(r"\W+", "-", best.answer.score.verdict)])
        WandbRun(run, None, self._offline_parts(run.id) if self._mode == "online" else ()).finish()
        if self._mode == "online":
            save_workspace(run.entity, self._config.project, record.entry)
        write_json(self._concluded_path, self._conclusion())

    def is_concluded(self, record: Record) -> bool:
        """Whether there is nothing new to say about the sweep as a whole."""
        path = self._concluded_path
        said = read_json(path) if path.exists() else {}
        is_said = said in (self._conclusion(), {**self._conclusion(), "mode": "online"})
        return is_said or not any(result.answer for result in record.results)

    def num_rows_there(self, trial: Trial) -> int:
        """How many rows of a trial W&B holds; 0 if it does not know the run. Raises ConfigError without an answer."""
        import wandb

        run_id = _id_of_agent() or trial.train_id
        path = "/".join(filter(None, (self._config.entity, self._config.project, run_id)))
        try:
            return int(wandb.Api(timeout=_ASK_TIMEOUT_S).run(path).historyLineCount)
        except wandb.errors.CommError as error:
            if "not find run" in str(error):
                return 0
            raise ConfigError(f"Weights & Biases can't be asked what it holds: {error}. Nothing is lost; try again "
                              "later.") from error

    def how_to_send(self) -> str:
        return f"{self._sync} sends the rest"

    @property
    def _concluded_path(self) -> Path:
        return self._sweep_dir / "wandb" / "concluded.json"

    def _conclusion(self) -> dict[str, str]:
        csv = self._sweep_dir / "trials.csv"
        return {"mode": self._mode, "trials": stable_hash(csv.read_text(encoding="utf-8") if csv.exists() else "")}

    def _offline_parts(self, run_id: str) -> list[Path]:
        """What was kept offline of a run, by any sweep."""
        return sorted(self._results_dir.glob(f"*/wandb/offline-run-*-{run_id}*"))

    def _init(self, **about: Any) -> wandb.Run:
        """A run, online if that is wanted and the first one gets through; else it and all later ones are kept offline.
        """
        import wandb

        try:
            run = self._init_in(self._mode, **about)
        except wandb.errors.CommError as error:
            if self._mode != "online" or not self._keeps_offline:
                raise
            self._mode = "offline"
            note(self._sweep_dir, f"wandb can't be reached, {error}: its runs are kept offline; "
                                  f"{self._sync} sends them")
            wandb.teardown()  # it would hold the run's id
            run = self._init_in("offline", **about)
        self._keeps_offline = False  # wandb would have to be torn down, and with it the runs that are open
        return run

    def _init_in(self, mode: str, **about: Any) -> wandb.Run:
        import wandb

        wandb_dir = self._sweep_dir / "wandb"
        wandb_dir.mkdir(parents=True, exist_ok=True)  # without it wandb falls back to a temporary folder
        wait_s = self._config.wait_s
        settings = wandb.Settings(
            init_timeout=min(_INIT_TIMEOUT_S, wait_s), finish_timeout=wait_s, finish_timeout_raises=True,
            x_graphql_retry_wait_max_seconds=_MAX_WAIT_S, x_file_stream_retry_wait_max_seconds=_MAX_WAIT_S,
            x_file_transfer_retry_wait_max_seconds=_MAX_WAIT_S, silent=True, console="off", symlink=False,
            disable_git=True, x_disable_stats=True)
        run = wandb.init(
            project=self._config.project, entity=self._config.entity, group=self._entry.name, dir=str(self._sweep_dir),
            mode="online" if mode == "online" else "offline", reinit="create_new", settings=settings,
            resume="allow" if mode == "online" else None, **about)
        run.define_metric("step")
        run.define_metric("*", step_metric="step")
        return run


def target_path(sweep_dir: Path) -> Path:
    """Where it is kept to which project a sweep's runs belong, for those who send them later."""
    return sweep_dir / "wandb" / "target.json"


def _id_of_agent() -> str | None:
    """The run that `wandb agent` began for this process of one trial (docs/wandb_sweep.yaml)."""
    return os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None


class WandbRun:
    """See `sweep.record.exporter.Run`. Each row is one of W&B's history, whose number W&B tells when a run goes on.

    superseded: what was kept offline of a run that is online now.
    """

    def __init__(self, run: wandb.Run, num_there: int | None, superseded: Sequence[Path] = ()) -> None:
        self._run, self.num_there, self._superseded = run, num_there, superseded
        self._speed = Speed()

    def log(self, row: Mapping[str, Any], folder: TrialFolder) -> None:
        self._run.log(payload(row) | self._speed.of(row) | _picture(row, folder))

    def log_end(self, result: TrialResult, folder: TrialFolder) -> None:
        tables = {"scores": _score_table(result, folder), "samples": _sample_table(result, folder)}
        self._run.log({"step": result.step, "status": result.status} | {k: v for k, v in tables.items() if v})

    def summarise(self, result: TrialResult, sweeps: list[str]) -> None:
        earlier = {self._run.summary.get("verdict"), self._run.summary.get("status")}
        others = [tag for tag in self._run.tags or () if tag not in earlier]  # a user's own are kept
        ours = [tag_of(result), *map(sweep_tag, sweeps)]
        self._run.summary.update(summary_of(result))
        self._run.tags = tuple(dict.fromkeys([*others, *ours]))

    def finish(self) -> None:
        self._run.finish()
        for part in self._superseded:  # all its rows went up from the trial's own record
            for written in part.glob("*.wandb"):
                written.with_suffix(".wandb.synced").touch()  # wandb's own mark: `wandb sync` passes it over


def _score_table(result: TrialResult, folder: TrialFolder) -> wandb.Table | None:
    """Every score of a trial, with its contact sheet."""
    import wandb

    if not result.scores:
        return None
    rows = []
    for score in result.scores:
        sheet = folder.images / f"{score.score_id}.png"
        rows.append([score.stage, score.step, score.epoch, score.strength, *values_of(score), score.verdict,
                     "; ".join(score.notes), wandb.Image(os.fspath(sheet)) if sheet.exists() else None])
    return wandb.Table(["stage", "step", "epoch", "strength", *FIGURES, "verdict", "notes", "sheet"], rows)


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

    keys = (*record.entry.swept_keys, *brought(record.entry, record.results))
    settings = settings_of(record.entry, record.results)
    rows, front = [], {result.trial.number for result in on_front(record.results)}
    for result, choice, own in zip(record.results, choices_of(record.results), settings, strict=True):
        rows.append([result.trial.number, result.trial.train_id, *(str(own.get(key)) for key in keys),
                     *values_of(result.answer.score if result.answer else None), tag_of(result),
                     choice, result.trial.number in front, result.attributed_s / 60])
    return wandb.Table(["number", "train_id", *keys, *FIGURES, "verdict", "choice", "is_on_front",
                        "attributed_minutes"], rows)


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
