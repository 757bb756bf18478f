"""What a safetensors file holds, read from its header alone: names, shapes, metadata, in milliseconds, without torch.

Layout: 8 bytes with the header's length (little-endian), the header as JSON, the tensors' bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sweep.errors import ModelError

_LONGEST_HEADER = 100_000_000  # bytes; safetensors' own limit


@dataclass(frozen=True, slots=True)
class Header:
    """The tensors' shapes by name, and the file's metadata."""

    shapes: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, str]


def read_header(path: Path) -> Header:
    """The header of a file that is whole.

    Raises ModelError for a file that is missing, truncated or no safetensors, and says what it is instead.
    """
    if not path.is_file():
        raise ModelError(f"{path} does not exist.")
    num_bytes = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if instead := _something_else(start + file.read(56)):
            raise ModelError(f"{path} is no safetensors file: {instead}")
        length = int.from_bytes(start, "little")
        if num_bytes < 8 or length > _LONGEST_HEADER or 8 + length > num_bytes:
            raise ModelError(f"{path} is truncated or no safetensors file: it has {num_bytes:,} bytes, which do not "
                             "even hold its header. Get it again.")
        file.seek(8)
        text = file.read(length)
    try:
        tree = json.loads(text)
        metadata = tree.pop("__metadata__", {})
        shapes = {str(name): tuple(int(size) for size in entry["shape"]) for name, entry in tree.items()}
        expected = 8 + length + max((int(entry["data_offsets"][1]) for entry in tree.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is damaged: its safetensors header can't be read ({error}). Get it again.") from error
    if num_bytes < expected:
        raise ModelError(f"{path} is truncated: it has {num_bytes:,} of {expected:,} bytes. Get it again.")
    return Header(shapes, {str(key): str(value) for key, value in metadata.items()})


def _something_else(first_bytes: bytes) -> str:
    """What a file is that begins so, if it is one of the usual mistakes."""
    if not first_bytes:
        return "it is empty. Get it again."
    if first_bytes[8:9] == b"{":
        return ""  # a header, whatever its length's bytes look like
    if first_bytes.startswith(b"PK\x03\x04") or first_bytes[:1] == b"\x80":
        return ("it is pickled, as .ckpt, .pt and .bin files are, under another name. A pickle can run code when it is "
                "read. Get the model as safetensors; a checkpoint can also be renamed to .ckpt: then only plain "
                "tensors are read from it.")
    if first_bytes.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the file itself. Run `git lfs pull`, or get the file with `hf download`."
    if first_bytes.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "it is a web page, probably the site's login page. Get the file again while logged in."
    return ""
