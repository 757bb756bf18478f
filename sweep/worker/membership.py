"""Who shares a pack's pass from which update on: written before it takes effect, repeated by a resume (contract 2).

A change of membership may depend on time (a pruned trial, one that joins) or on memory, which no resume could work out
again. So each is a row of the `packs.jsonl` of every trial it concerns; between the newest save and the newest row, a
resume does what the rows say instead of deciding anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweep.files import append_jsonl, read_json, read_jsonl
from sweep.trial import Trial, TrialFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The membership of a pack from one step boundary on."""

    history: str  # tells the packs apart that a trial was in
    number: int  # counts a history's changes from 1
    after: int  # the change before it
    update: int  # updates made before it
    members: Mapping[str, int]  # steps by train id, in the bank's order
    waiting: Mapping[str, int] = field(default_factory=dict)  # who waits for a place, in their order; 0 = never started
    pruned: Mapping[str, str] = field(default_factory=dict)  # who was ended early here, and why
    max_trials: int | None = None  # places, where memory has made them fewer than asked for


def log_change(folders: Iterable[TrialFolder], change: Change, **facts: Any) -> None:
    """Write a change into the logs of those that it concerns, with facts about the machine."""
    row = {"history": change.history, "change": change.number, "after": change.after, "update": change.update,
           "members": dict(change.members), "waiting": dict(change.waiting), "pruned": dict(change.pruned),
           "max_trials": change.max_trials, **facts}
    for folder in folders:
        append_jsonl(folder.packs, {**row, "step": change.members.get(folder.root.name)})


def read_changes(folders: Iterable[TrialFolder], history: str) -> dict[int, Change]:
    """All changes of a history by number, also those that were taken back."""
    rows = {row["change"]: row for folder in folders for row in read_jsonl(folder.packs)
            if row.get("history") == history}
    return {number: Change(history=history, number=number, after=row["after"], update=row["update"],
                           members=row["members"], waiting=row["waiting"], pruned=row["pruned"],
                           max_trials=row["max_trials"]) for number, row in rows.items()}


def changes_after(changes: Mapping[int, Change], number: int) -> list[Change]:
    """What followed a change, up to the newest one, oldest first. Where memory ran out, the pack went on from its last
    save: then the newest change follows that save's, and those between are void."""
    path: list[Change] = []
    at = max(changes, default=number)
    while at > number and at in changes:
        path.insert(0, changes[at])
        at = changes[at].after
    return path if at == number else []


def prune_reason(folder: TrialFolder) -> str:
    """Why the conductor wants a trial ended, in a sentence; empty if it does not."""
    try:
        tree = read_json(folder.prune)
    except (FileNotFoundError, ValueError):  # not asked, or asked this very moment
        return ""
    return f"{tree.get('reason', 'no reason given')} ({tree.get('by', 'by hand')})"


def joining_trials(path: Path, known: Sequence[str]) -> list[Trial]:
    """Trials that the conductor has added since: those of `<spec>.more.jsonl` that are not `known` (train ids)."""
    found = {row["trial"]["train_id"]: Trial(**row["trial"]) for row in read_jsonl(path)}
    return [trial for train_id, trial in found.items() if train_id not in known]
