"""Which verdict a person's own words name: "looks overtrained, hair goes black" -> overtrained. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping

# Longer words come before those that are part of them: "very good" is no "good".
_OF_A_PART = r"(?! (?:likeness|hair|face|skin|eyes|prompts?|adherence|clothes|background|variety|light))"
_WORDS: Mapping[str, tuple[str, ...]] = {
    "does not look like the subject": (r"(?:does not|doesn'?t|do not|don'?t) (?:really )?look (?:anything )?like",
                                       r"looks? nothing like", r"no likeness", r"somebody else", r"someone else"),
    "mildly overfit": (r"(?:mildly|slightly|a (?:bit|little)) (?:overfit(?:ted)?|overtrained|over-?cooked)",),
    "partly copied": (r"partly copied", r"some copies"),
    "low variety": (r"low variety", r"no variety", r"(?:all|they) look the same"),
    "memorised": (r"memori[sz]ed", r"copies (?:the|its|my) (?:training )?(?:photos|images)", r"constructs the input"),
    "overtrained": (r"overtrained", r"overfit(?:ted)?", r"over-?cooked", r"fried", r"burn(?:t|ed)"),
    "underfit": (r"underfit(?:ted)?", r"undertrained", r"under-?cooked"),
    "broken": (r"broken", r"garbage", r"trash"),
    "very good": (rf"(?:very good|excellent|perfect){_OF_A_PART}",),
    "good": (rf"good{_OF_A_PART}",),
}
_ANY = f"(?:{'|'.join(pattern for patterns in _WORDS.values() for pattern in patterns)})"
# "isn't yet overtrained", "not a really good one", "far from good or very good" name no verdict, least of all that one.
_NOT = (r"(?:not|\w+n['’]t|isnt|wasnt|doesnt|dont|cannot|cant|never|no(?: longer)?|neither|without|hardly|barely|"
        r"far from|anything but|less)(?:\s+(?!(?:but|and|though|although)\b)[\w'’-]+){0,4}?\s+")
_NEGATED = rf"\b{_NOT}{_ANY}(?:\s+n?or\s+(?:\w+\s+){{0,2}}?{_ANY})*\b"
_FINDER = re.compile("|".join([_NEGATED, *(rf"(?P<v{i}>\b(?:{'|'.join(patterns)})\b)"
                                          for i, patterns in enumerate(_WORDS.values()))]), re.IGNORECASE)
_ENDS = re.compile(r"\s*(?:$|[.,;:!(-])")
_EPOCH = re.compile(r"\bepoch\s+(\d+)", re.IGNORECASE)


def named_verdict(note: str) -> str | None:
    """The verdict that a note begins with, or the only one that it names; None if it names none or several."""
    said = [(match, list(_WORDS)[int(match.lastgroup[1:])]) for match in _FINDER.finditer(note) if match.lastgroup]
    if said and said[0][0].start() == len(note) - len(_without_epoch(note)) and _ENDS.match(note, said[0][0].end()):
        return said[0][1]
    return said[0][1] if len({name for _, name in said}) == 1 else None


def named_epoch(note: str) -> int | None:
    """The epoch that a note is about, "epoch 7: overtrained"; None = the file that the answer names."""
    match = _EPOCH.match(note.strip())
    return int(match[1]) if match else None


def _without_epoch(note: str) -> str:
    return re.sub(r"^\s*(?:epoch\s+\d+\s*[:,]?\s*)?(?:is |looks? |it'?s )?", "", note, flags=re.IGNORECASE)
