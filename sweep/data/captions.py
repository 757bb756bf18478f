"""The text of a photo in a batch: what is fixed once, and what is drawn for each batch. Imports no torch.

Every draw is a function of (trial seed, batch index, row, purpose). Meanings are those of sd-scripts.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path

from sweep.data.settings import DatasetConfig
from sweep.randomness import derived_seed

_WORDS = re.compile(r"[\s,.]+")
_CHOICE = re.compile(r"\{([^{}]+)\}")
_OPEN, _CLOSE = "\x00", "\x01"  # stand for {{ and }} while choices are made


def read_caption(image: Path, extension: str, *, all_lines: bool) -> tuple[str | None, str]:
    """(caption, problem) of an image; None if it has no caption file.

    all_lines: keep every line, to draw from; else the first line is the caption.
    """
    file = image.with_suffix(extension)
    try:
        if not file.exists() and not file.is_symlink():
            return None, ""
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").strip().splitlines() if line.strip()]
    except UnicodeDecodeError:
        return None, f"its caption {file.name} is not UTF-8"
    except OSError as error:
        return None, f"its caption {file.name} can't be read ({error.strerror or error})"
    if not lines:
        return None, f"its caption {file.name} is empty; write one or delete the file"
    return "\n".join(lines if all_lines else lines[:1]), ""


def has_trigger(caption: str, trigger: str) -> bool:
    """Whether the trigger stands in the caption as a word of its own."""
    return trigger in _WORDS.split(caption)


def with_fixed_parts(caption: str, config: DatasetConfig, trigger: str) -> str:
    """Each line with prefix and suffix, and the trigger in front if `trigger_first`."""
    lines = []
    for line in caption.splitlines():
        line = " ".join(part for part in (config.caption_prefix, line, config.caption_suffix) if part)
        lines.append(_trigger_first(line, trigger) if config.trigger_first else line)
    return "\n".join(lines)


def _trigger_first(caption: str, trigger: str) -> str:
    """The trigger's own tag moves to the front; a caption that begins with the trigger stays; else it is put before."""
    if _WORDS.split(caption, maxsplit=1)[0] == trigger:
        return caption
    tags = [tag.strip() for tag in caption.split(",")]
    rest = [tag for tag in tags if tag != trigger]
    return ", ".join([trigger, *rest]) if len(rest) < len(tags) else f"{trigger}, {caption}"


def classed(caption: str, trigger: str, class_noun: str) -> str:
    """The same words about any member of the class: "photo of a man in a city" of "photo of alexq man in a city". As it
    is where the trigger is not in it."""
    named = rf"(?:\b(?:an?|the) )?(?<!\w){re.escape(trigger)}(?!\w)(?: {re.escape(class_noun)}\b)?"
    return re.sub(named, lambda _: f"a {class_noun}", caption, flags=re.IGNORECASE)


def plain_caption(template: str, separator: str, *, choose: bool) -> str:
    """What a template says without any draw, for prompts and metadata: its first line, the first of each choice if it
    has choices."""
    line = template.split("\n", 1)[0]
    return _without(separator, _choose(line, None) if choose else line)


def drawn_caption(template: str, config: DatasetConfig, *, seed: int, index: int, row: int, epoch: int) -> str:
    """The caption of one row of batch `index`.

    epoch: the epoch that the batch is in, from 1; caption_dropout_every_n_epochs=2 leaves out the second, fourth...
    """
    every = config.caption_dropout_every_n_epochs
    if every > 0 and epoch % every == 0:
        return ""
    rate = config.caption_dropout_rate
    if rate > 0 and _draw(seed, index, row, "caption dropout").random() < rate:
        return ""
    if config.enable_wildcard:
        draw = _draw(seed, index, row, "wildcard")
        lines = template.split("\n")
        template = _choose(lines[int(draw.random() * len(lines))], draw)
    if config.draws_tags:
        return _drawn_tags(template, config, seed, index, row)
    return _without(config.keep_tokens_separator, template)


def _drawn_tags(caption: str, config: DatasetConfig, seed: int, index: int, row: int) -> str:
    """Tags shuffled and dropped, but for those that are kept: the first `keep_tokens`, or with a separator what stands
    before it (and after a second one)."""
    separator, last = config.keep_tokens_separator, ""
    num_kept = max(config.keep_tokens, int(config.trigger_first))
    if separator and separator in caption:
        first, _, caption = caption.partition(separator)
        caption, _, last = caption.partition(separator)
        kept, free = _tags(first), _tags(caption)
    else:
        tags = _tags(caption)
        kept, free = tags[:num_kept], tags[num_kept:]
    if config.shuffle_caption:
        draw = _draw(seed, index, row, "shuffle")
        free = [tag for _, _, tag in sorted((draw.random(), i, tag) for i, tag in enumerate(free))]
    if config.caption_tag_dropout_rate > 0:
        draw = _draw(seed, index, row, "tag dropout")
        free = [tag for tag in free if draw.random() >= config.caption_tag_dropout_rate]
    return ", ".join([*kept, *free, *_tags(last)])


def _choose(text: str, draw: random.Random | None) -> str:
    """One of each {a|b|c}, innermost first; the first if nothing draws. {{ and }} are braces."""
    text = text.replace("{{", _OPEN).replace("}}", _CLOSE)
    while match := _CHOICE.search(text):
        options = match[1].split("|")
        picked = options[int(draw.random() * len(options)) if draw is not None else 0]
        text = text[:match.start()] + picked + text[match.end():]
    return text.replace(_OPEN, "{").replace(_CLOSE, "}")


def _without(separator: str, text: str) -> str:
    if not separator or separator not in text:
        return text
    return ", ".join(tag for part in text.split(separator) for tag in _tags(part))


def _tags(text: str) -> Sequence[str]:
    return [tag.strip() for tag in text.split(",") if tag.strip()]


def _draw(seed: int, index: int, row: int, purpose: str) -> random.Random:
    return random.Random(derived_seed(seed, index, f"{purpose} {row}"))
