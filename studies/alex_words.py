"""The diary's words beside our verdicts, and how often they agree: by a mapping that was there before the trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sweep.files import write_json, write_text
from sweep.record.figures import BARE, figure_of
from sweep.record.sentences import figure
from sweep.trial import Score, TrialResult

UNLIKE, UNDERFIT, BROKEN = "does not look like the subject", "underfit", "broken"
OVERTRAINED, OVERFIT = "overtrained", "mildly overfit"
MEMORISED, COPIED = "memorised", "partly copied"
YES, NEARLY, NO, NOT_COUNTED, UNKNOWN = "yes", "nearly", "no", "not counted", "not known"
LEAST_BAD = (1, 2, 5, 6)
SHOWN = ("likeness", BARE, "adherence", "diversity", "memorisation", "bleed", "usefulness")
BARE_COPIES = "memo_rate_bare"  # of the images of the trigger alone, all that a training without captions was told
COPIES_LIMIT = 0.25  # as of the verdict
CLOTHES_NOTE = "memorised the clothes"  # how the note begins


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What the diary says of one training, and which verdicts mean that.

    exact: say the same. near: its neighbours, which a person might have put in the same words.
    """

    number: int
    words: str
    exact: tuple[str, ...] = ()
    near: tuple[str, ...] = ()
    # Instead: any verdict but these says the same, if it is also known that clothes don't stick.
    not_one_of: tuple[str, ...] = ()
    better_than: int | None = None  # instead: this one's usefulness is surely higher than that one's (nearly: higher)
    gives_photos_back: bool = False  # copies on the bare trigger say the same too


SAID = (
    Said(number=1, words="captions; has not memorised the input clothes.", not_one_of=(MEMORISED, COPIED)),
    Said(number=2, words="doesn't look like me at all; otherwise decent.", exact=(UNLIKE,), near=(UNDERFIT,)),
    Said(number=3, words="looks overtrained.", exact=(OVERTRAINED,), near=(OVERFIT, MEMORISED)),
    Said(number=4, words="doesn't look like me at all.", exact=(UNLIKE,), near=(UNDERFIT,)),
    Said(number=5, words="doesn't really look like me either.", exact=(UNLIKE,), near=(UNDERFIT,)),
    Said(number=6, words="a little better maybe (than 5).", better_than=5),
    Said(number=7, words="bad; some images have no similarity at all, some are overtrained.",
         exact=(BROKEN, OVERTRAINED), near=(UNLIKE, OVERFIT)),
    Said(number=8, words="trash; constructs the input images almost completely.", exact=(MEMORISED,), near=(COPIED,),
         gives_photos_back=True),
    Said(number=9, words="trash; files are small, probably because of dim and alpha.", exact=(UNLIKE, BROKEN),
         near=(UNDERFIT, OVERTRAINED)),
    Said(number=10, words="doesn't look like me.", exact=(UNLIKE,), near=(UNDERFIT,)),
    Said(number=11, words="no words."),
)


def last_score(result: TrialResult) -> Score | None:
    """Of the last file at strength 1, which we take the diary's author to have judged; None if it was not scored."""
    found = [score for score in result.scores
             if score.stage == "screen" and score.step == result.trial.num_steps and score.strength == 1]
    return found[0] if found else None


def agreement(said: Said, scores: Mapping[int, Score | None]) -> str:
    """YES, NEARLY or NO; NOT_COUNTED where the diary says nothing, UNKNOWN where we do not know."""
    score = scores.get(said.number)
    if not (said.exact or said.not_one_of or said.better_than):
        return NOT_COUNTED
    if score is None or main_verdict(score) == "invalid":
        return UNKNOWN
    if said.better_than is not None:
        return _better(score, scores.get(said.better_than))
    if said.gives_photos_back and (score.details.get(BARE_COPIES) or 0.0) > COPIES_LIMIT:
        return YES
    how = _of_verdict(said, main_verdict(score))
    if said.not_one_of and how == YES:
        if any(note.startswith(CLOTHES_NOTE) for note in score.notes):
            return NO
        return YES if score.details.get("leak") is not None else NEARLY
    return how


def _better(score: Score, other: Score | None) -> str:
    """YES only where the intervals leave no doubt: each lies between the anchors of its own base, so that prompts can't
    be paired."""
    if other is None or _usefulness(score) is None or _usefulness(other) is None:
        return UNKNOWN
    one, two = score.axes["usefulness"], other.axes["usefulness"]
    assert one.value is not None and two.value is not None
    if one.low is not None and two.high is not None and one.low > two.high:
        return YES
    return NEARLY if one.value > two.value else NO


def _of_verdict(said: Said, verdict: str) -> str:
    if said.not_one_of:
        return NO if verdict in said.not_one_of else YES
    return YES if verdict in said.exact else NEARLY if verdict in said.near else NO


def least_bad(scores: Mapping[int, Score | None]) -> list[int]:
    """The four of the highest usefulness, best first."""
    known = {number: value for number, score in scores.items() if (value := _usefulness(score)) is not None}
    return sorted(known, key=lambda number: -known[number])[:len(LEAST_BAD)]


def main_verdict(score: Score) -> str:
    """Without its additions."""
    return score.verdict.partition(" + ")[0]


def write_words(folder: Path, results: Mapping[int, TrialResult]) -> str:
    """words.md and words.json in the sweep's folder; returns the count in a sentence."""
    scores = {number: last_score(result) for number, result in results.items()}
    rows = [(said, scores.get(said.number), agreement(said, scores)) for said in SAID]
    sentence = count_sentence([how for _, _, how in rows], blind(scores), least_bad(scores))
    write_text(folder / "words.md", "\n".join(_page(rows, results, sentence)) + "\n")
    write_json(folder / "words.json", {"agreement": sentence, "least_bad": least_bad(scores), "rows": [
        {"number": said.number, "diary": said.words, "verdict": None if score is None else score.verdict, "agrees": how,
         "figures": {} if score is None else {name: known.value for name in SHOWN
                                              if (known := figure_of(score, name)) is not None},
         "copies_of_the_bare_trigger": None if score is None else score.details.get(BARE_COPIES)}
        for said, score, how in rows]})
    return sentence


def blind(scores: Mapping[int, Score | None]) -> list[str]:
    """By the same rules, the agreement of whoever answers that none looks like the subject, and measures nothing."""
    def unlike(score: Score | None) -> Score | None:
        details = {} if score is None else {key: value for key, value in score.details.items() if key != BARE_COPIES}
        return None if score is None else replace(score, verdict=UNLIKE, notes=(), details=details)

    return [agreement(said, {said.number: unlike(scores.get(said.number))}) for said in SAID
            if said.better_than is None]


def count_sentence(hows: Sequence[str], of_blind: Sequence[str], ours: Sequence[int]) -> str:
    """Agreement over all that the diary has words for, and how much of it needs no measuring.

    What is not known counts as no agreement. of_blind: see `blind`.
    """
    counted = [how for how in hows if how != NOT_COUNTED]
    unknown = counted.count(UNKNOWN)
    shared = sorted(set(ours) & set(LEAST_BAD))
    return (f"Of the {len(counted)} trainings that the diary has words for, the verdict says the same of "
            f"{counted.count(YES)}, nearly the same of {counted.count(NEARLY)}, something else of {counted.count(NO)}"
            + (f"; {unknown} can't be judged" if unknown else "") + ". "
            f"Whoever always answers \"{UNLIKE}\" says the same of {of_blind.count(YES)} and nearly the same of "
            f"{of_blind.count(NEARLY)}. "
            f"Of its four least bad (1, 2, 5 and 6), {len(shared)} are among our four of the highest usefulness "
            f"({', '.join(map(str, ours))}); by chance it would be 1.5.")


def _page(rows: Sequence[tuple[Said, Score | None, str]], results: Mapping[int, TrialResult],
          sentence: str) -> list[str]:
    lines = [
        "# The diary's words and our verdicts", "", sentence, "",
        "Judged is the last file of each training at strength 1, which we take its author to have judged; what the",
        "sweep would use instead stands in the last column. Which verdicts mean the diary's words was written down",
        "before these trainings ran (`studies/alex_words.py`; docs/alex.md says when); it is the second table.", "",
        *(["![The last files, each on the same prompts and noise](prompts.webp)", "",
           "![One prompt by epoch](epochs.webp)", ""] if any(score for _, score, _ in rows) else []),
        f"| LoRA | the diary | verdict | agrees | {' | '.join(SHOWN)} | copies, bare trigger | the sweep's choice |",
        "|---" * (len(SHOWN) + 6) + "|"]
    for said, score, how in rows:
        result = results.get(said.number)
        figures = " | ".join("" if score is None else figure(figure_of(score, name)) for name in SHOWN)
        bare = score.details.get(BARE_COPIES) if score else None
        verdict, copies = score.verdict if score else "not scored", "" if bare is None else f"{bare:.0%}"
        lines.append(f"| {said.number} | {said.words} | {verdict} | {how} | {figures} | {copies} | {_choice(result)} |")
    lines += ["", "| LoRA | the same | nearly |", "|---|---|---|",
              *(f"| {said.number} | {' | '.join(_waited_for(said))} |" for said in SAID)]
    lines += ["", "LoRA5 and LoRA6 lie on different bases: each one's usefulness is measured against its own base. Of",
              "the diary's \"1 is the only one that has not memorised the clothes\" only LoRA1's half is counted.", ""]
    apart = [(said, score, how) for said, score, how in rows if how in (NO, NEARLY, UNKNOWN)]
    if apart:
        lines += ["## Where they disagree, or nearly agree", ""]
        lines += [f"- LoRA{said.number} ({how}): the diary says \"{said.words.rstrip('.')}\", "
                  + ("it was not scored." if score is None else f"the figures say {score.verdict}: {_decides(score)}.")
                  for said, score, how in apart]
    return lines


def _waited_for(said: Said) -> tuple[str, str]:
    """What says the same, and what nearly."""
    if said.not_one_of:
        return (f"all but {', '.join(said.not_one_of)}, and clothes don't stick",
                "the same, where nothing tells whether clothes stick")
    if said.better_than:
        return f"surely more useful than {said.better_than}", "more useful, within chance"
    copies = [f"over {COPIES_LIMIT:.0%} copies of the bare trigger"] if said.gives_photos_back else []
    return ", ".join([*said.exact, *copies]) or "nothing to agree with", ", ".join(said.near)


def _decides(score: Score) -> str:
    """The figures that verdicts are made of."""
    axes = {name: score.axes[name].value for name in ("likeness", "adherence", "diversity")}
    shares = {"copies": score.details.get("memo_rate"), "burn": score.details.get("burn")}
    known = [f"{name} {value:.2f}" for name, value in (axes | shares).items() if value is not None]
    return "; ".join([", ".join(known) or "nothing can be known", *score.notes])


def _choice(result: TrialResult | None) -> str:
    if result is None or result.answer is None:
        return "" if result is None else result.status
    answer = result.answer
    return f"epoch {answer.epoch} at {answer.strength:g}: {answer.score.verdict}"


def _usefulness(score: Score | None) -> float | None:
    return None if score is None or "usefulness" not in score.axes else score.axes["usefulness"].value
