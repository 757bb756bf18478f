"""Keys and passwords stay out of the record: command lines and errors are blacked out before they are kept."""

from __future__ import annotations

import os
import re

MASK = "***"
_IN_ADDRESS = re.compile(r"(\w+://[^/\s:@]*:)[^/\s@]+@")
_NAMED = re.compile(r"((?:api_?key|token|password|passwd|secret)\w*\s*[=:]\s*)(['\"]?)[^\s'\",&]+", re.IGNORECASE)
_KEPT = re.compile(r"(?:keep_tokens|max_token_length)\w*\s*[=:]", re.IGNORECASE)
_VARIABLES = ("WANDB_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "PGPASSWORD", "AWS_SECRET_ACCESS_KEY",
              "OPTUNA_STORAGE_PASSWORD")
_MIN_CHARS = 6  # a shorter value would black out ordinary words


def without_secrets(text: str) -> str:
    """The text without passwords in addresses, values of keys and tokens, and values of the environment's own."""
    for name in _VARIABLES:
        value = os.environ.get(name, "")
        if len(value) >= _MIN_CHARS:
            text = text.replace(value, MASK)
    text = _IN_ADDRESS.sub(rf"\g<1>{MASK}@", text)
    return " ".join(word if _KEPT.search(word) else _NAMED.sub(rf"\g<1>{MASK}", word) for word in text.split(" "))
