"""What the tests of this room start from: the shipped scoring config, and images that were never drawn."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from sweep.evaluation.anchors import Anchors
from sweep.evaluation.measure import Measured, MeasuredSet, RealPhotos
from sweep.evaluation.settings import STAGES, ScoringConfig
from sweep.schema import build

ROOT = Path(__file__).parents[3]
TREE: dict[str, Any] = yaml.safe_load((ROOT / "conf" / "scoring" / "pocket.yaml").read_text())
SCORING: ScoringConfig = build(ScoringConfig, TREE, "scoring")

LOOK = {"clipped": 0.01, "saturation": 0.3, "contrast": 0.2, "sharpness": 0.05}
FLOOR, CEILING = 0.1, 0.9


def tiny_scoring(**changes: Any) -> ScoringConfig:
    """Few prompts and steps, for tests that really draw."""
    prompts = [prompt for prompt in TREE["prompts"] if prompt["stage"] == "screen"][:3]
    class_prompts = TREE["class_prompts"][:3]
    tree = {**TREE, "prompts": prompts, "class_prompts": class_prompts, "sampler": {**TREE["sampler"], "num_steps": 2},
            "confirm": {**TREE["confirm"], "prompts": "all", "num_captions": 1, "num_bare": 1},
            "choice": {**TREE["choice"], "strengths": [1.0, 0.5], "confirm": 1}, **changes}
    return build(ScoringConfig, tree, "scoring")


def unconfirmed_scoring(**changes: Any) -> ScoringConfig:
    """The same without a stage that confirms, at strength 1 alone."""
    confirm = {**TREE["confirm"], "prompts": "all", "num_varied": 0, "num_captions": 0, "num_bare": 0, "num_class": 0}
    return tiny_scoring(confirm=confirm, choice={**TREE["choice"], "strengths": [1.0], "confirm": 0}, **changes)


def probabilities(attribute: str, value: str | None, p: float) -> dict[str, float]:
    """`p` for a value, the rest shared out."""
    values = list(SCORING.attributes[attribute].values)
    rest = (1 - p) / (len(values) - 1)
    return {v: p if v == value else rest for v in values}


def images(stage: str, face: Callable[[int], float | None], hit: float, *, nearest: float = 1.2,
           look: dict[str, float] = LOOK, natural_hair: float | None = None,
           broken: tuple[int, ...] = (), context: float = 0.5, class_face: float = FLOOR,
           bare_faces: tuple[float | None, ...] = ()) -> MeasuredSet:
    """One image per cell of a stage. face: by prompt; hit: probability that a prompt's attributes are met; bare_faces:
    of the bare trigger, where it is drawn."""
    rows = []
    for index in SCORING.prompts_of(stage):
        probes = {}
        for name in SCORING.attributes:
            target = SCORING.prompts[index].probes.get(name)
            probes[name] = probabilities(name, target, hit)
            if name == "hair" and natural_hair is not None:
                probes[name]["black"] = natural_hair
        settings = SCORING.stage(stage)
        for seed in range(settings.first_seed, settings.first_seed + settings.num_seeds + (settings.num_varied > 0)):
            # a little difference between prompts, so that intervals have a width
            wobble = 0.02 * ((index * 7 + seed) % 5 - 2)
            similarity = face(index)
            rows.append(Measured(kind="prompt", index=index, seed=seed, is_broken=index in broken,
                                 face=None if similarity is None else similarity + wobble, clip=0.2 + 0.5 * hit,
                                 probes=probes, nearest=nearest + wobble, nearest_photo=0, look=look, clones=0,
                                 nearest_way="whole", context=context + wobble))
    for index in range(len(SCORING.class_prompts) if SCORING.stage(stage).num_class else 0):
        rows.append(dataclasses.replace(rows[0], kind="class", index=index, face=class_face + 0.01 * (-1) ** index))
    rows += [dataclasses.replace(rows[0], kind="bare", index=0, seed=seed, face=bare)
             for seed, bare in enumerate(bare_faces if SCORING.stage(stage).num_bare else ())]
    variety = dict.fromkeys(SCORING.prompts_of(stage), 1.0) if settings.num_seeds + settings.num_varied > 1 else {}
    return MeasuredSet(images=tuple(rows), variety=variety)


def real_photos(**changes: Any) -> RealPhotos:
    real = RealPhotos(num_faces=14, duplicates=(), ceiling_faces=(CEILING - 0.02, CEILING, CEILING + 0.02),
                      probes={"hair": probabilities("hair", "black", 0.91),
                              "clothes": probabilities("clothes", "red", 0.1),
                              "glasses": probabilities("glasses", "none", 0.9)},
                      clip=dict.fromkeys(range(len(SCORING.prompts)), 0.2),
                      unseen_nearest=(1.1, 1.2, 1.3), trained_nearest=(1.1, 1.2, 1.3),
                      trained_context=(0.88, 0.9, 0.92), notes=())
    return dataclasses.replace(real, **changes)


def anchors(**changes: Any) -> Anchors:
    """A base that draws what it is asked for, of strangers."""
    base = {stage: images(stage, lambda _: FLOOR, 0.9, bare_faces=(FLOOR,) * 4) for stage in STAGES}
    made = Anchors(scoring_key="key", photos_key="photos", base=base, real=real_photos())
    return dataclasses.replace(made, **changes)
