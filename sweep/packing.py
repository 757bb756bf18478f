"""Which trials train together. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from sweep.files import stable_hash
from sweep.methods import LORA, method_of
from sweep.trial import Trial

MOST_TRIALS = 32
"""Where pack.max_trials leaves it to the memory: more hardly gain, and a sweep's first answers come later."""


def plan_packs(trials: Sequence[Trial], earlier: Sequence[Sequence[str]] = (), *, num_workers: int = 1,
               max_length: int | None = None,
               num_scored: Mapping[str, int] | None = None) -> list[list[Trial]]:
    """Split trials into packs, in the order in which they come.

    Trials of a pack agree on what one forward pass shares: the base, its precision, the resolution, how captions are
    read, gradient checkpointing; and on the method, since a trial with weights of its own takes a base's memory. A pack
    may be longer than it has places: the first trials start, the others wait until one is free; the worker sorts those
    that share a pass by `bank_order`.
    earlier: packs (train ids, those with a place first) that were interrupted; their trials stay together and in their
    order, since a resume repeats them. A trial that several of them name goes with the largest.
    num_workers: trials are shared out among so many packs at least, so that no worker is idle.
    max_length: more trials than this for each worker are shared out in several rounds, since a worker opens all trials
    of its pack, and its conductor looks at all of them. None = one round.
    num_scored: checkpoints that are scored, by train_id, as that is work too. None = none are.
    """
    waiting = {trial.train_id: trial for trial in trials}
    packs: list[list[Trial]] = []
    for members in sorted(earlier, key=len, reverse=True):
        packs.append([waiting.pop(i) for i in members if i in waiting])
    packs = [pack for pack in packs if pack]
    rank = {trial.train_id: position for position, trial in enumerate(trials)}
    fresh = sorted(waiting.values(), key=lambda trial: (_shared_key(trial), rank[trial.train_id]))
    for _, group in groupby(fresh, key=_shared_key):
        alike = list(group)
        length = num_workers * max_length if max_length else len(alike)
        for start in range(0, len(alike), length):
            packs += [sorted(part, key=lambda trial: rank[trial.train_id])
                      for part in _shared_out(alike[start:start + length], num_workers, num_scored or {})]
    return sorted(packs, key=lambda pack: min(rank[trial.train_id] for trial in pack))


def _shared_out(trials: Sequence[Trial], num_parts: int, num_scored: Mapping[str, int]) -> list[list[Trial]]:
    """Parts of about equal work, none empty. Adapters of one structure stay together as far as that allows: stacked
    they cost less than side by side."""
    costs = {trial.train_id: trial.num_steps * _step_cost(trial) + _CHECKPOINT_COST * num_scored.get(trial.train_id, 0)
             for trial in trials}
    waiting = sorted(trials, key=lambda trial: (-_step_cost(trial), _structure(trial), -trial.num_steps), reverse=True)
    num_parts = min(num_parts, len(trials))
    parts: list[list[Trial]] = []
    while waiting:
        to_come = num_parts - len(parts) - 1
        share = sum(costs[trial.train_id] for trial in waiting) / (to_come + 1)
        part, load = [waiting.pop()], 0.0
        load += costs[part[0].train_id]
        while len(waiting) > to_come and load + costs[waiting[-1].train_id] / 2 <= share:
            part.append(waiting.pop())
            load += costs[part[-1].train_id]
        parts.append(part)
    return parts


_DOUBLING_DIM = 100
"""At about this rank an adapter costs a pass as much as the frozen base does (counted on the pocket base)."""

_CHECKPOINT_COST = 200.0
"""Screening a checkpoint and its share of refining and confirming take about as long as so many steps of the frozen
base alone, whatever the rank (timed on the pocket base with six checkpoints a trial)."""


def _step_cost(trial: Trial) -> float:
    """Of one step, relative to the base's share of it."""
    rows = int(trial.config["train_batch_size"]) * int(trial.config.get("gradient_accumulation_steps", 1))
    if method_of(trial.config)["name"] != LORA:
        return float(rows)
    return rows * (1 + int(trial.config["network_dim"]) / _DOUBLING_DIM)


def places(pack: Sequence[Trial], max_trials: int | None) -> int | None:
    """How many of a pack share a pass. Of trials of one length as many in each round: 9 at 8 run as 5 and 4. None = as
    many as memory holds, up to MOST_TRIALS."""
    if max_trials is None or len({trial.num_steps for trial in pack}) > 1:
        return max_trials
    num_rounds = -(-len(pack) // max_trials)
    return -(-len(pack) // num_rounds)


def can_share(one: Trial, other: Trial) -> bool:
    """Whether two trials agree on what a forward pass shares."""
    return _shared_key(one) == _shared_key(other)


def pack_id(train_ids: Sequence[str]) -> str:
    """A pack is its members."""
    return stable_hash(sorted(train_ids), num_digits=8)


_SHARED = ("mixed_precision", "clip_skip", "max_token_length", "gradient_checkpointing")


def _shared_key(trial: Trial) -> str:
    config: Mapping[str, object] = trial.config
    return stable_hash([config["base_model"], method_of(config)["name"], *(config.get(key) for key in _SHARED)])


def bank_order(trial: Trial) -> tuple[object, ...]:
    """First what adapters must agree on to be stacked."""
    return (*_structure(trial), trial.config["optimizer"]["name"], trial.config["train_batch_size"], trial.number)


def _structure(trial: Trial) -> tuple[str, list[str], int, int, bool, bool]:
    """What adapters must agree on to be stacked."""
    config = trial.config
    method, network = method_of(config), config["network"]
    options = sorted(f"{key}={value}" for key, value in (method if method["name"] != LORA else network).items())
    return (network["name"], options, config["network_dim"], config["conv_dim"] or 0, config["unet_lr"] > 0,
            config["text_encoder_lr"] > 0)
