"""Writing files so that a kill at any moment leaves the old one or the new one, never half of one."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

_T = TypeVar("_T")
_WAITS_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)  # a reader holds a small file for milliseconds


def patiently(act: Callable[[], _T]) -> _T:
    """What `act` returns, tried again for 0.8 s while it raises PermissionError: Windows refuses to replace or rename
    what another process has open, and to open what is being replaced."""
    for wait_s in _WAITS_S:
        try:
            return act()
        except PermissionError:
            time.sleep(wait_s)
    return act()


def write_bytes(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Replace `path` atomically; its folder is made if it is missing.

    durable: also survive a power cut, which costs a flush to the disk; a kill is survived either way.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    patiently(lambda: temporary.replace(path))


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    write_bytes(path, text.encode(), durable=durable)


def write_json(path: Path, tree: Any, *, durable: bool = True) -> None:
    write_text(path, json.dumps(tree, indent=1, allow_nan=False) + "\n", durable=durable)


def read_json(path: Path) -> Any:
    return json.loads(patiently(lambda: path.read_text(encoding="utf-8")))


def append_jsonl(path: Path, row: Mapping[str, Any]) -> None:
    """Add one row. A row that a kill cut short stays a line of its own, which readers drop."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(row, allow_nan=False).encode() + b"\n")


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The whole rows of a JSONL file; nothing if it does not exist."""
    if not path.exists():
        return
    with patiently(lambda: path.open(encoding="utf-8")) as file:
        for line in file:
            if not line.endswith("\n"):
                return  # the writer was killed inside this row, or is writing it now
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                continue


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stable_hash(tree: Any, *, num_digits: int = 12) -> str:
    """The first hex digits of the SHA-256 of a tree's canonical JSON."""
    canonical = json.dumps(tree, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:num_digits]
