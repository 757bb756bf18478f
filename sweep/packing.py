"""Which trials train together. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from sweep.files import stable_hash
from sweep.trial import Trial


def plan_packs(trials: Sequence[Trial], max_trials: int,
               earlier: Sequence[Sequence[str]] = ()) -> list[list[Trial]]:
    """Split trials into packs of at most `max_trials`, in the order in which they should run.

    Trials of a pack agree on what one forward pass shares: the base, its precision, the resolution. Inside a pack
    trials of one rank and optimizer stand together, so that the bank can stack them.
    earlier: packs (train ids) that have begun before; their trials stay together, since a resume must repeat them.
    """
    by_id = {trial.train_id: trial for trial in trials}
    packs = [[by_id[i] for i in members if i in by_id] for members in earlier]
    begun = {trial.train_id for pack in packs for trial in pack}
    fresh = [trial for trial in trials if trial.train_id not in begun]
    for _, group in groupby(sorted(fresh, key=lambda t: (_shared_key(t), t.number)), key=_shared_key):
        members = list(group)
        # even packs rather than full ones and a rest: 9 trials at 8 run as 5 and 4
        num_packs = -(-len(members) // max_trials)
        for i in range(num_packs):
            chunk = members[i * len(members) // num_packs:(i + 1) * len(members) // num_packs]
            packs.append(chunk)
    packs = [sorted(pack, key=_bank_order) for pack in packs if pack]
    return sorted(packs, key=lambda pack: min(trial.number for trial in pack))


def pack_id(train_ids: Sequence[str]) -> str:
    """A pack is its members."""
    return stable_hash(sorted(train_ids), num_digits=8)


def _shared_key(trial: Trial) -> str:
    config: Mapping[str, object] = trial.config
    return stable_hash([config["base_model"], config["mixed_precision"]])


def _bank_order(trial: Trial) -> tuple[int, str, int, int]:
    config = trial.config
    return config["network_dim"], config["optimizer"]["name"], config["train_batch_size"], trial.number
