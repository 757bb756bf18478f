"""Keys and passwords stay out of the record: command lines, errors and notes are blacked out before they are kept."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from urllib.parse import unquote

MASK = "***"
_NAME = r"[\w.@/+~-]*(?:api_?key|(?:access|secret)_?key|token|password|passwd|secret)"
# up to the last @, as a password may hold one, and slashes too
_IN_ADDRESS = re.compile(r"(\w://[^/\s:@]*:)(\S+)@")
_NAMED = re.compile(rf"({_NAME}['\"]?[ \t]*[=:][ \t]*)(?:'[^']*'|\"[^\"]*\"|[^\s'\",&]+)", re.IGNORECASE)
_ARGUMENT = re.compile(rf"({_NAME}=).+", re.IGNORECASE | re.DOTALL)
_BARE = re.compile(r"\b(?:hf_[A-Za-z0-9]{8,}|wandb_v1_\w{8,})|(?<=\bbearer )[^\s'\"]+", re.IGNORECASE)
_VARIABLES = ("WANDB_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "PGPASSWORD", "AWS_SECRET_ACCESS_KEY",
              "OPTUNA_STORAGE_PASSWORD")
_STORAGE = "LORA_SWEEP_STORAGE"  # an address with a password
_MIN_CHARS = 6  # a shorter value would black out ordinary words


def without_secrets(text: str) -> str:
    """The text without passwords in addresses, values of keys and tokens, tokens that are known by their form, and the
    environment's own."""
    for value in _of_environment():
        text = text.replace(value, MASK)
    text = _IN_ADDRESS.sub(rf"\g<1>{MASK}@", text)
    return _NAMED.sub(rf"\g<1>{MASK}", _BARE.sub(MASK, text))


def command_without_secrets(arguments: Sequence[str]) -> str:
    """A command line to paste into a shell, each argument without its secrets: one may hold spaces and quotes."""
    return shlex.join(_ARGUMENT.sub(rf"\g<1>{MASK}", argument) if _ARGUMENT.fullmatch(argument)
                      else without_secrets(argument) for argument in arguments)


def _of_environment() -> list[str]:
    values = [os.environ.get(name, "") for name in _VARIABLES]
    storage = _IN_ADDRESS.search(os.environ.get(_STORAGE, ""))
    if storage is not None:
        values += [storage[2], unquote(storage[2])]
    return [value for value in values if len(value) >= _MIN_CHARS]
