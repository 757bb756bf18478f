"""Train and score LoRAs: one, or a sweep of them. `python train.py --help` lists what can be set."""

from __future__ import annotations

import sys

import hydra
from omegaconf import DictConfig

from sweep.entry import past_hydra, run_guarded


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> None:
    """A single trial; `-m` goes to the conductor through hydra_plugins/lora_sweep."""
    from sweep.conductor.conduct import conduct
    from sweep.search.grid import one_cell

    with past_hydra():
        conduct(one_cell(cfg))


if __name__ == "__main__":
    sys.exit(run_guarded(main, "config"))
