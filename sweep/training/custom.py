"""Any optimizer class by its dotted path."""

from __future__ import annotations

import importlib
import inspect
import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sweep.errors import ConfigError, SweepError
from sweep.training.optimizer_settings import Group, OptimizerSettings, schedule_free_refusal

if TYPE_CHECKING:
    import torch

    from sweep.train_config import TrainConfig

_EXAMPLE = "optimizer.class_path=torch.optim.Adagrad 'optimizer.args={lr_decay: 0.01}'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Custom(OptimizerSettings):
    """A class that follows torch.optim.Optimizer; its groups' `lr` is set before each step."""

    is_elementwise: ClassVar[bool] = False  # nothing is known of it, so it sees the adapter's matrices as they are

    name: str
    class_path: str | None
    # module.Class
    args: dict[str, Any] | None
    # for its constructor, without params and lr; null = none

    def build(self, groups: Sequence[Group]) -> list[torch.optim.Optimizer]:
        kind = self._kind()
        lr = {"lr": 1.0} if "lr" in inspect.signature(kind).parameters else {}
        with redirect_stdout(io.StringIO()):
            return [kind([group.as_dict() for group in groups], **lr, **(self.args or {}))]

    def refusal(self, trial: TrainConfig) -> str:
        """Rehearses it over tensors like the trial's. Needs torch, here alone of all checks."""
        if self.class_path is None:
            return f"optimizer=custom needs a class, e.g. {_EXAMPLE}."
        if wrong := {"lr", "params"} & set(self.args or {}):
            return (f"optimizer.args holds {', '.join(sorted(wrong))}: rates are set by unet_lr and text_encoder_lr, "
                    "and the parameters are the adapter's.")
        from sweep.training.rehearsal import rehearse

        try:
            optimizer, is_resumed = rehearse(self, trial)
        except SweepError as error:
            return str(error)
        except Exception as error:
            return (f"optimizer.class_path={self.class_path} with optimizer.args={self.args or {}} can't be used: "
                    f"{type(error).__name__}: {error}. Wanted is a torch.optim.Optimizer that takes these arguments, "
                    "steps the adapter's tensors at this trial's rates without a closure, and whose state is numbers "
                    f"and tensors, e.g. {_EXAMPLE}.")
        if not is_resumed:
            return (f"optimizer.class_path={self.class_path} keeps state outside `state` and `param_groups`, or draws "
                    "random numbers: restored from its state it takes other steps, so its trial can't be resumed. "
                    f"Choose another class, e.g. {_EXAMPLE}.")
        return schedule_free_refusal(trial, self.class_path) if optimizer.is_schedule_free else ""

    def _kind(self) -> Any:
        module_path, _, class_name = str(self.class_path).rpartition(".")
        try:
            return getattr(importlib.import_module(module_path), class_name)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigError(f"optimizer.class_path={self.class_path} can't be imported ({error}). Give the full path "
                              f"of a class of an installed package, e.g. {_EXAMPLE}.") from error
