"""Score LoRA files that are already there. `python evaluate.py --help` lists what can be set."""

from __future__ import annotations

import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from sweep.entry import past_hydra, run_guarded


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def main(cfg: DictConfig) -> None:
    """Rank the files of `lora=` and name one; with `sweep=`, score the trials of a sweep again."""
    from sweep.conductor.rescore import rescore
    from sweep.evaluation.standalone import evaluate, load

    with past_hydra():
        config = load(cfg)
        if config.sweep is not None:
            rescore(config.sweep, config.results_dir, HydraConfig.get().overrides.task)
        else:
            evaluate(config)


if __name__ == "__main__":
    sys.exit(run_guarded(main, "evaluate"))
