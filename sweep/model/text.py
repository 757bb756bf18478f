"""Captions as the UNet reads them: token ids in chunks, and which hidden state of the text encoder counts.

The meaning of `clip_skip` and `max_token_length` is sd-scripts'.
Shapes: B texts, N chunks, L tokens of a chunk (77), D width of the text states.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sweep.errors import ConfigError
from sweep.model.families import TITLE, Family

if TYPE_CHECKING:
    from torch import Tensor

MOST_NEW = 64  # new tokens that a text may hold
CHUNK_TOKENS = 75  # tokens of a text in one pass of the encoder, which adds a begin and an end


def check_clip_skip(clip_skip: int, family: Family, num_layers: int) -> None:
    """Raise ConfigError for a layer that is not there, or one that would be ignored."""
    if family == "sdxl" and clip_skip != 1:
        raise ConfigError(f"clip_skip={clip_skip}: {TITLE[family]} always reads the last but one layer of both text "
                          "encoders, whatever is asked. Leave clip_skip at 1.")
    if clip_skip > num_layers:
        raise ConfigError(f"clip_skip={clip_skip}: this base's text encoder has {num_layers} layers; give 1 to "
                          f"{num_layers}.")


def check_token_length(max_token_length: int) -> None:
    """Raise ConfigError for a length that is no whole number of chunks."""
    if max_token_length % CHUNK_TOKENS:
        raise ConfigError(f"max_token_length={max_token_length} must be 75, 150 or 225: the text encoder reads a "
                          "caption in chunks of 75 tokens.")


def chunk_ids(tokenizer: Any, text: str, max_token_length: int) -> list[list[int]]:
    """Token ids [N, L] of a text: every 75 tokens are a prompt of their own, with begin, end and padding.

    Always max_token_length / 75 chunks, so that texts of any length share a batch; what is longer is cut off.
    """
    words = token_ids(tokenizer, text)[:max_token_length]
    chunks = []
    for start in range(0, max_token_length, CHUNK_TOKENS):
        piece = words[start:start + CHUNK_TOKENS]
        padding = [tokenizer.pad_token_id] * (CHUNK_TOKENS - len(piece))
        chunks.append([tokenizer.bos_token_id, *piece, tokenizer.eos_token_id, *padding])
    return chunks


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """All of a text's tokens, without begin and end. New ones (`with_new_words`) are -1, -2, ...: the tokenizer has no
    number for them, and below 0 none can be the highest id, by which the end of a text is found."""
    ids: list[int] = []
    for piece in _NEW.split(text):
        if _NEW.fullmatch(piece):
            ids.append(_FIRST_NEW - ord(piece) - 1)
        elif piece.strip() or piece == text:
            ids += tokenizer(piece, add_special_tokens=False).input_ids
    return ids


_FIRST_NEW = 0xE000  # Unicode's private use area
_NEW = re.compile(f"([{chr(_FIRST_NEW)}-{chr(_FIRST_NEW + MOST_NEW - 1)}])")


def with_new_words(text: str, trigger: str, num_vectors: int) -> str:
    """The text with new tokens in place of the trigger, wherever it stands as a word; in a text a new token is a
    character of Unicode's private use area."""
    new = "".join(chr(_FIRST_NEW + i) for i in range(num_vectors))
    return re.sub(rf"(?<!\w){re.escape(trigger)}(?!\w)", f" {new} ", text, flags=re.IGNORECASE)


def encode_chunks(encoder: Any, ids_NBL: Tensor, clip_skip: int, family: Family) -> tuple[Tensor, Tensor | None]:
    """States [B, 75 N + 2, D] and, for XL's second encoder, the pooled text [B, D] of the first chunk.

    Each chunk is a pass of its own, so that the rows of a batch stay the rows that adapters know. The states of all
    chunks stand one after the other; of the begins and ends between them none is kept: begin of the first chunk, 75
    states of each, end (the 77th state) of the last.
    """
    import torch

    states, pooled = [], None
    for ids_BL in ids_NBL:
        states_BLD, pooled_BD = _encode(encoder, ids_BL, clip_skip, family)
        states.append(states_BLD)
        pooled = pooled_BD if pooled is None else pooled
    inner = [each[:, 1:-1] for each in states]
    return torch.cat([states[0][:, :1], *inner, states[-1][:, -1:]], dim=1), pooled


def _encode(encoder: Any, ids_BL: Tensor, clip_skip: int, family: Family) -> tuple[Tensor, Tensor | None]:
    """1.x, 2.x: the hidden state `clip_skip` from the end, through the final layer norm. XL: the last but one, as it
    is (Podell et al. 2023, 2.1)."""
    if family == "sdxl":
        answer = encoder(ids_BL, output_hidden_states=True)
        return answer.hidden_states[-2], getattr(answer, "text_embeds", None)
    if clip_skip == 1:
        return encoder(ids_BL).last_hidden_state, None
    return encoder.final_layer_norm(encoder(ids_BL, output_hidden_states=True).hidden_states[-clip_skip]), None


def padding_token(family: Family, index: int) -> str:
    """What fills a text up. 1.x and XL's first encoder were trained with the end token, OpenCLIP's with id 0, "!"."""
    is_open_clip: Sequence[bool] = {"sd1": (False,), "sd2": (True,), "sdxl": (False, True)}[family]
    return "!" if is_open_clip[index] else "<|endoftext|>"
