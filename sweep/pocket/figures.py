"""Stage `figures`: how good a weight set is, measured on people that no model has seen.

Shares come with 90 % Wilson intervals, means with 90 % bootstrap intervals. Writes `figures.json`, `README.md`
and sample sheets to `results/pocket/`.
Legend: B pictures, C channels, H W pixels, D width of an embedding.
"""

from __future__ import annotations

import json
import math
import platform
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sweep.pocket import models
from sweep.pocket.captions import attribute_words, describe
from sweep.pocket.dataset import held_out_pictures
from sweep.pocket.export import sha256
from sweep.pocket.render import Rendered, render
from sweep.pocket.sheets import write_sheets
from sweep.pocket.train_vae import psnr_held_out
from sweep.pocket.world import ATTRIBUTES, Shots

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

RESULTS_DIR = Path("results/pocket")
NUM_PROMPTS = 300
SAMPLING_STEPS = 20
GUIDANCE = 5.0
Z_90 = 1.6449
AIMS = {
    "vae_psnr_db": 26.0,
    "face_auc": 0.99,
    "clip_hair_colour": 0.85,
    "clip_clothes_colour": 0.85,
    "clip_glasses": 0.85,
    "clip_scene": 0.85,
    "base_scene": 0.95,
    "base_glasses": 0.87,
    "base_clothes_colour": 0.80,
    "base_hair_colour": 0.65,
}

Figure = dict[str, Any]


def share(hits_B: torch.Tensor) -> Figure:
    """A share with its 90 % Wilson (1927) interval."""
    num, hits = len(hits_B), float(hits_B.float().sum())
    p, z2 = hits / num, Z_90**2
    middle = (p + z2 / (2 * num)) / (1 + z2 / num)
    half = Z_90 * math.sqrt(p * (1 - p) / num + z2 / (4 * num**2)) / (1 + z2 / num)
    return {"value": round(p, 4), "low": round(middle - half, 4), "high": round(middle + half, 4), "n": num}


def mean(values_B: torch.Tensor, digits: int = 3) -> Figure:
    """A mean with its 90 % bootstrap interval (1000 resamples, seeded)."""
    generator = torch.Generator().manual_seed(0)
    picks = torch.randint(len(values_B), (1000, len(values_B)), generator=generator)
    low, high = values_B[picks].mean(dim=1).quantile(torch.tensor([0.05, 0.95])).tolist()
    return {
        "value": round(float(values_B.mean()), digits),
        "low": round(low, digits),
        "high": round(high, digits),
        "n": len(values_B),
    }


def true_renders(per_person: int, seed: int, photos_only: bool = True) -> tuple[torch.Tensor, Shots, Rendered]:
    """Held-out people rendered: person index, shots, pictures."""
    person_N, people, shots = held_out_pictures(per_person, seed, photos_only)
    return person_N, shots, render(people, shots)


@torch.no_grad()
def judge_figures(folder: Path) -> dict[str, Figure]:
    """Accuracy of the attribute judge on true renders of held-out people."""
    judge = models.load_judge(folder / "judge.safetensors")
    _, shots, rendered = true_renders(2, seed=21, photos_only=False)
    found = judge.attributes(rendered.images_BCHW)
    return {f"judge_{name}": share(found[name].argmax(dim=1) == getattr(shots, name)) for name in ATTRIBUTES}


@torch.no_grad()
def face_figures(folder: Path) -> dict[str, Figure]:
    """Recogniser and locator on held-out people: same or different person from two photos."""
    face = models.load_face(folder / "face.safetensors")
    person_N, _shots, rendered = true_renders(4, seed=22)
    # Sunglasses hide the eyes and half-bodies blur them: they count, as in a user's photos.
    embeddings = face.embed(rendered.images_BCHW)
    boxes, confidence = face.locate(rendered.images_BCHW)
    similarity = embeddings @ embeddings.T
    upper = torch.ones_like(similarity).triu(1).bool()
    same = person_N[:, None] == person_N[None]
    positive, negative = similarity[same & upper], similarity[~same & upper]
    empty = render_empty(300)
    noise = torch.rand(100, 3, 64, 64, generator=torch.Generator().manual_seed(23))
    return {
        "face_auc": {"value": round(area_under_curve(positive, negative), 5), "n": len(positive)},
        "face_accuracy": {"value": round(best_accuracy(positive, negative), 4), "n": len(positive)},
        "face_same_similarity": mean(positive),
        "face_other_similarity": {"value": round(float(negative.mean()), 3), "n": len(negative)},
        "face_box_error_px": mean((boxes - rendered.face_box_B4).abs().mean(dim=1), 2),
        "face_confidence_on_people": mean(confidence),
        "face_confidence_on_empty_scenes": mean(face.locate(empty)[1]),
        "face_confidence_on_noise": mean(face.locate(noise)[1]),
    }


def render_empty(num: int) -> torch.Tensor:
    """Bare scenes."""
    _, people, shots = held_out_pictures(1, seed=24)
    rows = torch.arange(num)
    return render(people[rows], shots[rows], torch.zeros(num, dtype=torch.bool)).images_BCHW


def area_under_curve(positive: torch.Tensor, negative: torch.Tensor) -> float:
    """The chance that a same-person pair is more similar than a pair of different people (ROC AUC)."""
    ordered = negative.sort().values
    return float(torch.searchsorted(ordered, positive).float().mean() / len(ordered))


def best_accuracy(positive: torch.Tensor, negative: torch.Tensor) -> float:
    """Accuracy of same or different at the best threshold, both kinds of pairs weighing the same."""
    thresholds = torch.linspace(-1, 1, 401)
    hit = torch.stack([((positive > t).float().mean() + (negative <= t).float().mean()) / 2 for t in thresholds])
    return float(hit.max())


def zero_shot_prompts(name: str) -> list[str]:
    """One prompt per value of an attribute; the plainest wording of the captions."""
    said = {
        "hair_colour": "photo of a person with {} hair",
        "clothes_colour": "photo of a person wearing a {} t-shirt",
        "scene": "photo of a person, {}",
        "glasses": "photo of a person wearing {}",
    }[name]
    values = ATTRIBUTES[name]
    if name == "scene":
        from sweep.pocket.captions import SCENE_PHRASES

        return [said.format(SCENE_PHRASES[value][0]) for value in values]
    return ["photo of a person" if value == "none" else said.format(value) for value in values]


@torch.no_grad()
def clip_figures(folder: Path) -> dict[str, Figure]:
    """Zero-shot accuracy of CLIP on true photos of held-out people."""
    clip, tokenizer = models.load_clip(folder / "clip")
    _, shots, rendered = true_renders(2, seed=25)
    image_BD = models.clip_image_features(clip, rendered.images_BCHW)
    figures = {}
    for name in ("hair_colour", "clothes_colour", "glasses", "scene"):
        text_KD = models.clip_text_features(clip, tokenizer, zero_shot_prompts(name))
        figures[f"clip_{name}"] = share((image_BD @ text_KD.T).argmax(dim=1) == getattr(shots, name))
    return figures


def base_prompts(num: int) -> tuple[list[str], Shots]:
    """Full captions of photos of held-out people, with what they ask for."""
    _person_N, _people, shots = held_out_pictures(math.ceil(num / 300), seed=26)
    shots = shots[torch.arange(num)]
    shots.hair_overridden = torch.ones_like(shots.hair_overridden)
    rng = random.Random(26)
    everything = dict.fromkeys(
        ("hair_colour", "clothes_colour", "clothes_type", "expression", "scene", "framing"), True
    )
    texts = [describe(attribute_words(shots, row), rng, say=everything).text for row in range(num)]
    return texts, shots


@torch.no_grad()
def sample(pipeline: StableDiffusionPipeline, prompts: list[str], seed: int) -> torch.Tensor:
    """One picture per prompt; each has its own generator, seeded by its place."""
    parts = []
    for start in range(0, len(prompts), 25):
        part = prompts[start : start + 25]
        generators = [torch.Generator().manual_seed(seed + start + row) for row in range(len(part))]
        parts.append(
            pipeline(
                part, num_inference_steps=SAMPLING_STEPS, guidance_scale=GUIDANCE, generator=generators,
                output_type="pt",
            ).images
        )  # fmt: skip
    return torch.cat(parts).float()


@torch.no_grad()
def base_figures(folder: Path, num_prompts: int) -> tuple[dict[str, Figure], torch.Tensor, list[str]]:
    """What the judge finds of what the prompts asked for, and the likeness scale's two ends."""
    pipeline = models.load_pipeline(folder / "sd")
    judge, face = models.load_judge(folder / "judge.safetensors"), models.load_face(folder / "face.safetensors")
    prompts, shots = base_prompts(num_prompts)
    images = sample(pipeline, prompts, seed=26)
    found = judge.attributes(images)
    figures = {f"base_{name}": share(found[name].argmax(dim=1) == getattr(shots, name)) for name in ATTRIBUTES}
    figures["base_face_confidence"] = mean(face.locate(images)[1])
    _person_N, _, rendered = true_renders(4, seed=27)
    real_PKD = face.embed(rendered.images_BCHW).view(-1, 4, 128)
    centre_PD = torch.nn.functional.normalize(real_PKD[:, :3].mean(dim=1), dim=1)
    figures["likeness_floor"] = mean((face.embed(images) @ centre_PD.T).mean(dim=1))
    figures["likeness_ceiling"] = mean((real_PKD[:, 3] * centre_PD).sum(dim=1))
    decoded = vae_round_trip(pipeline.vae, rendered.images_BCHW.view(-1, 4, 3, 64, 64)[:, 3])
    figures["likeness_vae_round_trip"] = mean((face.embed(decoded) * centre_PD).sum(dim=1))
    return figures, images, prompts


@torch.no_grad()
def vae_round_trip(vae: torch.nn.Module, images_BCHW: torch.Tensor) -> torch.Tensor:
    """Encode to the posterior's mean and decode."""
    parts = [
        vae.decode(vae.encode(part * 2 - 1).latent_dist.mean).sample  # type: ignore[operator]
        for part in images_BCHW.split(50)
    ]
    return (torch.cat(parts) / 2 + 0.5).clamp(0, 1)


def write_figures(folder: Path, results: Path = RESULTS_DIR, num_prompts: int = NUM_PROMPTS) -> dict[str, Any]:
    """Measure everything about the weight set in `folder` and write `results`."""
    results.mkdir(parents=True, exist_ok=True)
    pipeline = models.load_pipeline(folder / "sd")
    figures: dict[str, Figure] = {"vae_psnr_db": mean(psnr_held_out(pipeline.vae), 2)}
    figures |= face_figures(folder) | clip_figures(folder) | judge_figures(folder)
    base, images, prompts = base_figures(folder, num_prompts)
    figures |= base
    write_sheets(results, pipeline.vae, images)
    manifest = json.loads((folder / "weights.json").read_text(encoding="utf-8"))
    report = {
        "command": "python -m sweep.pocket.build --stages figures",
        "hardware": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "intervals": "90 %: Wilson for shares, bootstrap for means",
        "sampling": {"steps": SAMPLING_STEPS, "guidance": GUIDANCE, "scheduler": "DDIM", "prompts": num_prompts},
        "training_steps": manifest.get("steps"),
        "weights_json_sha256": sha256(folder / "weights.json"),
        "figures": figures,
        "aims": {name: {"aim": aim, "reached": figures[name]["value"] >= aim} for name, aim in AIMS.items()},
        "first_prompts": prompts[:24],
    }
    (results / "figures.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (results / "README.md").write_text(readme(report), encoding="utf-8")
    return report


def readme(report: dict[str, Any]) -> str:
    """The figures as a page."""
    lines = [
        "# The pocket base: how good it is",
        "",
        f"Measured by `{report['command']}` on {report['hardware']}.",
        f"Intervals: {report['intervals']}. All people are held out: no model was trained on them.",
        "`base_*` is what the attribute judge finds in one picture per prompt",
        f"({report['sampling']['prompts']} prompts, {SAMPLING_STEPS} DDIM steps, guidance {GUIDANCE:g}).",
        "",
        "| figure | value | 90 % interval | n | aim |",
        "|---|---|---|---|---|",
    ]
    for name, figure in report["figures"].items():
        interval = f"{figure['low']} to {figure['high']}" if "low" in figure else ""
        aim = report["aims"].get(name)
        said = "" if aim is None else f"{aim['aim']} {'reached' if aim['reached'] else 'missed'}"
        lines.append(f"| {name} | {figure['value']} | {interval} | {figure['n']} | {said} |")
    lines += [
        "",
        f"Training steps: {report['training_steps']}. sha256 of `weights.json`: `{report['weights_json_sha256']}`.",
        "",
        "`world.png`: true renders, a person per row. `vae.png`: true above, reconstructed below. `base.png`: the base",
        "on the first 24 prompts, listed in `figures.json`.",
    ]
    return "\n".join(lines) + "\n"
