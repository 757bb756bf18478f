"""Drafts of captions:  python -m sweep.data.caption FOLDER --blip MODEL --trigger alexq [--write]

--blip MODEL     a sentence for each photo (e.g. Salesforce/blip-image-captioning-base): a folder or a hub id
--tagger MODEL   tags for each photo, by an ONNX tagger of the WD14 kind (e.g. SmilingWolf/wd-vit-tagger-v3)
--prune LIST     tags or phrases to take out: what is the same on every photo belongs to the trigger
--replace LIST   old=new, old=new

Without a model the captions that are there are edited. It shows what would change; --write writes it, and keeps what
was there as NAME.txt.bak. LIST: entries between commas, or a .txt file with one on each line.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from sweep.data.caption.draft import Describe, Draft, drafts, photos_of, write
from sweep.data.caption.edits import Edits, read_list, read_pairs
from sweep.data.check.captions import constant_phrases
from sweep.errors import DataError, SweepError

_SUBSET = re.compile(r"^\d+_(\S+)")


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    try:
        return _run(given)
    except SweepError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sweep.data.caption", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    parser.add_argument("--blip", metavar="MODEL")
    parser.add_argument("--tagger", metavar="MODEL")
    parser.add_argument("--trigger", help="default: the first word of the photos' folder, 10_alexq man")
    parser.add_argument("--prefix", help="put in front of every caption; {trigger} is the trigger. Default: \"photo of "
                                         "{trigger},\" with --blip, \"{trigger},\" with --tagger, nothing else")
    parser.add_argument("--prune", metavar="LIST", action="append", default=[])
    parser.add_argument("--replace", metavar="LIST", action="append", default=[])
    parser.add_argument("--existing", choices=("keep", "replace", "append"), default="keep",
                        help="captions that are there: kept as they are (default), replaced by the models', or these "
                             "are put behind them")
    parser.add_argument("--beams", type=int, default=10, help="BLIP's search, at least 1; default 10")
    parser.add_argument("--min-length", type=int, default=25, help="tokens of BLIP's captions; default 25")
    parser.add_argument("--max-length", type=int, default=75, help="default 75")
    parser.add_argument("--threshold", type=float, default=0.35, help="of the tagger's general tags, 0 to 1; default "
                                                                      ".35")
    parser.add_argument("--character-threshold", type=float, default=0.85, help="of characters' names; default .85")
    parser.add_argument("--extension", default=".txt", help="of caption files; default .txt")
    parser.add_argument("--download", action="store_true", help="a hub id may be downloaded")
    parser.add_argument("--device", default="cpu", help="for BLIP: cpu (default), cuda")
    parser.add_argument("--write", action="store_true", help="write the captions; without it they are only shown")
    return parser


def _run(given: argparse.Namespace) -> int:
    _check(given)
    photos = photos_of(given.folder)
    trigger = given.trigger or _trigger_of(photos)
    edits = Edits(replace=read_pairs(given.replace), prune=read_list(given.prune), prefix=_prefix(given, trigger))
    describers = _describers(given)
    if not describers and edits == Edits():
        raise DataError("Nothing to do: give --blip or --tagger for new captions, or --prune, --replace or --prefix to "
                        "edit those that are there.")
    all_drafts = []
    for draft in drafts(photos, describers, edits, extension=given.extension, existing=given.existing):
        all_drafts.append(draft)
        if draft.is_change:
            name = draft.photo.relative_to(given.folder)
            print(f"{name}\n  - {draft.before or '(none)'}\n  + {draft.after}", flush=True)
            if given.write:
                write(draft)
    print(_summary(all_drafts, len(photos), trigger, is_written=given.write))
    return 0


def _check(given: argparse.Namespace) -> None:
    if not given.extension.startswith("."):
        raise DataError(f"--extension {given.extension} must begin with a point, e.g. .txt.")
    for name in ("threshold", "character_threshold"):
        if not 0 <= getattr(given, name) <= 1:
            raise DataError(f"--{name.replace('_', '-')} {getattr(given, name):g}: a probability, 0 to 1.")
    if given.beams < 1 or not 1 <= given.min_length <= given.max_length:
        raise DataError(f"--beams {given.beams} --min-length {given.min_length} --max-length {given.max_length}: beams "
                        "and lengths are at least 1, and the least length not above the most.")


def _describers(given: argparse.Namespace) -> list[Describe]:
    found: list[Describe] = []
    if given.blip:
        from sweep.data.caption.blip import Blip

        found.append(Blip(given.blip, num_beams=given.beams, min_length=given.min_length, max_length=given.max_length,
                          download=given.download, device=given.device))
    if given.tagger:
        from sweep.data.caption.tagger import Tagger

        found.append(Tagger(given.tagger, threshold=given.threshold, character_threshold=given.character_threshold,
                            download=given.download))
    return found


def _trigger_of(photos: Sequence[Path]) -> str:
    match = _SUBSET.match(photos[0].parent.name)
    return match[1] if match else ""


def _prefix(given: argparse.Namespace, trigger: str) -> str:
    default = "photo of {trigger}," if given.blip else "{trigger}," if given.tagger else ""
    prefix: str = default if given.prefix is None else given.prefix
    if "{trigger}" in prefix and not trigger:
        raise DataError("Which word means the subject? Give --trigger WORD, or name the photos' folder \"10_WORD "
                        "man\".")
    return prefix.replace("{trigger}", trigger)


def _summary(all_drafts: Sequence[Draft], num_photos: int, trigger: str, *, is_written: bool) -> str:
    changed = sum(draft.is_change for draft in all_drafts)
    replaced = sum(draft.is_change and draft.before is not None for draft in all_drafts)
    what = (f"{changed} captions written, {replaced} of them over others, which are kept as .bak" if is_written
            else f"{changed} captions would change, {replaced} of them are there already; --write writes them")
    lines = [f"{num_photos} photos: {what}"]
    if without := num_photos - len(all_drafts):
        lines.append(f"{without} photos have no caption; --blip or --tagger writes drafts")
    constant = constant_phrases([draft.after for draft in all_drafts], frozenset({trigger.lower()}))
    if constant:
        lines.append("on nearly every photo: " + ", ".join(constant) + ". What belongs to the subject is better left "
                     f"out: --prune \"{','.join(constant)}\"")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
