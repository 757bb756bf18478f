"""Does the sweep's own search beat the eleven? Its file and theirs, each at its best, drawn again on fresh noise.

The search starts from the tutorial's recipe, on the pocket base and all 25 photos. Every training of the diary stands
for its best: the file and strength that the sweep names, which the diary's author did not have. All twelve are drawn on
all prompts with seeds that chose nothing, since the best of many looks better than it is. Differences are paired by
prompt, also across the two bases, where each file's figures lie between the floor and the ceiling of its own base.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from studies.image_pool import shipped
from sweep.comparison import Interval, ahead
from sweep.data.folder import read_dataset
from sweep.evaluation.scorer import Scorer, ScoreRequest
from sweep.evaluation.settings import ScoringConfig, Stage
from sweep.files import write_json, write_text
from sweep.identity import base_identity
from sweep.model.loading import load_base
from sweep.network.targets import find_layers
from sweep.record.best import best_results
from sweep.record.facts import read_record
from sweep.record.provenance import commit, hardware
from sweep.record.sentences import figure, value_text
from sweep.train_config import train_from_tree
from sweep.trial import Score, TrialResult, to_json, trial_folder

SEARCH_NAME = "alex-search"
SEARCH = (f"sweep.name={SEARCH_NAME}", "search=tpe", "search.start_from=tutorial", "experiment=tutorial",
          "optimizer=adamw", "network_alpha=null", "unet_lr=tag(log, interval(2e-5,1e-3))",
          "network_dim=choice(8,32,128)", "max_train_epochs=range(2,9)", "dataset.captions=true,false", "tracker=none",
          "launcher.devices=2", "launcher.threads=1")
FRESH = Stage(prompts="all", first_seed=9000, num_seeds=2, num_varied=0, num_captions=4, num_bare=1, num_class=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A training at its best. score: on fresh noise; None, and why, if it has no file that may be named."""

    what: str
    base: str
    score: Score | None
    why: str = ""

    @property
    def file(self) -> str:
        return f"{self.score.file} at {self.score.strength:g}" if self.score else ""


def search(results: Path, extra: Sequence[str]) -> None:
    """What a user would type; the same call goes on after a kill."""
    subprocess.run([sys.executable, "train.py", "-m", *SEARCH, f"sweep.results_dir={results}", *extra], check=True)


def write_best(results: Path, eleven: Mapping[int, TrialResult], out: Path) -> str:
    """best.json and best.md; returns what came out in a sentence. Raises ValueError if the search names no file."""
    winner, ties = best_results(read_record(results / SEARCH_NAME).results)
    if winner is None:
        raise ValueError(f"The search {SEARCH_NAME} has no valid score; the same command goes on with it.")
    painter = _Painter(results)
    best = painter.draw(winner, "the search's")
    if best.score is None:
        raise ValueError(f"The search's file has no valid usefulness on fresh noise: {best.why}.")
    rivals = [painter.draw(result, f"LoRA{number}") for number, result in sorted(eleven.items())]
    leads = [_lead(best.score, rival) for rival in rivals]
    settings = ", ".join(f"{key} {value_text(value)}" for key, value in winner.trial.settings.items())
    sentence = sentence_of(rivals, leads)
    write_json(out / "best.json", {
        "says": sentence, "settings": dict(winner.trial.settings), "trial": winner.trial.number, "ties": len(ties),
        "commit": commit(), "hardware": hardware(), "best": to_json(best),
        "eleven": [{**to_json(rival), "lead": None if lead is None else to_json(lead)}
                   for rival, lead in zip(rivals, leads, strict=True)]})
    write_text(out / "best.md", "\n".join(_page(best, settings, len(ties), rivals, leads, sentence)) + "\n")
    return sentence


def sentence_of(rivals: Sequence[Drawn], leads: Sequence[Interval | None]) -> str:
    """How many of the eleven the search's file beats, ties with and loses to."""
    counts = {"better than": 0, "not to be told from": 0, "worse than": 0, "without a rival in": 0}
    for lead in leads:
        counts[_how(lead)] += 1
    told = ", ".join(f"{how} {n}" for how, n in counts.items() if n)
    return f"On fresh noise the search's file is {told} of the {len(rivals)}."


def _how(lead: Interval | None) -> str:
    if lead is None:
        return "without a rival in"
    if lead.low is None or lead.high is None or lead.low <= 0 <= lead.high:
        return "not to be told from"
    return "better than" if lead.low > 0 else "worse than"


def _lead(best: Score, rival: Drawn) -> Interval | None:
    return None if rival.score is None else ahead([(best, rival.score)])


class _Painter:
    """Draws a trial's named file anew on the trial's own base, against its own photos."""

    def __init__(self, results: Path):
        self.results, self.scoring = results, fresh()
        self._bases: dict[str, Any] = {}

    def draw(self, result: TrialResult, what: str) -> Drawn:
        config = train_from_tree(result.trial.config)
        if result.answer is None or result.answer.score.axes["usefulness"].value is None:
            return Drawn(what=what, base=config.base_model.name, score=None, why="the sweep names no file")
        answer, folder = result.answer, trial_folder(self.results, result.trial.train_id)
        name = config.base_model.name
        if name not in self._bases:
            self._bases[name] = load_base(config.base_model, base_identity(config.base_model, self.results))
        dataset = read_dataset(config.dataset, trigger=config.trigger, class_noun=config.class_noun,
                               repeats=config.repeats)
        scorer = Scorer(self._bases[name], find_layers(self._bases[name]), self.scoring, dataset, self.results)
        request = ScoreRequest(file=folder.checkpoints / answer.file, epoch=answer.epoch, step=answer.score.step,
                               scores_dir=self.results / "best-scores", images_dir=self.results / "best-scores",
                               strength=answer.strength, guidance_scale=answer.score.guidance_scale)
        [score] = scorer.score([request], "confirm")
        axis = score.axes["usefulness"]
        return Drawn(what=what, base=name, score=score if axis.is_valid else None, why=axis.reason)


def fresh() -> ScoringConfig:
    """The shipped scoring, with all prompts on noise that no sweep has drawn."""
    return replace(shipped(), confirm=FRESH)


def _page(best: Drawn, settings: str, num_ties: int, rivals: Sequence[Drawn], leads: Sequence[Interval | None],
          sentence: str) -> list[str]:
    lines = ["# The search's setting against the eleven", "", sentence, "",
             f"Its setting: {settings}" + (f" (tied with {num_ties} other trials of the search)." if num_ties else "."),
             "", "Each training stands for its best, the file and strength that the sweep names. All are drawn again",
             "on all prompts with seeds that chose nothing; the lead is paired by prompt, with its 90 % interval.", "",
             "| training | base | file | likeness | adherence | usefulness | verdict | the search's lead |",
             "|---|---|---|---|---|---|---|---|"]
    for drawn, lead in zip((best, *rivals), (None, *leads), strict=True):
        axes = drawn.score.axes if drawn.score else {}
        cells = [figure(axes.get(name)) if drawn.score else "" for name in ("likeness", "adherence", "usefulness")]
        lines.append(f"| {drawn.what} | {drawn.base} | {drawn.file} | {' | '.join(cells)} | "
                     f"{drawn.score.verdict if drawn.score else drawn.why} | {_lead_cell(best, drawn, lead)} |")
    command = " ".join(f"'{part}'" if "(" in part else part for part in SEARCH)
    return [*lines, "", "The search:", "", f"    python train.py -m {command}"]


def _lead_cell(best: Drawn, rival: Drawn, lead: Interval | None) -> str:
    if lead is None or best.score is None or rival.score is None:
        return ""
    one, other = (drawn.axes["usefulness"].value for drawn in (best.score, rival.score))
    assert one is not None and other is not None, "valid"
    bounds = "" if lead.low is None else f" ({lead.low:+.2f} to {lead.high:+.2f})"
    return f"{one - other:+.2f}{bounds}: {_how(lead).removesuffix(' than')}"
