"""The eleven side by side: each image in the row of its training and the column of its prompt or epoch."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from studies.alex_pictures import LABEL, SIDE, write_pictures
from sweep.evaluation.cells import Cell
from sweep.evaluation.sheet import MARGIN, write_sheet
from sweep.record.entry import SweepEntry
from sweep.record.facts import Facts, Record
from sweep.trial import DONE, Score, Trial, TrialResult, trial_folder

CELLS = (Cell("prompt", 3, 0, "red shirt", "red shirt"), Cell("prompt", 2, 0, "hoodie", "hoodie"),
         Cell("prompt", 9, 0, "not shown", "not shown"))
SCORE = Score(score_id="s", scoring_id="i", file="f", file_sha256="h", epoch=1, step=1, strength=1.0, stage="screen",
              num_images=3, axes={}, details={}, replicates={}, verdict="good", notes=(), elapsed_s=0.0)


def _result(results_dir: Path, number: int, epochs: int) -> TrialResult:
    trial = Trial(number=number, train_id=f"id{number}", settings={}, config={}, num_steps=epochs * 10)
    scores = []
    for epoch in range(1, epochs + 1):
        score = replace(SCORE, score_id=f"s{number}{epoch}", epoch=epoch, step=epoch * 10)
        shades = torch.tensor([number * 0.2, epoch * 0.2, 1.0]).reshape(3, 1, 1, 1).expand(3, 3, 64, 64)
        write_sheet(trial_folder(results_dir, trial.train_id).images / f"{score.score_id}.png", shades, CELLS,
                    ["", "", ""], "")
        scores.append(score)
    weak = replace(SCORE, score_id="weak", step=epochs * 10, strength=0.5)
    return TrialResult(trial=trial, status=DONE, step=epochs * 10, attributed_s=1.0, answer=None,
                       scores=(weak, *scores), reason="")


def _shade(picture: Image.Image, row: int, column: int, num_rows: int) -> float:
    top = picture.height - num_rows * (SIDE + MARGIN)
    at = (LABEL + column * (SIDE + MARGIN) + SIDE // 2, top + row * (SIDE + MARGIN) + SIDE // 2)
    return round(picture.convert("L").getpixel(at) / 255, 1)


def test_rows_are_trainings_and_columns_prompts_or_epochs(tmp_path: Path) -> None:
    results = {number: _result(tmp_path, number, epochs) for number, epochs in ((2, 1), (1, 3))}
    photo = io.BytesIO()
    Image.new("RGB", (64, 64), (153, 153, 153)).save(photo, "PNG")
    (tmp_path / "a.png").write_bytes(photo.getvalue())
    record = Record(dir=tmp_path / "alex", entry=_entry(), results=tuple(results.values()),
                    facts=Facts(photos={"p": [{"path": str(tmp_path / "a.png"), "caption": ""}]}))
    write_pictures(record, results)
    by_prompt = Image.open(tmp_path / "alex" / "prompts.webp")
    assert by_prompt.width == LABEL + 2 * (SIDE + MARGIN) + MARGIN, "the prompts that are shown, no more"
    # a photo; the last file's images, red shirt and hoodie: shades of training and of epoch
    assert [[_shade(by_prompt, row, column, 3) for column in (0, 1)] for row in (0, 1, 2)] == [
        [0.6, 1.0], [0.2, 0.6], [0.4, 0.2]]
    by_epoch = Image.open(tmp_path / "alex" / "epochs.webp")
    assert [[_shade(by_epoch, row, column, 2) for column in range(3)] for row in (0, 1)] == [
        [0.2, 0.2, 0.2], [0.4, 1.0, 1.0]], "a training of one epoch has no second"


def _entry() -> SweepEntry:
    return SweepEntry(name="alex", command="", started="", question={}, swept_keys=("experiment",), trigger=None,
                      class_noun=None, base_model="pocket", dataset="", num_photos=1, hardware="", versions={},
                      commit=None, note="")
