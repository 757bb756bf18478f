"""Where a captioning model lies: a folder, or the hub's cache, which is filled only when asked to. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sweep.errors import ModelError


def model_folder(given: str, needed: Sequence[str], *, download: bool, example: str) -> Path:
    """The folder with all `needed` files.

    given: a folder or a hub id. example: a hub id of the kind, for messages.
    Raises ModelError naming what is missing.
    """
    path = Path(given).expanduser()
    folder = path if path.is_dir() else _from_hub(given, needed, download=download, example=example)
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        pickled = sorted(file.name for file in folder.glob("*.bin"))
        hint = f" Its {pickled[0]} is pickled and is not read." if pickled else ""
        raise ModelError(f"{folder} lacks {', '.join(missing)}.{hint} Give a folder of the kind of {example}.")
    return folder


def _from_hub(name: str, needed: Sequence[str], *, download: bool, example: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=not download,
                                      allow_patterns=[*needed, "*.json", "*.txt"]))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        raise ModelError(f"{name} is neither a folder nor in the hub's cache, and nothing is downloaded unasked. Get "
                         f"it with `hf download {name}`, or say --download; a usual one is {example}.") from error
    except Exception as error:  # the hub's client raises its transport's own errors too
        raise ModelError(f"{name} could not be downloaded: {error}") from error
