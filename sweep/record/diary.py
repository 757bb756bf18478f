"""diary.md: what was asked, which file to use, what came out of each trial and what it cost; and all sweeps' entries
in results/DIARY.md. Written from the record alone, so that it can be rebuilt at any time."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sweep.errors import ConfigError
from sweep.files import write_text
from sweep.record.asked import are_photos_varied, asked, bases_of, brought, settings_of
from sweep.record.best import choices_of
from sweep.record.card import PUBLISH
from sweep.record.cost import cost_words, costs, saved_words
from sweep.record.entry import SweepEntry, read_entry
from sweep.record.figures import FIGURES, values_of
from sweep.record.notes import read_notes
from sweep.record.report import REPORT
from sweep.record.sentences import (
    answer_sentence,
    figure,
    lessons_of,
    results_sentence,
    use_sentence,
    value_text,
)
from sweep.record.sweep_log import SWEEP_LOG
from sweep.trial import DONE, TrialResult, trial_folder

VIEWS = {f"{PUBLISH}/samples.png": f"![The images that the first file was measured on]({PUBLISH}/samples.png)",
         REPORT: f"[All images beside their training photos, and every figure]({REPORT})",
         f"{PUBLISH}/README.md": f"[The first file with its card, to hand on]({PUBLISH}/README.md)"}
"""What the diary links, by its place in the sweep's folder."""


def write_diary(sweep_dir: Path, sweep: SweepEntry, results: Sequence[TrialResult],
                lessons: Sequence[str] | None = None) -> Path:
    """Write `results/<sweep>/diary.md` atomically and return its path. lessons: what was learned; None = from pairs."""
    path = sweep_dir / "diary.md"
    notes = {result.trial.train_id: read_notes(trial_folder(sweep_dir.parent, result.trial.train_id).root)
             for result in results}
    write_text(path, diary_text(sweep, results, has_log=(sweep_dir / SWEEP_LOG).exists(),
                                results_dir=sweep_dir.parent.as_posix(), notes={"": read_notes(sweep_dir), **notes},
                                lessons=lessons, cost=cost_words(costs(results, sweep_dir.parent)),
                                views=[view for view in VIEWS if (sweep_dir / view).exists()]))
    return path


def diary_text(sweep: SweepEntry, results: Sequence[TrialResult], *, has_log: bool = False,
               results_dir: str = "results", notes: Mapping[str, Sequence[str]] | None = None,
               lessons: Sequence[str] | None = None, cost: str = "", views: Sequence[str] = ()) -> str:
    """The diary in Markdown. What stands before the first `##` is the sweep's entry in the collected diary.

    notes: the users' own, by train_id, "" = the sweep's. cost: of each stage, in words; empty = without the anchors.
    views: those of VIEWS that stand beside it, to be linked.
    """
    notes = notes or {}
    parts = [f"# {sweep.name}", answer_sentence(sweep, results, results_dir), *(VIEWS[view] for view in views)]
    incomplete = sum(r.status != DONE for r in results)
    if incomplete:
        parts.append(f"{incomplete} of {len(results)} trials did not finish; each says why below.")
    parts.append(_table(sweep, results))
    parts += [_quoted(text) for text in filter(None, [sweep.note, *notes.get("", ())])]
    parts.append("## What was asked\n" + _question(sweep, results))
    parts.append("## Trials")
    settings = settings_of(sweep, results)
    keys = (*sweep.swept_keys, *brought(sweep, results))
    values = [tuple(repr(one.get(key)) for key in keys) for one in settings]
    for i, result in enumerate(results):
        nearest = _nearest(values, i)
        like = None if nearest is None else (results[nearest].trial.number, settings[nearest])
        parts.append(_trial(result, _settings(settings[i], like)))
        parts += [_quoted(text) for text in notes.get(result.trial.train_id, ())]
    lessons = lessons_of(sweep, results) if lessons is None else lessons
    if lessons:
        parts.append("## What was learned\nAll trials were scored on the same cells; these are differences of their "
                     "figures.\n\n" + "\n".join(f"- {lesson}" for lesson in lessons))
    if saved := saved_words(results):
        parts.append(saved)
    if any(result.scores for result in results):
        parts.append(f"What it cost: {cost or cost_words(costs(results))}.")
    if has_log:
        parts.append(f"What was skipped or went wrong on the way: [{SWEEP_LOG}]({SWEEP_LOG}).")
    return "\n\n".join(parts) + "\n"


def write_collected(results_dir: Path) -> Path:
    """Write `results/DIARY.md`, one entry per sweep, newest first, from each sweep's sweep.yaml and diary.md.

    A sweep whose sweep.yaml can't be read is named at the end with the reason.
    """
    entries: list[tuple[str, str]] = []
    unreadable: list[str] = []
    for sweep_yaml in sorted(results_dir.glob("*/sweep.yaml")):
        diary = sweep_yaml.with_name("diary.md")
        try:
            entry = read_entry(sweep_yaml)
        except ConfigError as error:
            unreadable.append(f"- {' '.join(str(error).split())}")
            continue
        body = diary.read_text(encoding="utf-8") if diary.exists() else f"# {entry.name}\n\nNo diary yet.\n"
        entries.append((entry.started, _collected_entry(entry, body, sweep_yaml.parent.name)))
    entries.sort(key=lambda item: item[0], reverse=True)
    parts = ["# Diary", "One entry per sweep, newest first; written by the program.", *(text for _, text in entries)]
    if unreadable:
        parts.append("## Left out\n" + "\n".join(unreadable))
    path = results_dir / "DIARY.md"
    write_text(path, "\n\n".join(parts) + "\n")
    return path


def _collected_entry(entry: SweepEntry, diary: str, folder: str) -> str:
    title, _, rest = diary.split("\n## ", 1)[0].partition("\n")
    for view in VIEWS:  # seen from the folder above
        rest = rest.replace(f"]({view})", f"]({folder}/{view})")
    return (f"#{title}\n\n{entry.started}, {entry.base_model}, {entry.num_photos} photos, {entry.hardware}. "
            f"[Whole diary]({folder}/diary.md)\n\n{rest.strip()}")


def _table(sweep: SweepEntry, results: Sequence[TrialResult]) -> str:
    header = ["trial", *sweep.swept_keys, "steps", "likeness", "adherence", "memorisation", "bleed", "usefulness",
              "verdict", "file", "strength", "minutes"]
    rows = [header, ["---"] * len(header)]
    for result, choice in zip(results, choices_of(results), strict=True):
        answer = result.answer
        figures = dict(zip(FIGURES, values_of(answer.score if answer else None), strict=True))
        number = f"{result.trial.number} ({choice})" if choice else str(result.trial.number)
        rows.append([
            number, *(value_text(result.trial.settings.get(key)) for key in sweep.swept_keys), str(result.step),
            *(_short(figures[name]) for name in ("likeness", "adherence", "memorisation", "bleed")),
            figure(answer.score.axes.get("usefulness")) if answer else "",
            answer.score.verdict if answer else result.status,
            answer.file if answer else "", answer.at if answer else "", f"{result.attributed_s / 60:.1f}",
        ])
    return "\n".join("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows)


def _question(sweep: SweepEntry, results: Sequence[TrialResult]) -> str:
    along = brought(sweep, results)
    lines = [f"base_model = {bases_of(sweep, results)}"]
    lines += [f"images = {sweep.dataset}" if are_photos_varied(sweep, results) else
              f"images = {sweep.num_photos} ({sweep.dataset})"]
    lines += [", ".join(f"{key} = {value_text(value)}" for key, value in asked(sweep, results).items())]
    lines += ["what is not named is off, plays no part here, or is the default that conf/ gives for null"]
    lines += [f"swept: {', '.join(sweep.swept_keys) or 'nothing, one trial'}"
              + (f"; with it differ {', '.join(along)}" if along else "")]
    versions = ", ".join(f"{name} {version}" for name, version in sweep.versions.items())
    lines += [f"`{sweep.command}`", f"started {sweep.started} on {sweep.hardware}"]
    lines += [f"commit {sweep.commit or 'unknown'}; {versions}" if versions else f"commit {sweep.commit or 'unknown'}"]
    return "\n".join(f"- {line}" for line in lines)


def _trial(result: TrialResult, settings: Sequence[str]) -> str:
    lines = [f"**Trial {result.trial.number}** ({result.trial.train_id})", *settings, f"total_steps = {result.step}"]
    checkpoints = [s for s in result.scores if s.stage == "screen"]
    if len(checkpoints) > 1:
        by_epoch = len({s.epoch for s in checkpoints}) == len(checkpoints)
        # where a screen draws no class prompts, what leaks into the class lowers the answer's usefulness, not these
        before = "" if any("bleed" in s.details for s in checkpoints) else ", before bleed"
        by_what = f"{'Epoch by epoch' if by_epoch else 'Step by step'}{before}"
        lines.append(f"{by_what}: " + ", ".join(
            f"{s.epoch if by_epoch else s.step}: {_short(s.axes['usefulness'].value) or '?'} {s.verdict}"
            for s in checkpoints if "usefulness" in s.axes))
    lines.append(f"Results: {results_sentence(result)}")
    if result.answer is not None:
        lines.append(f"Use: {use_sentence(result.answer)}")
    stages = f": {cost_words(costs([result]))}" if result.scores else ""
    lines.append(f"Cost: {result.attributed_s / 60:.1f} minutes, its share of the packs it was in{stages}.")
    return "  \n".join(lines)  # two spaces break a line in Markdown


def _nearest(settings: Sequence[tuple[str, ...]], position: int) -> int | None:
    """The first of the earlier trials that differ in least; None if there is none."""
    mine, found, least = settings[position], None, math.inf
    for i in range(position):
        num_differing = sum(map(operator.ne, settings[i], mine))
        if num_differing < least:
            found, least = i, num_differing
            if least <= 1:  # equal ones are one trial
                break
    return found


def _settings(mine: Mapping[str, Any], like: tuple[int, Mapping[str, Any]] | None) -> list[str]:
    """As people write it: "same as trial 3 but with unet_lr = 1e-3". like: the number and the settings of the earlier
    trial that differs in least. The first one, and one that differs in most of its settings, in full."""
    def shown(keys: Iterable[str]) -> list[str]:
        return [f"{key} = {value_text(mine[key])}" for key in keys]

    if like is None:
        return shown(mine)
    number, other = like
    differing = [key for key in mine if repr(other.get(key)) != repr(mine[key])]
    if len(differing) > max(1, len(mine) // 2):
        return shown(mine)
    return [f"same as trial {number} but with {', '.join(shown(differing))}"]


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}" for line in text.splitlines())


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
