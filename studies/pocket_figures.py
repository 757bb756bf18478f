"""How good a weight set of the pocket base is, on people that no model has seen: `python -m studies.pocket_figures`.

Writes figures.json, README.md and sample sheets into results/pocket/. Shares have 90 % Wilson intervals, means and what
is made of pairs of pictures 90 % bootstrap intervals over people.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from studies.estimates import Figure, Verification, accuracy, mean
from studies.pocket_base import (
    NUM_CHOICES,
    NUM_PROMPTS,
    adherence_figures,
    likeness_figures,
    open_studio,
    unseen_pictures,
)
from sweep.files import sha256_of, write_text
from sweep.pocket import WEIGHTS_DIR, models
from sweep.pocket.captions import SCENE_PHRASES
from sweep.pocket.checkpoint import UNKNOWN
from sweep.pocket.render import render
from sweep.pocket.sheets import write_sheets
from sweep.pocket.train_vae import box_mask, psnr_held_out
from sweep.pocket.world import ATTRIBUTES, People, Shots, draw_people, draw_shots
from sweep.record.provenance import commit, hardware, versions

OUT = Path("results/pocket")
INTERVALS = "90 %: Wilson for shares, bootstrap over people for means and pairs, jackknife over prompts for d'"
NUM_NEGATIVES = 300
NUM_RENDERS = 6000
NUM_FACES = 3000  # of which every two are compared
PHOTOS_PER_PERSON = 4
NUM_SWAPPED = 300
SWAPPED = ("hair_colour", "clothes_colour", "clothes_type", "hat", "scene")
AT_LEAST = {
    "vae_psnr_db": 28.0,
    "face_auc": 0.995,
    **{f"clip_{name}": 0.95 for name in ("hair_colour", "clothes_colour", "glasses", "scene")},
    **{f"judge_{name}": 0.97 for name in ("hair_colour", "clothes_colour", "clothes_type", "scene", "glasses", "hat")},
    "base_scene": 0.97,
    "base_glasses": 0.93,
    "base_clothes_colour": 0.90,
    "base_hair_colour": 0.80,
    "base_retrieval": 0.85,
    "subject_dprime": 3.0,
}
AT_MOST = {"vae_likeness_loss": 0.03, **{f"swapped_{name}": 0.05 for name in SWAPPED}}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m studies.pocket_figures", description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, default=WEIGHTS_DIR, help="folder of a weight set (default: shipped)")
    parser.add_argument("--out", type=Path, default=OUT, help=f"folder to write (default: {OUT.as_posix()})")
    parser.add_argument("--num-prompts", type=int, default=NUM_PROMPTS, help=f"default: {NUM_PROMPTS}")
    asked = parser.parse_args(arguments)
    if asked.num_prompts < 1:
        parser.error(f"--num-prompts {asked.num_prompts}: at least 1")
    write_report(asked.weights, asked.out, asked.num_prompts)


@torch.no_grad()
def write_report(folder: Path, out: Path, num_prompts: int) -> None:
    """Measure everything about the weight set in `folder`; write figures.json, README.md and the sheets into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    made_by = commit()  # before the sheets are written: they are files of the repository, and would count as changes
    studio = open_studio(folder)
    figures: dict[str, Figure] = {"vae_psnr_db": mean(psnr_held_out(studio.base.vae), digits=2)}
    figures |= face_figures(folder) | swap_figures(folder) | clip_figures(folder) | judge_figures(folder)
    adherence, images, prompts = adherence_figures(studio, folder, num_prompts)
    subject, distributions = likeness_figures(studio)
    figures |= adherence | subject
    write_sheets(out, studio.base.vae, images)
    manifest = json.loads((folder / "weights.json").read_text(encoding="utf-8"))
    sampler = studio.scoring.sampler
    report: dict[str, Any] = {
        "command": "python -m studies.pocket_figures",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "hardware": f"{hardware()}, torch threads: {torch.get_num_threads()}",
        "commit": made_by,
        "versions": versions(),
        "intervals": INTERVALS,
        "sampling": {"name": sampler.name, "num_steps": sampler.num_steps, "guidance_scale": sampler.guidance_scale,
                     "prompts": num_prompts},
        "training_steps": manifest.get("steps"),
        "training_samples": manifest.get("samples"),
        "weights_json_sha256": sha256_of(folder / "weights.json"),
        "figures": figures,
        "over_people": distributions,
        "min_dprime": studio.scoring.validity.min_dprime,
        "aims": {name: {"aim": f"{sign} {aim:g}", "reached": sign_holds(sign, figures[name]["value"], aim)}
                 for sign, aims in ((">=", AT_LEAST), ("<=", AT_MOST)) for name, aim in aims.items()
                 if name in figures},
        "first_prompts": prompts[:24],
    }  # fmt: skip
    write_text(out / "figures.json", json.dumps(report, indent=2) + "\n")
    write_text(out / "README.md", page(report))


def sign_holds(sign: str, value: float, aim: float) -> bool:
    """Whether `value` is on the wanted side of `aim`."""
    return value >= aim if sign == ">=" else value <= aim


def judge_figures(folder: Path) -> dict[str, Figure]:
    """Accuracy of the attribute judge on true renders of unseen people."""
    _, people, shots = unseen_pictures(NUM_RENDERS, seed=21)
    judge = models.load_judge(folder / "judge.safetensors")
    parts = [judge.attributes(images) for images in rendered(people, shots)]
    return {f"judge_{name}": accuracy(torch.cat([part[name] for part in parts]).argmax(dim=1), getattr(shots, name))
            for name in ATTRIBUTES}


def rendered(people: People, shots: Shots, size: int = 500) -> Iterator[torch.Tensor]:
    """The pictures, part by part."""
    for rows in torch.arange(len(people)).split(size):
        yield render(people[rows], shots[rows]).images_BCHW


def face_figures(folder: Path) -> dict[str, Figure]:
    """Recogniser and locator on unseen people: same or different person from two photos."""
    face = models.load_face(folder / "face.safetensors")
    # Sunglasses hide the eyes and half-bodies blur them: they count, as in a user's photos.
    person_N, people, shots = unseen_pictures(NUM_FACES, seed=22, per_person=PHOTOS_PER_PERSON, photos_only=True)
    pictures = render(people, shots)
    images = pictures.images_BCHW
    embeddings, painted = face.embed(images), face.embed(painted_over(images, pictures.face_box_B4))
    boxes, confidence = face.locate(images)
    pairs = Verification(embeddings @ embeddings.T, person_N)
    noise = torch.rand(100, 3, 64, 64, generator=torch.Generator().manual_seed(23))
    return {
        "face_auc": pairs.area_under_curve(),
        "face_auc_painted_over": Verification(painted @ painted.T, person_N).area_under_curve(),
        "face_accuracy": pairs.accuracy_at(threshold_of_others(face)),
        "face_same_similarity": mean(pairs.same, pairs.same_person),
        "face_other_similarity": {"value": round(float(pairs.other.mean()), 3), "n": len(pairs.other)},
        "face_box_error_px": mean((boxes - pictures.face_box_B4).abs().mean(dim=1), person_N, digits=2),
        "face_confidence_on_people": mean(confidence, person_N),
        "face_confidence_on_empty_scenes": mean(face.locate(empty_scenes(NUM_NEGATIVES))[1]),
        "face_confidence_on_noise": mean(face.locate(noise)[1]),
    }


def painted_over(images_BCHW: torch.Tensor, boxes_B4: torch.Tensor) -> torch.Tensor:
    """The pictures with their face's box in grey; hair, clothes and scene stay."""
    mask = box_mask(boxes_B4)
    return images_BCHW * (1 - mask) + 0.5 * mask


def swap_figures(folder: Path) -> dict[str, Figure]:
    """How much the likeness of a picture to photos of its person moves when one thing on it is another: the mean of the
    distance over people, under the value that moves it most, over those who did not show it."""
    face = models.load_face(folder / "face.safetensors")
    _, people, shots = unseen_pictures(NUM_SWAPPED * PHOTOS_PER_PERSON, seed=27, per_person=PHOTOS_PER_PERSON,
                                       photos_only=True)
    photos_PRD = torch.cat([face.embed(part) for part in rendered(people, shots)]).unflatten(0, (NUM_SWAPPED, -1))
    first_P = torch.arange(NUM_SWAPPED) * PHOTOS_PER_PERSON
    subjects, taken = people[first_P], draw_shots(people[first_P], seed=28, photos_only=True)

    def likeness_P(seen: Shots) -> torch.Tensor:
        probes_PD = torch.cat([face.embed(part) for part in rendered(subjects, seen)])
        return (photos_PRD @ probes_PD.unsqueeze(2)).mean(dim=(1, 2))

    unmoved_P = likeness_P(taken)
    figures = {}
    for name in SWAPPED:
        moved = [(likeness_P(replace(taken, **{name: torch.full((NUM_SWAPPED,), value)})) - unmoved_P).abs()[
                     getattr(taken, name) != value] for value in range(len(ATTRIBUTES[name]))]
        figures[f"swapped_{name}"] = mean(max(moved, key=lambda moved_P: float(moved_P.mean())))
    return figures


def threshold_of_others(face: Any) -> float:
    """From which similarity on two photos show one person, chosen on people who are neither trained on nor measured."""
    person_N = torch.arange(NUM_NEGATIVES).repeat_interleave(PHOTOS_PER_PERSON)
    others: People = draw_people(NUM_NEGATIVES, seed=32)[person_N]
    embeddings = face.embed(render(others, draw_shots(others, seed=33, photos_only=True)).images_BCHW)
    return Verification(embeddings @ embeddings.T, person_N).best_threshold()


def empty_scenes(num: int) -> torch.Tensor:
    """Pictures with nobody on them."""
    _, people, shots = unseen_pictures(num, seed=24)
    return render(people, shots, torch.zeros(num, dtype=torch.bool)).images_BCHW


def zero_shot_prompts(name: str) -> list[str]:
    """One prompt per value of an attribute; the plainest wording of the captions."""
    said = {
        "hair_colour": "photo of a person with {} hair",
        "clothes_colour": "photo of a person wearing a {} t-shirt",
        "scene": "photo of a person, {}",
        "glasses": "photo of a person wearing {}",
    }[name]
    if name == "scene":
        return [said.format(SCENE_PHRASES[value][0]) for value in ATTRIBUTES[name]]
    return ["photo of a person" if value == "none" else said.format(value) for value in ATTRIBUTES[name]]


def clip_figures(folder: Path) -> dict[str, Figure]:
    """Zero-shot accuracy of CLIP on true photos of unseen people."""
    clip, tokenizer = models.load_clip(folder / "clip")
    _, people, shots = unseen_pictures(NUM_RENDERS, seed=25, photos_only=True)
    image_BD = torch.cat([models.clip_image_features(clip, part) for part in rendered(people, shots)])
    figures = {}
    for name in ("hair_colour", "clothes_colour", "glasses", "scene"):
        text_KD = models.clip_text_features(clip, tokenizer, zero_shot_prompts(name))
        figures[f"clip_{name}"] = accuracy((image_BD @ text_KD.T).argmax(dim=1), getattr(shots, name))
    return figures


def page(report: Mapping[str, Any]) -> str:
    """The figures as a page."""
    sampling = report["sampling"]
    lines = [
        "# The pocket base: how good it is",
        "",
        f"Measured by `{report['command']}` on {report['date']}, {report['hardware']},",
        f"torch {report['versions']['torch']}, commit `{report['commit']}`.",
        f"Intervals: {report['intervals']}.",
        "No model was trained on any of these people.",
        "",
        "`face_auc_painted_over`: the same with a grey box over the face: above .5 by what the recogniser sees when it",
        "looks beside the face that is not there. `swapped_*`: how far the likeness of a photo moves, either way, when",
        "this one thing on it is another, under the value that moves it most, over the people who did not show it.",
        "`vae_likeness_loss`: by how much a photo is less like its person",
        f"after the autoencoder. `base_retrieval`: CLIP finds a picture's own prompt among {NUM_CHOICES};",
        "`renders_retrieval`: the same of true pictures.",
        "",
        "`base_*`: how often the attribute judge finds what a prompt names, one picture for each of "
        f"{sampling['prompts']} prompts",
        f"({sampling['name']}, {sampling['num_steps']} steps, guidance {sampling['guidance_scale']:g}, as scores are "
        "drawn); the judge's own errors are in it.",
        "`balanced`: the mean over an attribute's values. `commonest`: what always answering the commonest value would "
        "reach.",
        "",
        "| figure | value | 90 % interval | n | balanced | commonest | aim |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, figure in report["figures"].items():
        interval = f"{figure['low']} to {figure['high']}" if "low" in figure else ""
        aim = report["aims"].get(name)
        said = "" if aim is None else f"{aim['aim']} {'reached' if aim['reached'] else 'missed'}"
        beside = f"{figure.get('balanced', '')} | {figure.get('majority', '')}"
        lines.append(f"| {name} | {figure['value']} | {interval} | {figure['n']} | {beside} | {said} |")
    lines += [
        "",
        "## Whose likeness can be measured",
        "",
        "Over the held-out people, each against what the base draws of their sex by itself on scoring's face prompts:",
        "`floor` the likeness of those faces, `ceiling` that of the person's photos after the autoencoder, `renders`",
        "before it, `dprime` the distance of floor and ceiling in standard deviations. Of the default subject,",
        "`subject_*` above, the jackknife and `n` of d' are over prompts.",
        "",
        "| likeness | median | quartiles | people |",
        "|---|---|---|---|",
    ]
    for name, figure in report["over_people"].items():
        quartiles = f"{figure['q25']} to {figure['q75']}"
        lines.append(f"| {name} | {figure['value']} | {quartiles} | {figure['n']} |")
    lines += [""]
    for name, figure in report["over_people"].items():
        if "measurable" in figure:
            enough = figure["measurable"]
            lines.append(
                f"{name} reaches the {report['min_dprime']:g} from which on scoring trusts likeness for a share of "
                f"{enough['value']} ({enough['low']} to {enough['high']})."
            )
    lines += [
        "",
        *_continued(report),
        f"Training steps: {report['training_steps']}. sha256 of `weights.json`: `{report['weights_json_sha256']}`.",
        "",
        "`world.png`: true renders, a person per row. `vae.png`: true above, reconstructed below. `base.png`: the base",
        "on the first 24 prompts, listed in `figures.json`.",
    ]
    return "\n".join(lines) + "\n"


def _continued(report: Mapping[str, Any]) -> list[str]:
    """What a fresh build would not repeat bit for bit."""
    parts = [name for name, samples in report["training_samples"].items() if samples == UNKNOWN]
    return [f"Trained on from checkpoints of an earlier recipe, so a fresh build gives other bits: {', '.join(parts)}.",
            ""] if parts else []


if __name__ == "__main__":
    main()
