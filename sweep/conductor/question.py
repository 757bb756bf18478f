"""What a sweep's name stands for: the settings that all its trials share. Pure functions."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sweep.data.settings import OF_DRAWING
from sweep.errors import ConfigError, SweepExistsError
from sweep.evaluation.keys import known_by
from sweep.files import stable_hash
from sweep.methods import LORA
from sweep.preflight import Checked
from sweep.record.asked import PLACES
from sweep.record.entry import SweepEntry
from sweep.reg_images import reg_guidance_scale
from sweep.schema import flat, to_tree
from sweep.search.grid import Cells

NOT_ASKED = ("plan", "validate", "note", "use", "sweep", "pack", "launcher", "tracker", "search", "experiment",
             "early_stop")
"""Top-level keys that change no trial, so they may differ when a sweep goes on."""
FROM_FILES = {"thresholds_file": ("thresholds",),
              "prompt_file": ("prompts_version", "prompts", "class_prompts", "attributes")}
"""A user's own files under `scoring`, and what they stand in place of."""


def question_of(cells: Cells, first: Checked) -> dict[str, Any]:
    """The fixed settings that a sweep's name stands for: flat keys, the content of photos and base (not where they
    lie), and how it is scored, as one hash (the prompts are long)."""
    keys = flat({key: value for key, value in cells.fixed.items() if key not in (*NOT_ASKED, "scoring")})
    if keys.get("method.name") == LORA:  # a question of before there were methods is still the same
        keys = {key: value for key, value in keys.items() if not key.startswith("method.")}
    swept = {*cells.swept_keys, *(key.split(".")[0] for key in cells.swept_keys)}
    question = {key: value for key, value in keys.items()
                if key not in PLACES and key not in swept and key.split(".")[0] not in swept}
    if "dataset.reg_guidance_scale" in question:  # what null stands for: sweeps of before it was null stay the same
        question["dataset.reg_guidance_scale"] = reg_guidance_scale(cells.config.train)
    if not swept & {"dataset", "experiment"}:
        question["photos"] = first.dataset.content
    if not swept & {"base_model", "experiment"}:
        question["base"] = first.base_id
    scoring = {key: value for key, value in _scoring_of(cells).items()
               if key not in ("batch_size", "keep_images", "base_models") and (key, value) != ("thresholds_file", None)}
    question["scoring"] = f"{scoring['name']} {stable_hash(scoring, num_digits=6)}"
    return question


def _scoring_of(cells: Cells) -> dict[str, Any]:
    scoring = {**cells.fixed["scoring"], **_said_by_files(cells)}
    return known_by(scoring) if "prompts" in scoring else scoring


def _said_by_files(cells: Cells) -> dict[str, Any]:
    """What a user's own files say, as if it stood in the config; their names say nothing."""
    said: dict[str, Any] = {}
    for file, keys in FROM_FILES.items():
        if cells.fixed["scoring"].get(file) is not None:
            said |= {file: None, **{key: to_tree(getattr(cells.config.scoring, key)) for key in keys}}
    return said


_TAKEN = ("trials", "cache", "pocket")  # what else stands in results/


def checked_name(name: str | None) -> str | None:
    if name is not None and (not re.fullmatch(r"[\w][\w.-]*", name) or name in _TAKEN):
        raise ConfigError(f"sweep.name={name!r} can't be a folder of results: use letters, digits, '.', '_' and '-', "
                          f"and not one of {', '.join(_TAKEN)}.")
    return name


def check_results_dir(results_dir: Path) -> None:
    """Raises ConfigError if nothing can be written there."""
    for place in (results_dir.absolute(), *results_dir.absolute().parents):
        if place.exists():
            if not place.is_dir():
                raise ConfigError(f"sweep.results_dir={results_dir}: {place} is a file. Give a folder.")
            if hasattr(os, "statvfs") and os.statvfs(place).f_flag & os.ST_RDONLY:  # Windows has neither
                raise ConfigError(f"sweep.results_dir={results_dir}: {place} is on a read-only disk. "
                                  "Give another folder.")
            if not os.access(place, os.W_OK):
                raise ConfigError(f"sweep.results_dir={results_dir}: {place} can't be written to. Give another folder, "
                                  "or mend its permissions.")
            return


def default_name(swept_keys: Sequence[str], question: Mapping[str, Any]) -> str:
    """A slug of the swept keys and six digits of the question, so that more values extend the same sweep."""
    slug = "-".join(key.split(".")[-1].split("/")[-1] for key in swept_keys)[:60] or "trial"
    return f"{slug}-{stable_hash([sorted(swept_keys), question], num_digits=6)}"


def refuse_other_question(name: str, before: SweepEntry, now: SweepEntry, ignored: Sequence[str] = ()) -> None:
    """Raises SweepExistsError with the keys that differ, but for those of `ignored`."""
    drawing = {f"dataset.{key}" for key in OF_DRAWING}
    idle = drawing if not any(one.question.get("dataset.generate_reg") for one in (before, now)) else set()
    differing = sorted(key for key in {*before.question, *now.question} - idle - {*ignored}
                       if before.question.get(key) != now.question.get(key) and key not in before.swept_keys)
    lines = [f"{key}: {before.question.get(key)} there, {now.question.get(key)} here" for key in differing]
    if set(before.swept_keys) != set(now.swept_keys):
        lines.append(f"swept there: {', '.join(before.swept_keys) or 'nothing'}; here: "
                     f"{', '.join(now.swept_keys) or 'nothing'}")
    if lines:
        raise SweepExistsError(f"The sweep {name!r} stands for another question. What differs:\n  " + "\n  ".join(lines)
                               + "\nChoose another sweep.name, or repeat its settings to go on with it.")
