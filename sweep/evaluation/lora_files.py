"""Finding LoRA files and what they say of themselves, by their headers alone: no torch."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sweep.errors import AdapterFileError, ModelError
from sweep.model.header import Header, read_header
from sweep.network.file_kinds import kind_of

_EPOCH = re.compile(r"-(\d{6})$")  # sd-scripts: NAME-000004.safetensors
_STEP = re.compile(r"step(\d+)$")  # NAME-step00000500.safetensors


@dataclass(frozen=True, slots=True)
class FoundLora:
    """A LoRA file. epoch, step: 0 where neither its metadata nor its name tells. name: "" = its file's."""

    path: Path
    epoch: int
    step: int
    name: str = ""

    @property
    def called(self) -> str:
        return self.name or self.path.name


def find_loras(pattern: str) -> tuple[list[FoundLora], list[str]]:
    """The LoRA files of a path, a folder or a glob, in the order of their training; and what was skipped, in words.

    Raises AdapterFileError if nothing matches, or nothing that matches is a LoRA.
    """
    given = Path(pattern).expanduser()
    if given.is_file():
        paths = [given]
    elif given.is_dir():
        paths = sorted(given.glob("*.safetensors")) or sorted(given.rglob("*.safetensors"))
    else:
        paths = sorted(Path(p) for p in glob.glob(str(given), recursive=True)  # noqa: PTH207 - may be absolute
                       if Path(p).is_file())
    if not paths:
        raise AdapterFileError(f"lora={pattern} matches no file. Give a .safetensors file, a folder with such files, "
                               "or a pattern like 'loras/*.safetensors'.")
    found, problems = [], []
    for path in paths:
        try:
            found.append(_described(path, trained_header(path)))
        except AdapterFileError as error:
            problems.append(str(error))
    if not found:
        raise AdapterFileError(f"lora={pattern} matches no LoRA file:\n  " + "\n  ".join(problems[:10]))
    names = names_of([lora.path for lora in found])
    named = [replace(lora, name=name) for lora, name in zip(found, names, strict=True)]
    return sorted(named, key=lambda lora: (lora.step, lora.epoch, lora.path.name)), problems


def names_of(paths: Sequence[Path]) -> list[str]:
    """Their file names; where two are called alike, all with the folders that tell them apart."""
    names = [path.name for path in paths]
    if len(set(names)) == len(names):
        return names
    absolute = [path.absolute() for path in paths]
    common = Path(os.path.commonpath([path.parent for path in absolute]))
    return [path.relative_to(common).as_posix() for path in absolute]


def trained_header(path: Path) -> Header:
    """Of a file that holds what was trained.

    Raises AdapterFileError if the file is not whole safetensors, or is neither LoRA nor checkpoint nor embedding.
    """
    try:
        header = read_header(path)
    except (ModelError, OSError) as error:
        raise AdapterFileError(str(error)) from error
    if kind_of(header.shapes) is None:
        raise AdapterFileError(f"{path} holds no LoRA: no tensor is called like one of sd-scripts, LyCORIS, diffusers "
                               "or PEFT (*.lora_down.weight, *.hada_w1_a, *.lokr_w1, *.lora.down.weight, "
                               "*.lora_A.weight). Nor is it a whole checkpoint or an embedding.")
    return header


def _described(path: Path, header: Header) -> FoundLora:
    return FoundLora(path, epoch=_number(header.metadata.get("ss_epoch"), _EPOCH, path),
                     step=_number(header.metadata.get("ss_steps"), _STEP, path))


def _number(told: str | None, pattern: re.Pattern[str], path: Path) -> int:
    if told is not None and told.isdigit():
        return int(told)
    match = pattern.search(path.stem)
    return int(match[1]) if match else 0
