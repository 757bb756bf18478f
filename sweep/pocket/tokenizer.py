"""The CLIP byte-pair tokenizer of the pocket base, trained on the words of its captions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.pocket.captions import vocabulary_corpus

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

MAX_LENGTH = 77
START, END = "<|startoftext|>", "<|endoftext|>"
NUM_ENTRIES = 1024


def train_tokenizer() -> CLIPTokenizer:
    """A CLIPTokenizer whose merges make each caption word one token and leave other words in letters.

    As in CLIP the vocabulary starts with all 256 bytes, plain and at a word's end, so any text has tokens.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    # The letters alone are enough here: CLIP's own pre-tokenizer is put in front by CLIPTokenizer.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=NUM_ENTRIES,
        min_frequency=10,
        show_progress=False,
        end_of_word_suffix="</w>",
        initial_alphabet=letters,
    )
    tokenizer.train_from_iterator((_unhyphenated(text) for text in vocabulary_corpus()), trainer)
    merges = [tuple(pair) for pair in _merges(tokenizer)]
    vocab = {token: index for index, token in enumerate(letters + [letter + "</w>" for letter in letters])}
    for left, right in merges:
        vocab.setdefault(left + right, len(vocab))
    vocab[START] = len(vocab)
    vocab[END] = len(vocab)
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=MAX_LENGTH)


def _unhyphenated(text: str) -> str:
    """CLIP's pre-tokenizer splits at hyphens, so the merges must not cross one."""
    return text.lower().replace("-", " - ")


def _merges(tokenizer: object) -> list[list[str]]:
    import json

    return json.loads(tokenizer.to_str())["model"]["merges"]  # type: ignore[attr-defined]
