"""`use.copy_to=FOLDER`: the chosen file where A1111 (models/Lora) or ComfyUI (models/loras) looks for it; a whole
checkpoint and an embedding have folders of their own there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sweep.errors import ConfigError
from sweep.files import sha256_of, write_json
from sweep.record.card import base_of, chosen, copy_file, file_of, how_picked, sheet_of
from sweep.record.facts import Record

_VERSIONS = {"sd15": "SD1", "sd2": "SD2", "sdxl": "SDXL"}


@dataclass(frozen=True, slots=True, kw_only=True)
class UseConfig:
    """What happens to the chosen file."""

    copy_to: str | None
    # an existing folder; null = the file stays where it is


def check_use(config: UseConfig) -> None:
    """Before anything is trained. Raises ConfigError if the folder isn't there."""
    if config.copy_to is not None and not Path(config.copy_to).expanduser().is_dir():
        raise ConfigError(f"use.copy_to={config.copy_to} is no folder. Name the one that your program reads, e.g. "
                          "stable-diffusion-webui/models/Lora or ComfyUI/models/loras, or leave it out.")


def copy_chosen(config: UseConfig, record: Record) -> Path | None:
    """Copy the chosen file, with the trigger and the strength beside it as A1111 reads them (NAME.json, NAME.png).

    Returns where it lies; None if nothing was asked for or chosen. Raises ConfigError rather than replace another file.
    """
    result = chosen(record)
    if config.copy_to is None or result is None or result.answer is None:
        return None
    folder, source = Path(config.copy_to).expanduser(), file_of(record, result)
    target = folder / source.name
    if target.exists() and sha256_of(target) != sha256_of(source):
        raise ConfigError(f"{target} is another file of the same name and was not replaced; the chosen one is "
                          f"{source}.")
    copy_file(source, target)
    guidance = result.answer.guidance_scale
    details = {"description": f"LoRA Sweep {record.entry.name}: {result.answer.score.verdict}",
               "sd version": _VERSIONS.get(base_of(result), "Other"),
               "activation text": record.entry.subject_words, "preferred weight": result.answer.strength,
               "notes": how_picked(record) + ("" if guidance is None else f" Guidance {guidance:g}.")}
    if result.answer.kind == "lora" and not target.with_suffix(".json").exists():  # its user may have edited it
        write_json(target.with_suffix(".json"), details)
    sheet = sheet_of(record, result)
    if sheet is not None and not target.with_suffix(".png").exists():
        _write_preview(sheet, target.with_suffix(".png"))
    return target


def _write_preview(sheet: Path, target: Path) -> None:
    """The first of the scored images."""
    import json

    from PIL import Image

    with Image.open(sheet) as image:
        image.load()
        cells = json.loads(getattr(image, "text", {}).get("cells", "[]"))
        if cells:
            image.crop(tuple(cells[0]["box"])).save(target)
