"""Does the sweep's own search beat the eleven? Its file and two of each of theirs, on new prompts and noise.

Two searches from the tutorial's recipe, one on each base that the eleven lie on, with 14 or all 25 photos, as the diary
has: figures of two bases, each between its own floor and ceiling, are not compared. Every training of the diary stands
once for the file and strength that the sweep names, which its author did not have, and once for what we take the author
to have judged: the last file at strength 1. All are drawn on prompts and seeds by which no file was chosen, since the
best of many looks better than it is; differences are paired by prompt. They are differences of files: each stands for
one training.

What is searched is the seventh try on this subject; docs/alex.md says what was wrong with the six before. Since their
contests told what to try next, this one has other prompts than they had.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from studies.alex_words import last_score
from studies.image_pool import class_prompts, pool_prompts, shipped
from studies.sweeps import run_sweep
from sweep.comparison import Interval, ahead
from sweep.data.folder import read_dataset
from sweep.evaluation.scorer import Scorer, ScoreRequest
from sweep.evaluation.settings import ScoringConfig, Stage
from sweep.files import write_json, write_text
from sweep.identity import base_identity
from sweep.model.base import Base
from sweep.model.loading import load_base
from sweep.network.targets import find_layers
from sweep.record.best import best_results
from sweep.record.facts import Record, read_record
from sweep.record.figures import figure_of
from sweep.record.provenance import commit, hardware
from sweep.record.sentences import figure, value_text
from sweep.train_config import train_from_tree
from sweep.trial import FINISHED, Score, TrialResult, to_json, trial_folder

BASES = ("pocket", "pocket_rv")
NUM_TRIALS = 20
# Captioned, as the tutorial's recipe is, beside as many regularisation images as photos, and both rates are searched.
# Four to a pack, so that most are proposed after some have been told; each is told by twice the usual images. None is
# given up early: beside regularisation images the face comes late, and the curves cross. An epoch is as long with 14
# photos as with 25 (each 15 times, the tutorial's), so that their number does not stand for the steps.
SEARCH = ("search=tpe", "search.start_from=tutorial_25", f"search.num_trials={NUM_TRIALS}", "experiment=tutorial",
          "optimizer=adamw", "network_alpha=null", "dataset.generate_reg=375", "repeats=null", "steps_per_epoch=375",
          "unet_lr=tag(log, interval(2e-5,1e-3))", "text_encoder_lr=tag(log, interval(2e-5,1e-3))",
          "network_dim=choice(32,128)", "max_train_epochs=range(2,9)", "dataset.num_images=choice(14,25)",
          "search.num_startup_trials=8", "search.pruning.rule=none", "scoring.confirm.num_seeds=2",
          "pack.max_trials=4", "tracker=none", "launcher.devices=2", "launcher.threads=1")
NUM_PROMPTS = 24
NUM_CLASS_PROMPTS = 8
# Of the pool; the first ones were drawn by the contests before and by a probe between them, which shaped the search.
NUM_SEEN, NUM_CLASS_SEEN = 48, 16
_HOWS = ("better than", "not to be told from", "worse than", "without a rival in")
_SHOWN = ("likeness", "adherence", "memorisation", "diversity", "bleed", "usefulness")
# Six seeds: where one image in fifty is a copy, fifty images say little about how useful the file is.
FRESH = Stage(prompts="all", first_seed=9200, num_seeds=6, num_varied=5, num_captions=0, num_bare=0, num_class=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A file of a training. score: on what is new; None, and why, if there is no such file or it can't be scored."""

    what: str
    base: str
    num_photos: int
    num_steps: int
    score: Score | None
    why: str = ""

    @property
    def file(self) -> str:
        return f"{self.score.file} at {self.score.strength:g}" if self.score else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """A file of one of the eleven. lead: of the search's file over it; None where there is no such file."""

    drawn: Drawn
    lead: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """One base's search and the diary's trainings on that base: by the files that the sweep names, and by the last ones
    at strength 1."""

    base: str
    settings: Mapping[str, object]
    num_trials: int
    num_ties: int
    best: Drawn
    named: tuple[Rival, ...]
    last: tuple[Rival, ...]


def search_name(base: str) -> str:
    """The sweep of a base's search."""
    return f"alex-search-{base.replace('_', '-')}"


def search_arguments(base: str, results: Path, extra: Sequence[str]) -> list[str]:
    """What a user would type after train.py -m."""
    return [f"sweep.name={search_name(base)}", f"base_model={base}", *SEARCH, f"sweep.results_dir={results}", *extra]


def search(results: Path, extra: Sequence[str]) -> None:
    """Both searches; the same call goes on after a kill."""
    for base in BASES:
        run_sweep(search_arguments(base, results, extra))


def write_best(results: Path, eleven: Mapping[int, TrialResult], out: Path) -> str:
    """best.json and best.md; returns what came out in a sentence. Raises ValueError if a search is not done, not this
    one, or names no file."""
    records = {base: _finished(results, base) for base in BASES}
    painter = _Painter(results)
    contests = [_contest(painter, base, record, eleven) for base, record in records.items()]
    sentence = sentence_of(contests)
    write_json(out / "best.json", {"says": sentence, "commit": commit(), "hardware": hardware(),
                                   "contests": [to_json(contest) for contest in contests]})
    write_text(out / "best.md", "\n".join(_page(contests, sentence)) + "\n")
    return sentence


def _finished(results: Path, base: str) -> Record:
    folder = results / search_name(base)
    record = read_record(folder) if (folder / "sweep.yaml").exists() else None
    num_done = 0 if record is None else sum(result.status in FINISHED for result in record.results)
    if record is None or num_done < NUM_TRIALS:
        raise ValueError(f"The search on {base} has {num_done} of {NUM_TRIALS} trials in {folder}; the same command "
                         "without --report-only goes on with it.")
    if other := [part for part in SEARCH if part not in shlex.split(record.entry.command)]:
        raise ValueError(f"The sweep in {folder} is another search, without {' '.join(other)}. Move it away, or give "
                         "another --results.")
    return record


def _contest(painter: _Painter, base: str, record: Record, eleven: Mapping[int, TrialResult]) -> Contest:
    winner, ties = best_results(record.results)
    if winner is None:
        raise ValueError(f"The search on {base} has no valid score.")
    best = painter.draw(winner, "the search's", _named(winner))
    ours = best.score
    if ours is None:
        raise ValueError(f"The file of the search on {base} has no valid usefulness on new prompts: {best.why}.")

    def rivals(score_of: Callable[[TrialResult], Score | None]) -> tuple[Rival, ...]:
        drawn = (painter.draw(result, f"LoRA{number}", score_of(result)) for number, result in sorted(eleven.items())
                 if train_from_tree(result.trial.config).base_model.name == base)
        return tuple(Rival(drawn=one, lead=None if one.score is None else ahead([(ours, one.score)]))
                     for one in drawn)

    return Contest(base=base, settings=dict(winner.trial.settings), num_trials=len(record.results), num_ties=len(ties),
                   best=best, named=rivals(_named), last=rivals(last_score))


def _named(result: TrialResult) -> Score | None:
    return None if result.answer is None else result.answer.score


def sentence_of(contests: Sequence[Contest]) -> str:
    """How many of the eleven the searches' files beat, tie with and lose to, on their own bases."""
    named = [rival for contest in contests for rival in contest.named]
    last = [rival for contest in contests for rival in contest.last]
    return (f"On new prompts and noise the search's file is {_counted(named)} of the {len(named)} by the files that "
            f"the sweep names, and {_counted(last)} by the last ones at strength 1; each on its own base.")


def _counted(rivals: Sequence[Rival]) -> str:
    hows = [_how(rival.lead) for rival in rivals]
    return ", ".join(f"{how} {hows.count(how)}" for how in _HOWS if how in hows)


def _how(lead: Interval | None) -> str:
    if lead is None:
        return "without a rival in"
    if lead.low is None or lead.high is None or lead.low <= 0 <= lead.high:
        return "not to be told from"
    return "better than" if lead.low > 0 else "worse than"


class _Painter:
    """Draws a trial's named file anew on the trial's own base, against its own photos."""

    def __init__(self, results: Path):
        self.results, self.scoring = results, fresh()
        self._bases: dict[str, Base] = {}

    def draw(self, result: TrialResult, what: str, known: Score | None) -> Drawn:
        """known: of the file, as the sweep scored it."""
        config = train_from_tree(result.trial.config)
        name = config.base_model.name
        dataset = read_dataset(config.dataset, trigger=config.trigger, class_noun=config.class_noun,
                               repeats=config.repeats)
        if known is None:
            return Drawn(what=what, base=name, num_photos=len(dataset.photos), num_steps=result.step, score=None,
                         why="there is no such file")
        if name not in self._bases:
            self._bases[name] = load_base(config.base_model, base_identity(config.base_model, self.results))
        scorer = Scorer(self._bases[name], find_layers(self._bases[name]), self.scoring, dataset, self.results)
        scores = self.results / "best-scores"
        file = trial_folder(self.results, result.trial.train_id).checkpoints / known.file
        request = ScoreRequest(file=file, epoch=known.epoch, step=known.step, scores_dir=scores, images_dir=scores,
                               strength=known.strength, guidance_scale=known.guidance_scale)
        [score] = scorer.score([request], "confirm")
        axis = score.axes["usefulness"]
        return Drawn(what=what, base=name, num_photos=len(dataset.photos), num_steps=score.step,
                     score=score if axis.is_valid else None, why=axis.reason)


def fresh() -> ScoringConfig:
    """The shipped scoring, with prompts and noise that no sweep has drawn."""
    scoring = shipped()
    known = {prompt.text for prompt in scoring.prompts}
    new = [prompt for prompt in pool_prompts(NUM_SEEN + NUM_PROMPTS + len(known)) if prompt.text not in known]
    num_class = NUM_CLASS_SEEN + NUM_CLASS_PROMPTS + len(scoring.class_prompts)
    of_class = [text for text in class_prompts(num_class) if text not in scoring.class_prompts]
    return replace(scoring, prompts=tuple(new[NUM_SEEN:NUM_SEEN + NUM_PROMPTS]),
                   class_prompts=tuple(of_class[NUM_CLASS_SEEN:NUM_CLASS_SEEN + NUM_CLASS_PROMPTS]), confirm=FRESH)


def _page(contests: Sequence[Contest], sentence: str) -> list[str]:
    lines = ["# The search's files against the eleven", "", sentence, "",
             f"All are drawn again on {NUM_PROMPTS} prompts, {NUM_CLASS_PROMPTS} of the class, with seeds that played",
             "no part in any choice; the lead is paired by prompt, with its 90 % interval. It is a lead of files, one",
             "training each, and the photos differ in number where the diary's do."]
    for contest in contests:
        settings = ", ".join(f"{key} {value_text(value)}" for key, value in contest.settings.items())
        ties = f", tied with {contest.num_ties} of them" if contest.num_ties else ""
        lines += ["", f"## On {contest.base}", "", f"The search's setting, of {contest.num_trials} trials{ties}: "
                  f"{settings}."]
        lines += _table("Against the files that the sweep names", contest.best, contest.named)
        lines += _table("Against the last files at strength 1", contest.best, contest.last)
    command = " ".join(f"'{part}'" if "(" in part else part for part in SEARCH)
    return [*lines, "", "The searches:", "",
            *(f"    python train.py -m sweep.name={search_name(base)} base_model={base} {command}" for base in BASES)]


def _table(title: str, best: Drawn, rivals: Sequence[Rival]) -> list[str]:
    lines = ["", f"### {title}", "",
             f"| training | photos | steps | file | {' | '.join(_SHOWN)} | verdict | the search's lead |",
             "|---" * (len(_SHOWN) + 6) + "|"]
    for drawn, lead in ((best, None), *((rival.drawn, rival.lead) for rival in rivals)):
        cells = [figure(figure_of(drawn.score, name)) if drawn.score else "" for name in _SHOWN]
        lines.append(f"| {drawn.what} | {drawn.num_photos} | {drawn.num_steps} | {drawn.file} | {' | '.join(cells)} | "
                     f"{drawn.score.verdict if drawn.score else drawn.why} | {_lead_cell(best, drawn, lead)} |")
    return lines


def _lead_cell(best: Drawn, rival: Drawn, lead: Interval | None) -> str:
    if lead is None or best.score is None or rival.score is None:
        return ""
    one, other = (drawn.axes["usefulness"].value for drawn in (best.score, rival.score))
    assert one is not None and other is not None, "valid"
    bounds = "" if lead.low is None else f" ({lead.low:+.2f} to {lead.high:+.2f})"
    return f"{one - other:+.2f}{bounds}: {_how(lead).removesuffix(' than')}"
