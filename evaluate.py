"""Score LoRA files that are already there. `python evaluate.py --help` lists what can be set."""

from __future__ import annotations

import sys

import hydra
from omegaconf import DictConfig

from sweep.entry import past_hydra, run_guarded


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def main(cfg: DictConfig) -> None:
    """Rank the files of `lora=` and name one."""
    from sweep.evaluation.standalone import evaluate, load

    with past_hydra():
        evaluate(load(cfg))


if __name__ == "__main__":
    sys.exit(run_guarded(main, "evaluate"))
