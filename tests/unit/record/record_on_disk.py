"""A whole sweep on disk, made by hand with drawn images: what the views of the record are tested on."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import record_examples as examples
import torch

from sweep.evaluation.cells import Cell
from sweep.evaluation.sheet import write_sheet
from sweep.files import append_jsonl, sha256_of, write_json
from sweep.record.entry import write_entry
from sweep.record.facts import Facts, add_facts
from sweep.schema import to_tree
from sweep.trial import DIVERGED, DONE, Answer, Score, Status, Trial, to_json, trial_folder

HOSTILE = "<script>window.hacked=1</script>"
HOSTILE_IMAGE = '<img src=x onerror="window.hacked=1">'
DIMS, RATES = (4, 8, 16, 32, 64), (1e-5, 5e-5, 1e-4, 5e-4)
NUM_PHOTOS = 6


def make_sweep(results_dir: Path, *, num_trials: int = 6, num_checkpoints: int = 3, num_steps: int = 120,
               num_sheets: int | None = None, name: str = "alex", real_configs: bool = False,
               guidance_scales: tuple[float, ...] = ()) -> Path:
    """Write a sweep over network_dim, unet_lr and seed; returns its folder. Captions and names are hostile.

    num_sheets: so many trials get images; None = all. real_configs: trials have a whole config, composed from conf/.
    guidance_scales: the last checkpoint is refined at each of them too, beside the sampler's own 7, at strength 0.8.
    """
    sweep_dir = results_dir / name
    photos = _photos(results_dir)
    base = _composed() if real_configs else {"trigger": "alexq"}
    cells = list(itertools.product(range(1, 99), RATES, DIMS))[:num_trials]
    write_entry(sweep_dir / "sweep.yaml", examples.entry(
        name=name, swept_keys=("network_dim", "unet_lr", "seed"), note=f"first try {HOSTILE}",
        dataset=f"photos/{HOSTILE_IMAGE}"))
    trials = []
    for number, (seed, rate, dim) in enumerate(cells, start=1):
        trial = Trial(number=number, train_id=f"{number:012x}", num_steps=num_steps,
                      settings={"network_dim": dim, "unet_lr": rate, "seed": seed},
                      config={**base, "network_dim": dim, "unet_lr": rate, "seed": seed})
        trials.append(trial)
        append_jsonl(sweep_dir / "trials.jsonl", to_json(trial))
        _fill(results_dir, trial, num_checkpoints, guidance_scales,
              has_images=num_sheets is None or number <= num_sheets)
    add_facts(sweep_dir, Facts(scoring_ids={t.train_id: "s1" for t in trials}, photos={"p": photos},
                               photos_of={t.train_id: "p" for t in trials}, copy_distance=0.25,
                               sampler={"name": "dpmpp_2m_karras", "num_steps": 20, "guidance_scale": 7.0,
                                        "negative_prompt": ""}))
    return sweep_dir


def _composed() -> dict[str, Any]:
    from hydra import compose, initialize_config_dir

    from sweep.command_line import CONF_DIR
    from sweep.config import load

    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        tree: dict[str, Any] = to_tree(load(compose("config")).train)
    return tree


def _photos(results_dir: Path) -> list[dict[str, str]]:
    from PIL import Image

    rows = []
    for i in range(NUM_PHOTOS):
        path = results_dir.parent / "photos" / f"{i:03d} & co.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (80, 64), (40 * i, 90, 200 - 30 * i)).save(path)
        rows.append({"path": str(path), "caption": f"photo of alexq man {HOSTILE} {i}"})
    return rows


def _fill(results_dir: Path, trial: Trial, num_checkpoints: int, guidance_scales: tuple[float, ...], *,
          has_images: bool) -> None:
    folder = trial_folder(results_dir, trial.train_id)
    if trial.number % 9 == 0:
        write_json(folder.status, to_json(Status(status=DIVERGED, phase="", step=7, num_steps=trial.num_steps,
                                                 is_trained=True, attributed_s=9.0, reason=f"loss nan {HOSTILE}")))
        return
    write_json(folder.status, to_json(Status(status=DONE, phase="", step=trial.num_steps, num_steps=trial.num_steps,
                                             is_trained=True, attributed_s=60.0 + trial.number)))
    for step in range(1, trial.num_steps + 1):
        append_jsonl(folder.metrics, {"kind": "train", "step": step, "epoch": 1 + step * 3 // trial.num_steps,
                                      "loss": 0.1 + 1 / (step + trial.number), "unet_lr": 1e-4, "text_encoder_lr": 5e-5,
                                      "used_unet_lr": 2e-4, "grad_norm": 0.5, "attributed_s": step * 0.1,
                                      "memory_gib": 1.5})
    scores = [_score(trial, folder.checkpoints, k, num_checkpoints, "screen", 1.0) for k in range(num_checkpoints)]
    for score in scores:
        append_jsonl(folder.metrics, {"kind": "validation", "step": score.step, "epoch": score.epoch, "loss": 0.12,
                                      "buckets": {"0": 0.1, "1": 0.14}, "attributed_s": 60.0})
        append_jsonl(folder.metrics, {"kind": "score", "step": score.step, "epoch": score.epoch,
                                      "score": to_json(score), "attributed_s": 61.0})
    scores += [_score(trial, folder.checkpoints, num_checkpoints - 1, num_checkpoints, "refine", s) for s in (0.8, 0.6)]
    scores += [dataclasses.replace(scores[-2], score_id=f"{scores[-2].score_id}g{scale:g}", guidance_scale=scale)
               for scale in guidance_scales]
    final = _score(trial, folder.checkpoints, num_checkpoints - 1, num_checkpoints, "confirm", 0.8)
    for score in (*scores, final):
        write_json(folder.scores / f"{score.score_id}.json", to_json(score))
        if has_images:
            _sheet(folder.images / f"{score.score_id}.png", score, trial)
    write_json(folder.answer("s1"), to_json(Answer(
        file=final.file, epoch=final.epoch, step=final.step, strength=final.strength, score=final,
        reason=f"epoch {final.epoch} at 0.8")))


def _score(trial: Trial, checkpoints: Path, k: int, num_checkpoints: int, stage: str, strength: float) -> Score:
    is_last = k == num_checkpoints - 1
    name = f"alexq-{trial.train_id}{'' if is_last else f'-{k + 1:06d}'}.safetensors"
    path = checkpoints / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"{trial.train_id} {k}".encode())
    dim, rate = trial.settings["network_dim"], trial.settings["unet_lr"]
    goodness = 0.15 + 0.1 * math.log2(dim) + 0.05 * (k - num_checkpoints) + 0.02 * math.sin(trial.number)
    likeness = min(1.0, goodness + 0.1 * (5 + math.log10(rate)))
    useful = min(0.95, 0.2 + 0.6 * likeness)
    plain = examples.score((useful, useful - 0.06, useful + 0.06), verdict="good" if useful > 0.6 else "underfit",
                           epoch=k + 1, stage=stage,
                           score_id=f"{trial.train_id}{stage}{strength:g}k{k}", pattern=1 + trial.number % 7,
                           likeness=likeness, adherence=1.0 - 0.4 * likeness, memorisation=max(0.0, likeness - 0.6))
    return dataclasses.replace(plain, file=name, file_sha256=sha256_of(path), strength=strength,
                               step=trial.num_steps * (k + 1) // num_checkpoints)


def _sheet(path: Path, score: Score, trial: Trial) -> None:
    first_seed = 1000 if score.stage == "confirm" else 0
    cells = [Cell("prompt", p, first_seed, f"photo of alexq man, prompt {p} {HOSTILE}", "photo of a man")
             for p in range(8)]
    if score.stage == "confirm":
        cells += [Cell("caption", 2, first_seed, f"photo of alexq man {HOSTILE} 2", "photo of a man"),
                  Cell("bare", 0, first_seed, "alexq man", "man"),
                  Cell("class", 0, first_seed, "photo of a man, portrait", "photo of a man, portrait")]
    shade = torch.linspace(0, 1, len(cells)).view(-1, 1, 1, 1).expand(-1, 3, 64, 64).clone()
    shade[:, trial.number % 3] *= score.strength
    shade[:, :, :8 * score.epoch] = 0.9
    facts: list[dict[str, Any]] = [{"scores": f"likeness 0.{p}{trial.number}, hair red 0.9{p}", "is_broken": False,
                                    "nearest": 0.6 - 0.06 * p - 0.001 * trial.number, "nearest_photo": p % NUM_PHOTOS}
                                   for p in range(len(cells))]
    write_sheet(path, shade, cells, ["a line"] * len(cells), "title", facts)
