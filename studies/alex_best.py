"""Does the sweep's own search beat the eleven? Its file and theirs, each at its best, on new prompts and noise.

Two searches from the tutorial's recipe, one on each base that the eleven lie on, with all 25 photos: figures of two
bases, each between its own floor and ceiling, are not compared. Every training of the diary stands for its best: the
file and strength that the sweep names, which the diary's author did not have. All are drawn on prompts that played no
part in any choice, with seeds that chose nothing, since the best of many looks better than it is; differences are
paired by prompt. They are differences of files: each stands for one training.

What is searched is the fifth try on this subject; docs/alex.md says what was wrong with the four before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

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
# given up early: beside regularisation images the face comes late, and the curves cross.
SEARCH = ("search=tpe", "search.start_from=tutorial", f"search.num_trials={NUM_TRIALS}", "experiment=tutorial",
          "optimizer=adamw", "network_alpha=null", "dataset.generate_reg=375",
          "unet_lr=tag(log, interval(2e-5,1e-3))", "text_encoder_lr=tag(log, interval(2e-5,1e-3))",
          "network_dim=choice(32,128)", "max_train_epochs=range(2,9)", "search.num_startup_trials=8",
          "search.pruning.rule=none", "scoring.confirm.num_seeds=2", "pack.max_trials=4", "tracker=none",
          "launcher.devices=2", "launcher.threads=1")
NUM_PROMPTS = 24
NUM_CLASS_PROMPTS = 8
_SHOWN = ("likeness", "adherence", "memorisation", "diversity", "bleed", "usefulness")
# Six seeds: where one image in fifty is a copy, fifty images say little about how useful the file is.
FRESH = Stage(prompts="all", first_seed=9100, num_seeds=6, num_varied=5, num_captions=0, num_bare=0, num_class=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A training at its best. score: on what is new; None, and why, if it has no file that may be named."""

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
class Contest:
    """One base's search and the diary's trainings on that base. leads: of the search's file, by rival."""

    base: str
    settings: Mapping[str, object]
    num_trials: int
    num_ties: int
    best: Drawn
    rivals: tuple[Drawn, ...]
    leads: tuple[Interval | None, ...]


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
    """best.json and best.md; returns what came out in a sentence. Raises ValueError if a search is not done or names no
    file."""
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
    return record


def _contest(painter: _Painter, base: str, record: Record, eleven: Mapping[int, TrialResult]) -> Contest:
    winner, ties = best_results(record.results)
    if winner is None:
        raise ValueError(f"The search on {base} has no valid score.")
    best = painter.draw(winner, "the search's")
    if best.score is None:
        raise ValueError(f"The file of the search on {base} has no valid usefulness on new prompts: {best.why}.")
    there = [(number, result) for number, result in sorted(eleven.items())
             if train_from_tree(result.trial.config).base_model.name == base]
    rivals = tuple(painter.draw(result, f"LoRA{number}") for number, result in there)
    return Contest(base=base, settings=dict(winner.trial.settings), num_trials=len(record.results), num_ties=len(ties),
                   best=best, rivals=rivals, leads=tuple(
                       None if rival.score is None else ahead([(best.score, rival.score)]) for rival in rivals))


def sentence_of(contests: Sequence[Contest]) -> str:
    """How many of the eleven the searches' files beat, tie with and lose to, on their own bases."""
    counts = {"better than": 0, "not to be told from": 0, "worse than": 0, "without a rival in": 0}
    for contest in contests:
        for lead in contest.leads:
            counts[_how(lead)] += 1
    told = ", ".join(f"{how} {n}" for how, n in counts.items() if n)
    return f"On new prompts and noise the search's file is {told} of the {sum(counts.values())}, each on its own base."


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

    def draw(self, result: TrialResult, what: str) -> Drawn:
        config = train_from_tree(result.trial.config)
        name = config.base_model.name
        dataset = read_dataset(config.dataset, trigger=config.trigger, class_noun=config.class_noun,
                               repeats=config.repeats)
        drawn = Drawn(what=what, base=name, num_photos=len(dataset.photos), num_steps=result.step, score=None,
                      why="the sweep names no file")
        if result.answer is None or result.answer.score.axes["usefulness"].value is None:
            return drawn
        answer, folder = result.answer, trial_folder(self.results, result.trial.train_id)
        if name not in self._bases:
            self._bases[name] = load_base(config.base_model, base_identity(config.base_model, self.results))
        scorer = Scorer(self._bases[name], find_layers(self._bases[name]), self.scoring, dataset, self.results)
        request = ScoreRequest(file=folder.checkpoints / answer.file, epoch=answer.epoch, step=answer.score.step,
                               scores_dir=self.results / "best-scores", images_dir=self.results / "best-scores",
                               strength=answer.strength, guidance_scale=answer.score.guidance_scale)
        [score] = scorer.score([request], "confirm")
        axis = score.axes["usefulness"]
        return replace(drawn, num_steps=score.step, score=score if axis.is_valid else None, why=axis.reason)


def fresh() -> ScoringConfig:
    """The shipped scoring, with prompts and noise that no sweep has drawn."""
    scoring = shipped()
    known = {prompt.text for prompt in scoring.prompts}
    new = [prompt for prompt in pool_prompts(NUM_PROMPTS + len(known)) if prompt.text not in known]
    of_class = [text for text in class_prompts(2 * NUM_CLASS_PROMPTS) if text not in scoring.class_prompts]
    return replace(scoring, prompts=tuple(new[:NUM_PROMPTS]), class_prompts=tuple(of_class[:NUM_CLASS_PROMPTS]),
                   confirm=FRESH)


def _page(contests: Sequence[Contest], sentence: str) -> list[str]:
    lines = ["# The search's files against the eleven", "", sentence, "",
             "Each training stands for its best, the file and strength that the sweep names. All are drawn again on",
             f"{NUM_PROMPTS} prompts, {NUM_CLASS_PROMPTS} of the class, with seeds that played no part in any choice;",
             "the lead is paired by prompt, with its 90 % interval. It is a lead of files, one training each, and the",
             "photos differ in number where the diary's do."]
    for contest in contests:
        settings = ", ".join(f"{key} {value_text(value)}" for key, value in contest.settings.items())
        ties = f", tied with {contest.num_ties} of them" if contest.num_ties else ""
        lines += ["", f"## On {contest.base}", "", f"The search's setting, of {contest.num_trials} trials{ties}: "
                  f"{settings}.", "",
                  f"| training | photos | steps | file | {' | '.join(_SHOWN)} | verdict | the search's lead |",
                  "|---" * (len(_SHOWN) + 6) + "|"]
        for drawn, lead in zip((contest.best, *contest.rivals), (None, *contest.leads), strict=True):
            cells = [figure(figure_of(drawn.score, name)) if drawn.score else "" for name in _SHOWN]
            lines.append(f"| {drawn.what} | {drawn.num_photos} | {drawn.num_steps} | {drawn.file} | "
                         f"{' | '.join(cells)} | "
                         f"{drawn.score.verdict if drawn.score else drawn.why} | "
                         f"{_lead_cell(contest.best, drawn, lead)} |")
    command = " ".join(f"'{part}'" if "(" in part else part for part in SEARCH)
    return [*lines, "", "The searches:", "",
            *(f"    python train.py -m sweep.name={search_name(base)} base_model={base} {command}" for base in BASES)]


def _lead_cell(best: Drawn, rival: Drawn, lead: Interval | None) -> str:
    if lead is None or best.score is None or rival.score is None:
        return ""
    one, other = (drawn.axes["usefulness"].value for drawn in (best.score, rival.score))
    assert one is not None and other is not None, "valid"
    bounds = "" if lead.low is None else f" ({lead.low:+.2f} to {lead.high:+.2f})"
    return f"{one - other:+.2f}{bounds}: {_how(lead).removesuffix(' than')}"
