"""A worker's process: packs one after the other, over a base that stays loaded."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.errors import ConfigError, TrialChangedError
from sweep.evaluation.settings import SCORINGS
from sweep.files import stable_hash
from sweep.identity import base_identity
from sweep.methods import DREAMBOOTH
from sweep.model.base import Base
from sweep.model.loading import load_base
from sweep.network.targets import Target, find_layers
from sweep.packing import can_share
from sweep.schema import build_family, to_tree
from sweep.stopping import Stopped
from sweep.train_config import TrainConfig
from sweep.trial import RUNNING, WAITING, PackSpec, Trial, more_trials
from sweep.worker.pack_run import PackRun
from sweep.worker.trial_run import TrialRun, open_trial

if TYPE_CHECKING:
    import torch

    from sweep.evaluation.scorer import Scorer


UNUSED = ("bitsandbytes", "peft", "scipy")  # of diffusers' optional packages


class Worker:
    """Runs packs one after the other; the base, its targets and the scorers stay from pack to pack.

    prepare: what to do before the first base is loaded; where it fails, so do the pack's trials.
    """

    def __init__(self, prepare: Callable[[], None] | None = None) -> None:
        self._prepare = prepare
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
        if self._prepare is not None:
            self._prepare()
            self._prepare = None
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

    diffusers imports what it finds installed, and UNUSED is a third of its start. Here it finds them missing, and goes
    on believing it: its own PEFT loader is off in this process. Who needs them later, an optimizer or a score, imports
    them as ever.
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
