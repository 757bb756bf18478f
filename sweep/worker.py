"""What every launcher starts: for one pack, cache -> train -> generate -> score.

    python -m sweep.worker SPEC.json ...     these packs, one after the other
    python -m sweep.worker -                 packs whose paths come on standard input; the base stays loaded

A worker and the conductor meet only in files: the pack's spec, the trials' folders, and a control file that may say
"stop". Everything here can be killed at any moment and run again; SIGTERM, as a cluster sends it before it takes a
machine back, saves first and ends with exit code 143.
"""

from __future__ import annotations

import gc
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.errors import ConfigError, TrialChangedError
from sweep.evaluation.settings import SCORINGS
from sweep.files import read_json, stable_hash
from sweep.identity import base_identity
from sweep.methods import DREAMBOOTH
from sweep.model.base import Base
from sweep.model.loading import load_base
from sweep.network.targets import Target, find_layers
from sweep.pack_run import PackRun
from sweep.packing import can_share
from sweep.schema import build_family, to_tree
from sweep.stopping import STOP_ASKED, Stopped
from sweep.train_config import TrainConfig
from sweep.trial import RUNNING, WAITING, PackSpec, Trial, more_trials, pack_spec_from_json
from sweep.trial_run import TrialRun, open_trial

if TYPE_CHECKING:
    import torch

    from sweep.evaluation.scorer import Scorer


TERMINATED = 143  # the exit code of a process that was asked to end: 128 + SIGTERM
UNUSED = ("bitsandbytes", "peft", "scipy")  # of diffusers' optional packages


class Worker:
    """Runs packs one after the other; the base, its targets and the scorers stay from pack to pack."""

    def __init__(self) -> None:
        self._bases: dict[tuple[object, ...], tuple[Base, list[Target]]] = {}
        self._scorers: dict[str, Scorer] = {}

    def run(self, spec: PackSpec, path: Path | None = None) -> None:
        """Train and score a pack. What fails is recorded as failed, with its reason; nothing is raised.

        path: where the spec lies; beside it the conductor may add trials.
        """
        import torch

        torch.set_num_threads(spec.threads)
        opened: dict[str, TrialRun] = {}
        runs: list[TrialRun] = []
        try:
            # In the order of their ids, so that two workers that want the same trials can't wait for each other.
            for trial in sorted(spec.trials, key=lambda trial: trial.train_id):
                run = open_trial(trial, spec)
                if run is not None:
                    opened[trial.train_id] = run
            runs = [opened[trial.train_id] for trial in spec.trials if trial.train_id in opened]
            if runs:
                self._run_pack(runs, spec, opened, path)
        except Stopped:
            pass
        except Exception as error:
            for run in opened.values():
                if run.status.status in (RUNNING, WAITING):
                    run.fail(error)
        finally:
            for run in opened.values():
                run.lock.release()

    def _run_pack(self, runs: Sequence[TrialRun], spec: PackSpec, opened: dict[str, TrialRun],
                  path: Path | None) -> None:
        base, targets = self._base(runs[0].config, device_named(spec.device), spec)

        def admit(trial: Trial) -> TrialRun | None:
            """Raises LockedError if another worker trains it."""
            run = open_trial(trial, spec, waits=False) if can_share(trial, spec.trials[0]) else None
            if run is not None:
                opened[trial.train_id] = run
            return run if run is not None and _is_as_asked(run, base) else None

        ready = [run for run in runs if _is_as_asked(run, base)]
        while ready:
            pack_run = PackRun(base, targets, ready, spec, lambda run: self._scorer(base, targets, run, spec),
                               more=more_trials(path) if path else None, admit=admit)
            try:
                pack_run.run()
            except Stopped:
                raise
            except Exception as error:  # of those that shared the pass; who still waits gets its turn
                for run in opened.values():
                    if run.status.status == RUNNING or run.trial.train_id in pack_run.trials.placed:
                        run.fail(error)
            ready = [run for run in opened.values() if run.status.status == WAITING]

    def _base(self, config: TrainConfig, device: torch.device, spec: PackSpec) -> tuple[Base, list[Target]]:
        import torch

        identity = base_identity(config.base_model, Path(spec.results_dir))
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(config.mixed_precision)
        if config.method.name == DREAMBOOTH:
            dtype = None  # its weights start from the base's, unrounded
        key = (config.base_model, identity, str(device), dtype)
        if key not in self._bases:
            self._bases.clear()  # one base at a time: on a GPU two may not fit
            self._scorers.clear()
            with _no_garbage():
                base = load_base(config.base_model, identity, device, dtype)
            self._bases[key] = base, find_layers(base)
        return self._bases[key]

    def _scorer(self, base: Base, targets: list[Target], run: TrialRun, spec: PackSpec) -> Scorer | None:
        """The scorer for a trial's photos; None if scoring is off."""
        scoring = build_family(SCORINGS, spec.scoring, "scoring")
        if scoring.name == "none":
            return None
        from sweep.evaluation.scorer import Scorer

        key = stable_hash([to_tree(scoring), run.dataset.identity, [str(p) for p in run.dataset.holdout],
                           run.dataset.trigger, run.dataset.class_noun, run.config.clip_skip,
                           run.config.max_token_length])
        if key not in self._scorers:
            self._scorers[key] = Scorer(base, targets, scoring, run.dataset, Path(spec.results_dir),
                                         clip_skip=run.config.clip_skip, max_token_length=run.config.max_token_length)
        return self._scorers[key]


@contextmanager
def _no_garbage() -> Iterator[None]:
    """While libraries and a base are loaded nothing is looked through for garbage, which takes a fifth of that time;
    what they leave is only looked at when another base takes its place."""
    gc.unfreeze()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()


def import_libraries() -> None:
    """Import what a base needs, for a process that is a worker and nothing else.

    diffusers imports what it finds installed, and UNUSED is a third of its start. Here it finds them missing; who needs
    them later, an optimizer or a score, imports them as ever.
    """
    from sweep.model.torchvision_ops import declare_missing_operators

    modules: dict[str, Any] = sys.modules
    kept = {name: modules.get(name) for name in UNUSED}
    modules.update(dict.fromkeys(UNUSED))  # None: Python's own word for a module that can't be imported
    try:
        with _no_garbage():
            declare_missing_operators()
            from diffusers import AutoencoderKL, UNet2DConditionModel  # noqa: F401
            from transformers import CLIPTextModel, CLIPTokenizer  # noqa: F401
    finally:
        for name, module in kept.items():
            if module is None:
                del modules[name]
            else:
                modules[name] = module


def device_named(name: str) -> torch.device:
    """"auto:1" -> cuda:1 where there are GPUs, else the CPU. Raises ConfigError for a GPU that is not there."""
    import torch

    kind, _, index = name.partition(":")
    num_gpus = torch.cuda.device_count()
    if kind == "cpu" or (kind == "auto" and num_gpus == 0):
        return torch.device("cpu")
    if int(index) >= num_gpus:
        raise ConfigError(f"Worker {int(index) + 1} wants a GPU of its own, but this machine has {num_gpus} usable. "
                          f"Set launcher.devices to at most {num_gpus}, or launcher.device=cpu.")
    return torch.device(f"cuda:{index}")


def _is_as_asked(run: TrialRun, base: Base) -> bool:
    """Whether the trial is still the one that was asked for; if not, it has failed."""
    if not run.is_as_asked(base.identity):
        run.fail(TrialChangedError(
            "The photos, captions or the base model changed since this trial was asked for; the same command asks for "
            "the trial that they make now."))
        return False
    return True


def main(arguments: Sequence[str]) -> int:
    """Run the packs named on the command line or on standard input. Answers each on standard output when it is done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the conductor's to understand
    for name in ("SIGTERM", "SIGUSR2"):  # SLURM sends the latter to a job's children too when its time is nearly over
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: STOP_ASKED.set())
    answers, sys.stdout = sys.stdout, sys.stderr  # a library's stray print must not be taken for an answer
    import_libraries()
    worker = Worker()
    for path in _paths_from_stdin() if list(arguments) == ["-"] else arguments:
        worker.run(pack_spec_from_json(read_json(Path(path))), Path(path))
        if STOP_ASKED.is_set():
            return TERMINATED
        print(path, file=answers, flush=True)
    return 0


def _paths_from_stdin() -> Iterator[str]:
    """Lines up to "exit". A conductor that dies closes the pipe without it: then this process ends at once, so that a
    new conductor's worker never shares a trial's folder with an orphan."""
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line.strip())
            if line.strip() == "exit":
                return
        os._exit(1)

    threading.Thread(target=read, daemon=True).start()
    while (line := lines.get()) != "exit":
        yield line


if __name__ == "__main__":
    exit_code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)  # everything is in files: taking the libraries apart would only keep the conductor waiting
