"""How rare the trigger is to the base's text encoder: its tokens, their place among the merges. Imports no torch.

CLIP's vocabulary is 256 bytes, the same at a word's end, and then one entry per merge, the most frequent pair first
(Sennrich et al. 2016): a word that is an entry of its own was frequent in the texts, the more so the smaller its
number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.data.check.findings import RARE_WORD, Finding
from sweep.errors import DataError
from sweep.files import read_json

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

_NUM_LETTERS, _NUM_MARKS = 512, 2  # bytes, inside and at the end of a word; begin and end of a text
_RARE_FROM = 0.8
"""Of the merges: a word learned among the last fifth is let pass."""
_FULL_VOCABULARY = 40_000
_END = "</w>"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The entries of a CLIP tokenizer by their number."""

    folder: Path
    ids: dict[str, int]

    @property
    def num_merges(self) -> int:
        return len(self.ids) - _NUM_LETTERS - _NUM_MARKS

    def merge_of(self, word: str) -> int | None:
        """Which merge, from 1, made a whole word one token; None if it falls into pieces, or is a single letter."""
        number = self.ids.get(word + _END, 0) - _NUM_LETTERS + 1
        return number if number > 0 else None

    def is_common(self, word: str) -> bool:
        """Whether a word is among the more frequent merges; of a small vocabulary all are."""
        merge = self.merge_of(word)
        if merge is None:
            return False
        return self.num_merges < _FULL_VOCABULARY or merge <= _RARE_FROM * self.num_merges

    def tokenizer(self) -> CLIPTokenizer:
        from transformers import CLIPTokenizer
        from transformers.utils import logging

        logging.set_verbosity_error()  # longer texts than the encoder reads are what is looked for here
        tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(self.folder)
        return tokenizer


def read_vocabulary(folder: Path) -> Vocabulary:
    """vocab.json of a tokenizer's folder. Raises DataError."""
    try:
        entries = read_json(folder / "vocab.json").items()
        return Vocabulary(folder, {str(token): int(number) for token, number in entries})
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{folder} holds no vocabulary of CLIP's (vocab.json): {error}") from error


def trigger_findings(trigger: str, vocabulary: Vocabulary) -> list[Finding]:
    """Whether the base's texts were full of it."""
    known = [word for word in _words(trigger) if vocabulary.is_common(word)]
    if not known:
        return []
    ranks = ", ".join(f"{word!r} is merge {vocabulary.merge_of(word):,} of {vocabulary.num_merges:,}" for word in known)
    what = "is a word of its own" if known == [trigger.lower()] else "holds words of their own"
    return [Finding(
        kind="common_trigger", topic="trigger", level="problem", advice=RARE_WORD,
        text=f"the trigger {trigger!r} {what} in the base's vocabulary ({ranks}; the smaller, the more frequent): what "
             "the base already means by it mixes with your subject. Take a meaningless one, say "
             f"{_rarer(trigger, vocabulary)!r}.")]


def token_note(trigger: str, vocabulary: Vocabulary) -> Finding:
    """Its tokens."""
    tokens = [token.removesuffix(_END) for token in vocabulary.tokenizer().tokenize(trigger)]
    return Finding(kind="trigger_tokens", topic="trigger", level="note",
                   text=f"the trigger {trigger!r} is {len(tokens)} token{'s' * (len(tokens) != 1)}: "
                        f"{' + '.join(tokens)}.")


def _rarer(trigger: str, vocabulary: Vocabulary) -> str:
    """A word made of the trigger that is none to the base: "alex" -> "alexq", "mona_taco" -> "monataco"."""
    stem = "".join(_words(trigger)) or "subj"
    return next((stem + end for end in ("", "q", "xq") if vocabulary.merge_of(stem + end) is None), stem + "zqx")


def _words(text: str) -> list[str]:
    """CLIP's tokenizer splits at what is neither letter nor digit, and each digit is a word."""
    return re.findall(r"[^\W\d_]+", text.lower())
