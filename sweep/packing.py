"""Which trials train together. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from sweep.files import stable_hash
from sweep.trial import Trial


def plan_packs(trials: Sequence[Trial], max_trials: int, earlier: Sequence[Sequence[str]] = (), *,
               num_workers: int = 1) -> list[list[Trial]]:
    """Split trials into packs of at most `max_trials`, in the order in which they should run.

    Trials of a pack agree on what one forward pass shares: the base, its precision, the resolution, how captions are
    read, gradient checkpointing. Inside a pack trials of one network, rank and optimizer stand together, so that the
    bank can stack them.
    earlier: packs (train ids) that were interrupted; their trials stay together, since a resume repeats them, unless
    they are more than `max_trials` now. A trial that several of them name goes with the largest.
    num_workers: fresh trials are shared out among so many, so that none is idle.
    """
    waiting = {trial.train_id: trial for trial in trials}
    groups: list[list[Trial]] = []
    for members in sorted(earlier, key=len, reverse=True):
        groups.append([waiting.pop(i) for i in members if i in waiting])
    fresh = sorted(waiting.values(), key=lambda trial: (_shared_key(trial), trial.number))
    packs: list[Sequence[Trial]] = [pack for group in groups for pack in _evenly(group, max_trials)]
    for _, group in groupby(fresh, key=_shared_key):
        alike = list(group)
        packs += _evenly(alike, min(max_trials, -(-len(alike) // num_workers)))
    return sorted((sorted(pack, key=_bank_order) for pack in packs), key=lambda pack: min(t.number for t in pack))


def _evenly(trials: Sequence[Trial], max_trials: int) -> list[Sequence[Trial]]:
    """Even packs rather than full ones and a rest: 9 trials at 8 run as 4 and 5."""
    num_packs = -(-len(trials) // max_trials)
    return [trials[i * len(trials) // num_packs:(i + 1) * len(trials) // num_packs] for i in range(num_packs)]


def pack_id(train_ids: Sequence[str]) -> str:
    """A pack is its members."""
    return stable_hash(sorted(train_ids), num_digits=8)


_SHARED = ("mixed_precision", "clip_skip", "max_token_length", "gradient_checkpointing")


def _shared_key(trial: Trial) -> str:
    config: Mapping[str, object] = trial.config
    return stable_hash([config["base_model"], *(config.get(key) for key in _SHARED)])


def _bank_order(trial: Trial) -> tuple[str, list[str], int, int, bool, bool, str, int, int]:
    """First what adapters must agree on to be stacked."""
    config = trial.config
    network = config["network"]
    options = sorted(f"{key}={value}" for key, value in network.items())
    return (network["name"], options, config["network_dim"], config["conv_dim"] or 0, config["unet_lr"] > 0,
            config["text_encoder_lr"] > 0, config["optimizer"]["name"], config["train_batch_size"], trial.number)
