"""Files of whatever method: read the one way that their kind has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sweep.errors import AdapterFileError
from sweep.network.checkpoint_file import read_checkpoint_file
from sweep.network.embedding_file import read_embedding_file
from sweep.network.file_kinds import kind_of
from sweep.network.lora_file import LoraFile, read_lora, read_tensors
from sweep.network.targets import ADAPTED_KINDS, Target


def read_trained(path: Path, targets: Sequence[Target]) -> LoraFile:
    """A LoRA of any form, a whole checkpoint, or an embedding, for a base's layers (`find_layers`).

    Raises AdapterFileError if the file is none of these, or does not fit the base.
    """
    tensors, metadata = read_tensors(path)
    kind = kind_of({name: tensor.shape for name, tensor in tensors.items()})
    if kind in ("checkpoint", "embedding") and not any(target.kind == "tokens" for target in targets):
        raise AdapterFileError(f"{path} is a whole {kind}; here only LoRA files can be used.")
    if kind == "checkpoint":
        return read_checkpoint_file(path, tensors, metadata, targets)
    if kind == "embedding":
        return read_embedding_file(path, tensors, metadata, targets)
    return read_lora(path, [target for target in targets if target.kind in ADAPTED_KINDS])
