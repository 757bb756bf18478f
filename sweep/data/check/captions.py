"""What the captions say, leave out, and repeat. Imports no torch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

from sweep.data.captions import has_trigger
from sweep.data.check.findings import (
    CAPTIONS_HELP,
    EVERYTHING,
    TEXT_ENCODER,
    TUTORIAL,
    Finding,
    listed,
)
from sweep.data.check.words import BODY, CLOTHES, EMPTY, FRAMING, KIND, PEOPLE, PLACE, says, words_of
from sweep.data.dataset import Dataset, Photo
from sweep.data.settings import DatasetConfig

ALWAYS = 0.9  # share of the captions from which on a phrase is said of every photo
FEWEST = 4  # captions that it takes to call something constant
LONGEST_PHRASE = 3  # words
NEAR_THE_FRONT = 3  # words: "photo of alexq man" is the tutorial's own form
COMMON_TAGS = 12

Count = Callable[[str], int]  # tokens of a text


def caption_findings(dataset: Dataset, config: DatasetConfig, count_tokens: Count | None,
                     max_tokens: int) -> list[Finding]:
    """count_tokens: None = the base's vocabulary is not at hand, and nothing is said about length."""
    if not config.captions:
        return [Finding(kind="captions_off", topic="captions", level="note", advice=CAPTIONS_HELP,
                        text="dataset.captions=false: every photo gets its folder's words. What is on the photos, "
                             "clothes and places too, becomes part of the subject.")]
    captioned = [photo for photo in dataset.photos if _has_file(photo, config)]
    missing = _missing(dataset, captioned)
    if not captioned:
        return missing
    return [*missing, *_trigger_place(captioned, dataset, config), *_too_long(captioned, count_tokens, max_tokens),
            *_constant(captioned, dataset), *_unsaid(captioned, dataset), *_frequencies(captioned, dataset)]


def quick_caption_findings(dataset: Dataset, config: DatasetConfig) -> list[Finding]:
    """Those that need no vocabulary and matter before a training is started."""
    found = caption_findings(dataset, config, None, 0)
    return [finding for finding in found if finding.level != "note"]


def _has_file(photo: Photo, config: DatasetConfig) -> bool:
    return photo.path.with_suffix(config.caption_extension).exists()


def _missing(dataset: Dataset, captioned: Sequence[Photo]) -> list[Finding]:
    have = {photo.path for photo in captioned}
    without = [photo for photo in dataset.photos if photo.path not in have]
    if not without:
        return []
    named = {photo.caption for photo in without}
    text = (f"none of the {len(without)} photos has a caption" if not captioned
            else f"{len(without)} of {len(dataset.photos)} photos have no caption")
    return [Finding(kind="missing_captions", topic="captions", level="problem", advice=CAPTIONS_HELP,
                    photos=_names(without),
                    text=f"{text}: they are trained as \"{listed(sorted(named), 2)}\", so all that is on them becomes "
                         "the subject. `python -m sweep.data.caption FOLDER` writes drafts.")]


def _trigger_place(photos: Sequence[Photo], dataset: Dataset, config: DatasetConfig) -> list[Finding]:
    trigger, found = dataset.trigger, []
    absent = [photo for photo in photos if not has_trigger(photo.caption, trigger)]
    if absent:
        found.append(Finding(
            kind="trigger_absent", topic="captions", level="problem", advice=TUTORIAL, photos=_names(absent),
            text=f"{len(absent)} captions don't say the trigger {trigger!r}: what these photos show is learned for "
                 "other words. Add it, or set dataset.trigger_first=true."))
    late = [photo for photo in photos
            if has_trigger(photo.caption, trigger) and not _is_in_front(photo.caption, trigger)]
    if late and not config.trigger_first:
        found.append(Finding(
            kind="trigger_late", topic="captions", level="advice", advice=EVERYTHING, photos=_names(late),
            text=f"{len(late)} captions say the trigger {trigger!r} only further back, e.g. "
                 f"\"{_cut(late[0].caption)}\". Begin with it (\"photo of {trigger} {dataset.class_noun}, ...\"): "
                 "shuffling and cutting spare the front."))
    return found


def _is_in_front(caption: str, trigger: str) -> bool:
    return trigger in re.split(r"[\s,.]+", caption)[:NEAR_THE_FRONT]


def _too_long(photos: Sequence[Photo], count_tokens: Count | None, max_tokens: int) -> list[Finding]:
    if count_tokens is None:
        return []
    long = {photo.path.name: num for photo in photos if (num := count_tokens(photo.text)) > max_tokens}
    if not long:
        return []
    counts = listed((f"{name}: {num}" for name, num in long.items()), 8)
    return [Finding(kind="too_long", topic="captions", level="advice", advice=TEXT_ENCODER, photos=tuple(long),
                    text=f"{len(long)} captions have more than the {max_tokens} tokens that are read ({counts}); the "
                         "rest is cut off. Shorten them, or set max_token_length=150 or 225.")]


def constant_phrases(captions: Sequence[str], known: frozenset[str]) -> list[str]:
    """What (nearly) every caption says, but for empty words and those that are `known`; of nested phrases the longest.

    None if there are too few captions to tell.
    """
    if len(captions) < FEWEST:
        return []
    counts = Counter(phrase for caption in captions for phrase in _phrases(caption, known))
    every = [phrase for phrase, num in counts.items() if num >= ALWAYS * len(captions)]
    return sorted(p for p in every if not any(p != q and f" {p} " in f" {q} " for q in every))


def _constant(photos: Sequence[Photo], dataset: Dataset) -> list[Finding]:
    """What should not stand in every caption."""
    if len(photos) < FEWEST:
        return []
    known = frozenset({dataset.trigger.lower(), *words_of(dataset.trigger), *words_of(dataset.class_noun)})
    phrases = constant_phrases([photo.caption for photo in photos], known)
    traits = [phrase for phrase in phrases if says(phrase, BODY)]
    other = [phrase for phrase in phrases if not says(phrase, BODY) and not says(phrase, FRAMING)]
    found = []
    if traits:
        found.append(Finding(
            kind="constant_trait", topic="captions", level="problem", advice=TUTORIAL,
            text=f"nearly every caption says {_quoted(traits)}: what is the same on every photo belongs to the "
                 f"subject. Leave it out, so that {dataset.trigger!r} comes to mean it; as it is, it must be prompted "
                 "each time."))
    if other:
        found.append(Finding(
            kind="constant_phrase", topic="captions", level="advice", advice=TUTORIAL,
            text=f"nearly every caption says {_quoted(other)}. If it belongs to the subject, leave it out; if not, add "
                 "photos without it."))
    if len({photo.caption for photo in photos}) == 1:
        found = [Finding(kind="same_caption", topic="captions", level="problem", advice=TUTORIAL,
                         text=f"all captions are the same (\"{_cut(photos[0].caption)}\"): say what differs on each "
                              "photo, clothes, place, framing, or all of it becomes the subject.")]
    return found


def _phrases(caption: str, known: frozenset[str]) -> set[str]:
    """Runs of 1 to 3 words between commas and empty words."""
    found = set()
    for part in re.split(r"[,.;|]", caption):
        run: list[str] = []
        for word in [*words_of(part), ""]:
            if word and word not in EMPTY and word not in KIND and word not in known:
                run.append(word)
                continue
            for size in range(1, LONGEST_PHRASE + 1):
                found |= {" ".join(run[i:i + size]) for i in range(len(run) - size + 1)}
            run = []
    return found


def _unsaid(photos: Sequence[Photo], dataset: Dataset) -> list[Finding]:
    """Captions that are silent about what differs from photo to photo, as far as words tell."""
    if len(photos) < FEWEST:
        return []
    kinds = {"the place": (PLACE, "background")}
    if says(dataset.class_noun, PEOPLE):
        kinds = {"the clothes": (CLOTHES, "clothes"), **kinds}
    found = []
    for what, (words, short) in kinds.items():
        silent = [photo for photo in photos if not says(photo.caption, words)]
        if silent:
            everywhere = len(silent) == len(photos)
            found.append(Finding(
                kind=f"uncaptioned_{short}", topic="captions", level="advice", advice=CAPTIONS_HELP,
                photos=() if everywhere else _names(silent),
                text=f"{'no caption says' if everywhere else f'{len(silent)} captions say nothing about'} {what}, as "
                     f"far as their words tell. What is not said sticks to {dataset.trigger!r}."))
    return found


def _frequencies(photos: Sequence[Photo], dataset: Dataset) -> list[Finding]:
    known = frozenset({dataset.trigger.lower(), *words_of(dataset.class_noun)})
    tags = Counter(tag.strip() for photo in photos for tag in set(photo.caption.split(",")[1:]) if tag.strip())
    words = Counter(word for photo in photos for word in set(words_of(photo.caption)) - EMPTY - KIND - known)
    said = tags if len(tags) <= len(words) and tags else words
    top = ", ".join(f"{tag} {num}" for tag, num in said.most_common(COMMON_TAGS))
    kind = "tags" if said is tags else "words"
    return [Finding(kind="tag_frequencies", topic="captions", level="note",
                    text=f"most frequent {kind} in {len(photos)} captions: {top}.")] if top else []


def _quoted(phrases: Sequence[str]) -> str:
    return ", ".join(f"\"{phrase}\"" for phrase in phrases)


def _cut(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[:most - 3]}..."


def _names(photos: Sequence[Photo]) -> tuple[str, ...]:
    return tuple(photo.path.name for photo in photos)
