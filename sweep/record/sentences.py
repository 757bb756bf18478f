"""From scores to plain words: the sentences of the diary and of the terminal's last line."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sweep.claims import BETTER, EXPLORATORY, TIE, UNKNOWN, WORSE, Claim, compare_settings
from sweep.comparison import MIN_UNITS, ahead, cautious, jackknife_interval
from sweep.framings import framing_words
from sweep.record.asked import settings_of, untold
from sweep.record.best import (
    apart,
    best_results,
    compared,
    eligible,
    lead,
    limits_words,
    outdone,
    signed,
    tie,
    usefulness,
)
from sweep.record.entry import SweepEntry
from sweep.record.figures import FIGURES, figure_of
from sweep.record.how_to_use import at_strength, how, one_file, prompt_words
from sweep.trial import DIVERGED, DONE, FAILED, PRUNED, REFUSED, Answer, Estimate, Score, TrialResult

VERDICT_SENTENCES: Mapping[str, str] = {
    "invalid": "Can't be judged.",
    "memorised": "Memorised: it draws its training photos instead of new pictures of the subject.",
    "does not look like the subject": "Doesn't look like the subject.",
    "broken": "Broken: neither the subject nor what the prompt asks for.",
    "overtrained": "Looks overtrained: the prompt, the variety or the picture itself suffers.",
    "mildly overfit": "Looks like the subject, but it begins to ignore the prompt.",
    "underfit": "Underfit: it only begins to look like the subject.",
    "very good": "Very good: looks like the subject and does what the prompt asks.",
    "good": "Good: does what the prompt asks and looks much like the subject.",
    "partly copied": "Partly copied: some pictures are close to training photos.",
    "low variety": "Low variety: its pictures of one prompt look alike.",
}
_REST = "(all else)"
_PairsOf = Callable[[Sequence[Sequence[TrialResult]], int], Iterable[tuple[Sequence[TrialResult], ...]]]
_WANTED = ("very good", "good")
_ENDED = {FAILED: "failed", DIVERGED: "diverged", PRUNED: "was ended early"}


def verdict_sentence(verdict: str) -> str:
    """A verdict in words. A verdict with additions, "good + bleeds into the class", keeps them."""
    main, *additions = (part.strip() for part in verdict.split("+"))
    sentence = VERDICT_SENTENCES.get(main, f"{main[:1].upper()}{main[1:]}." if main else "Not judged.")
    return " ".join([sentence, *(f"It also {addition}." for addition in additions)])


def figure(estimate: Estimate | None) -> str:
    """"0.82 (0.74 to 0.89)"; why one can't be known stands in the score's notes."""
    if estimate is None:
        return "not measured"
    if estimate.value is None:
        return "unknown"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.2f} (no interval)"
    return f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"


def value_text(value: Any) -> str:
    """A setting as a person writes it: 1e-4, not 0.0001000."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, float):
        if value != 0 and abs(value) < 1e-3:
            exponent = math.floor(math.log10(abs(value)))
            return f"{value / 10**exponent:.6g}e{exponent}"
        return f"{value:.6g}"
    return str(value)


def results_sentence(result: TrialResult) -> str:
    """What came out of one trial, in words and figures; for a failed one, why nothing did."""
    place = f"step {result.step} of {result.trial.num_steps}"
    reason = _one_line(result.reason).removeprefix(f"ended early at step {result.step}: ").removeprefix("diverged: ")
    because = f": {reason}" if reason else ", no reason was recorded"
    if result.answer is None:
        if result.status in _ENDED:
            return f"None. It {_ENDED[result.status]} at {place}{because}"
        if result.status == REFUSED:
            return f"None. It was refused before anything ran{because}"
        if result.status == DONE:
            return f"Trained, not scored. Its files: `{_checkpoints(result)}`."
        return f"None yet: {result.status} at {place}."
    score = result.answer.score
    figures = ", ".join(f"{name} {figure(figure_of(score, name))}" for name in FIGURES)
    sentence = f"{verdict_sentence(score.verdict)} {figures[:1].upper()}{figures[1:]}."
    notes = [as_sentence(line) for line in filter(None, (framing_words(score), *score.notes))]
    if result.breach:
        notes.append(f"It breaks a limit: {result.breach}.")
    if result.status in _ENDED:
        notes.append(f"It {_ENDED[result.status]} at {place}{because}; what it had saved before was scored.")
    return " ".join([sentence, *notes])


def use_sentence(answer: Answer) -> str:
    """Which file of one trial, at which strength."""
    why = as_sentence(answer.reason)
    use = f"`{answer.file}` ({_when(answer)}){one_file(answer)}."
    return f"{use} {why[:1].upper()}{why[1:]}".rstrip()


def _when(answer: Answer) -> str:
    """Which of a trial's files: by epoch, before the first one's end by step."""
    return f"epoch {answer.epoch}" if answer.epoch else f"step {answer.score.step}"


def _checkpoints(result: TrialResult) -> str:
    return f"trials/{result.trial.train_id}/checkpoints"


def file_place(result: TrialResult) -> str:
    """Where a trial's file lies, seen from the results folder."""
    assert result.answer is not None
    return f"{_checkpoints(result)}/{result.answer.file}"


def answer_sentence(entry: SweepEntry, results: Sequence[TrialResult], results_dir: str = "results") -> str:
    """The one answer of a sweep: file, strength, what to write in the prompt, how sure; and what is wrong with the
    photos. A tie names no winner."""
    said = (_answer(entry, results, results_dir), apart_words(entry, results, results_dir), photo_words(results))
    return " ".join(filter(None, said))


def apart_words(entry: SweepEntry, results: Sequence[TrialResult], results_dir: str = "results") -> str:
    """Which trials are not compared with the rest, and the answer among themselves; empty if there are none."""
    groups = apart(results)
    if not groups:
        return ""
    numbers = ", ".join(str(result.trial.number) for group in groups for result in group)
    among = [f"Among {', '.join(str(result.trial.number) for result in group)}: {_answer(entry, group, results_dir)}"
             for group in groups if len(group) > 1]
    return " ".join([f"Scored against other anchors and so not compared with the rest: trial {numbers}.", *among])


def photo_words(results: Sequence[TrialResult]) -> str:
    """What is wrong with the photos that the files were measured against; empty if nothing is."""
    notes = dict.fromkeys(note for result in results if result.answer for note in result.answer.photo_notes)
    return f"About the photos: {'; '.join(notes)}." if notes else ""


def _answer(entry: SweepEntry, results: Sequence[TrialResult], results_dir: str) -> str:
    best, ties = best_results(results)
    if best is None or best.answer is None:
        return _nothing_to_name(results, results_dir)
    if ties:
        return (f"{tie_sentence([best, *ties], results)} The most promising first: "
                f"{_tied_files(entry, [best, *ties], results_dir)}")
    score = best.answer.score
    start = "Use" if _is_wanted(score.verdict) else f"{_best_of_what(results)} ({score.verdict}) is"
    rivals = [result for result in eligible(results) if result is not best]
    nearest = max(rivals, key=lambda r: cautious(r.answer.score) if r.answer else -math.inf, default=None)
    how_sure = ((f"on the same prompts it beats the file of {each_of(len(rivals))} by more than chance, that of trial "
                 f"{nearest.trial.number} by {lead(best, nearest)}; picked as the best of {len(rivals) + 1}, its own "
                 "figure leans high") if nearest is not None
                else "nothing else was scored to compare it with")
    return (f"{start} `{results_dir}/{file_place(best)}` (trial {best.trial.number}, {_when(best.answer)}) "
            f"{how(best.answer)}: write {_prompt(entry, best.answer)}. "
            f"Usefulness {figure(usefulness(best))}; {how_sure}. {limits_words(results)}").rstrip()


def _neighbours(values: Sequence[Sequence[TrialResult]], _: int) -> Iterable[tuple[Sequence[TrialResult], ...]]:
    return itertools.pairwise(values)


def _best_of_what(results: Sequence[TrialResult]) -> str:
    """How one is named whose own verdict is no good."""
    some_are = any(r.answer is not None and _is_wanted(r.answer.score.verdict) for r in eligible(results))
    return "The most useful, though not called good," if some_are else "None is good yet; the least bad"


def lessons_of(entry: SweepEntry, results: Sequence[TrialResult]) -> list[str]:
    """What each setting did. An experiment is a name for the settings that it brings along: where trials are alike in
    all but one of those it is said of that one, and only if none are, of the experiments."""
    if "experiment" in entry.swept_keys and results:
        settings, rest = settings_of(entry, results), untold(entry, results)
        keys = [key for key in dict.fromkeys(key for one in settings for key in one) if key != "experiment"]
        unfolded = [replace(result, trial=replace(result.trial, settings={**one, _REST: other}))
                    for result, one, other in zip(results, settings, rest, strict=True)]
        if found := learned(keys, unfolded, alike=(_REST,), pairs_of=itertools.combinations):
            return found
    return learned(entry.swept_keys, results)


def learned(swept_keys: Sequence[str], results: Sequence[TrialResult], *, alike: Sequence[str] = (),
            pairs_of: _PairsOf = _neighbours) -> list[str]:
    """What each swept setting did, from pairs of trials that differ in it alone.

    alike: settings that nothing is said of, and that must be the same. pairs_of: which values of a setting are
    compared, in the order in which the sweep names them; a grid has all of them, so that neighbours are enough. Where
    the sweep trained each of them with several seeds it is a claim about the setting, otherwise one about these files.
    """
    scored = compared(results)
    sentences = []
    for key in swept_keys:
        by_value: dict[str, list[TrialResult]] = {}
        for result in scored:
            by_value.setdefault(repr(result.trial.settings.get(key)), []).append(result)
        for low, high in pairs_of(list(by_value.values()), 2):
            pairs = _pairs([k for k in (*swept_keys, *alike) if k != key], low, high)
            if pairs:
                sentences.append(_pair_sentence(key, low[0].trial.settings.get(key), high[0].trial.settings.get(key),
                                                pairs, _claims(key, low, high, swept_keys)))
    return sentences


def _claims(key: str, low: Sequence[TrialResult], high: Sequence[TrialResult],
            swept_keys: Sequence[str]) -> list[tuple[str, Claim]]:
    """What may be said of a value's trials `high` against `low`, once for each combination of the other settings that
    has both, behind that combination in words. Empty where no seeds were swept."""
    if "seed" not in swept_keys or key == "seed":
        return []
    others = [k for k in swept_keys if k not in (key, "seed")]
    rows: dict[str, tuple[str, tuple[list[Score], list[Score]]]] = {}
    for side, results in enumerate((low, high)):
        for result in results:
            assert result.answer is not None
            combination = {k: result.trial.settings.get(k) for k in others}
            words = ", ".join(f"{k} {value_text(value)}" for k, value in combination.items())
            rows.setdefault(repr(combination), (words, ([], [])))[1][side].append(result.answer.score)
    low_name, high_name = (f"{key} {value_text(each[0].trial.settings.get(key))}" for each in (low, high))
    return [(words, compare_settings(highs, lows, names=(high_name, low_name)))
            for words, (lows, highs) in rows.values() if lows and highs]


def _pairs(others: Sequence[str], low: Sequence[TrialResult],
           high: Sequence[TrialResult]) -> list[tuple[TrialResult, TrialResult]]:
    """Those of two values' trials that agree in all other keys."""
    def rest(result: TrialResult) -> tuple[str, ...]:
        return tuple(repr(result.trial.settings.get(key)) for key in others)

    partners: dict[tuple[str, ...], list[TrialResult]] = {}
    for b in high:
        partners.setdefault(rest(b), []).append(b)
    return [(a, b) for a in low for b in partners.get(rest(a), ())]


def _pair_sentence(key: str, low: Any, high: Any, pairs: Sequence[tuple[TrialResult, TrialResult]],
                   claims: Sequence[tuple[str, Claim]]) -> str:
    changes = [f"{name} {sum(d) / len(d):+.2f}" for name in FIGURES[:-1] if (d := _differences(name, pairs))]
    changes.insert(0, _useful_change(pairs))
    start = f"{key} {value_text(low)} -> {value_text(high)}: {', '.join(changes)}"
    clear = [pair for pair in pairs if not tie(*pair)]
    ups = sum(d > 0 for d in _differences("usefulness", pairs))
    if key == "seed":
        return f"{start} (mean of {_count(len(pairs), 'pair')}). Only the training seed differs: this much is chance."
    if any(claim.outcome != UNKNOWN for _, claim in claims):
        return f"{start} (means of {_count(len(pairs), 'pair')}). {_claimed(claims)}"
    why = _why_no_claim(claims)
    if len(pairs) == 1:
        certainty = ("The two files differ by more than chance on the same prompts" if clear
                     else "The two files can't be told apart on the same prompts: it may be noise")
        return f"{start}. {certainty}; {why}, so it speaks of these two files, not of the setting."
    certainty = (f"Usefulness rose in {ups} of {len(pairs)} pairs; in {len(clear)} of them the files differ by more "
                 "than chance (up or down)")
    interval = _mean_interval(_differences("usefulness", pairs))
    if interval is not None and interval[0] <= 0 <= interval[1]:
        certainty += "; over the pairs the interval of the mean holds 0, so it may be chance"
    return (f"{start} (means of {len(pairs)} pairs). {certainty}; {why}, so it speaks of these files, not of the "
            "setting.")


def _why_no_claim(claims: Sequence[tuple[str, Claim]]) -> str:
    if all(max(claim.num_seeds) == 1 for _, claim in claims):
        return "one training seed each"
    reasons = (claim.words.removeprefix(EXPLORATORY).partition(", so ")[0] for _, claim in claims)
    return " and ".join(dict.fromkeys(reasons))


def _claimed(claims: Sequence[tuple[str, Claim]]) -> str:
    """Of a setting: seeds are counted in. What holds for one combination of the other settings names it."""
    known = [(words, claim) for words, claim in claims if claim.outcome != UNKNOWN]
    num_unknown = len(claims) - len(known)
    rest = f"; of {num_unknown} more nothing can be claimed" if num_unknown else ""
    if len(known) == 1:
        [(words, claim)] = known
        among = f", 1 of {len(claims)} combinations of the other settings" if num_unknown else ""
        return f"With {words}{among}: {claim.words}{rest}." if words else f"{claim.words}."
    better, worse, tied = (sum(claim.outcome == outcome for _, claim in known) for outcome in (BETTER, WORSE, TIE))
    return (f"Training seeds counted in, of {len(known)} combinations of the other settings usefulness is higher in "
            f"{better}, lower in {worse}, and can't be told apart in {tied}{rest}.")


def _useful_change(pairs: Sequence[tuple[TrialResult, TrialResult]]) -> str:
    """With the interval over the pairs; of too few for one, that over the prompts, which speaks of these files."""
    differences = _differences("usefulness", pairs)
    mean, over_pairs = sum(differences) / len(differences), _mean_interval(differences)
    if over_pairs is not None:
        return f"usefulness {signed(mean, *over_pairs)}"
    over_prompts = ahead([(b.answer.score, a.answer.score) for a, b in pairs if a.answer and b.answer])
    said = signed(mean, over_prompts.low, over_prompts.high)
    return f"usefulness {said.replace(')', ' over the prompts)')}"


def _mean_interval(differences: Sequence[float]) -> tuple[float, float] | None:
    """90 %, by Student's t; None for fewer pairs than an interval needs."""
    n = len(differences)
    if n < MIN_UNITS:
        return None
    mean = sum(differences) / n
    interval = jackknife_interval(mean, [(mean * n - d) / (n - 1) for d in differences])
    return None if interval.low is None or interval.high is None else (interval.low, interval.high)


def _differences(name: str, pairs: Sequence[tuple[TrialResult, TrialResult]]) -> list[float]:
    found = []
    for a, b in pairs:
        assert a.answer is not None and b.answer is not None
        x, y = figure_of(a.answer.score, name), figure_of(b.answer.score, name)
        if x is not None and y is not None and x.value is not None and y.value is not None:
            found.append(y.value - x.value)
    return found


def tie_sentence(tied: Sequence[TrialResult], results: Sequence[TrialResult]) -> str:
    """Why no winner is named among these, and why one with as high a figure is not among them."""
    good = any(r.answer is not None and _is_wanted(r.answer.score.verdict) for r in tied)
    start = "A tie" if good else "None is good yet, and a tie"
    best, *others = tied
    shown = ", ".join(f"trial {other.trial.number} by {lead(best, other)}" for other in others[:3])
    apart = "".join(f" Trial {result.trial.number} is not among them: on the same prompts it is behind by "
                    f"{lead(best, result)}, more than chance, though its figure is no lower than one of theirs."
                    for result in outdone(tied, results)[:2])
    return (f"{start}: {len(tied)} trials can't be told apart. Paired by prompt, trial {best.trial.number} is ahead of "
            f"{shown}: within chance, or too little to matter.{apart} {limits_words(results)}").rstrip()


def _tied_files(entry: SweepEntry, tied: Sequence[TrialResult], results_dir: str) -> str:
    named = "; ".join(
        f"`{results_dir}/{file_place(r)}`{at_strength(r.answer)} (trial {r.trial.number}, usefulness "
        f"{figure(usefulness(r))}): {_prompt(entry, r.answer)}" for r in tied[:3] if r.answer is not None)
    return named + (f"; and {len(tied) - 3} more in the table." if len(tied) > 3 else ".")


def _nothing_to_name(results: Sequence[TrialResult], results_dir: str) -> str:
    if not results:
        return "No trial has run yet, so there is no file to name."
    failed = sum(r.status in (FAILED, DIVERGED, REFUSED) for r in results)
    if failed == len(results):
        who = "the trial" if failed == 1 else f"all {failed} trials"
        return f"No file to name: {who} failed. The diary has the reasons."
    for result in results:
        axis = result.answer.score.axes.get("usefulness") if result.answer else None
        if axis is not None and not axis.is_valid:
            return f"No file to name: usefulness can't be known ({axis.reason or 'no reason was recorded'})."
    trained = [r for r in results if r.status in (DONE, PRUNED)]
    where = ", ".join(f"`{results_dir}/{_checkpoints(result)}` (trial {result.trial.number})" for result in trained[:3])
    more = f" and those of {len(trained) - 3} more" if len(trained) > 3 else ""
    return "No file to name: no trial has been scored." + (f" The files lie in {where}{more}." if trained else "")


def _prompt(entry: SweepEntry, answer: Answer) -> str:
    return f"`{prompt_words(entry.subject_words, answer)}`"


def _is_wanted(verdict: str) -> bool:
    return verdict.split("+")[0].strip() in _WANTED


def each_of(rivals: int) -> str:
    """The others that a file was compared with."""
    return "the other trial" if rivals == 1 else f"each of the other {rivals} trials"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def as_sentence(text: str) -> str:
    """A note or a reason as one: a capital in front, a stop behind."""
    text = _one_line(text)
    text = text[:1].upper() + text[1:]
    return text if not text or text[-1] in ".!?" else f"{text}."
