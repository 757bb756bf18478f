"""Many images of one LoRA and of its base on the same cells, measured once and kept: what samples are drawn from.

Shapes: S seeds of a prompt.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from sweep.command_line import CONF_DIR
from sweep.data.folder import Dataset, read_dataset
from sweep.data.settings import DatasetConfig
from sweep.evaluation.backends.interface import squared_distances
from sweep.evaluation.backends.registry import load_backends
from sweep.evaluation.cells import Cell, subject_words
from sweep.evaluation.gallery import quantised
from sweep.evaluation.generate import Row, generate
from sweep.evaluation.keys import measuring_id, photos_key
from sweep.evaluation.measure import Measured, Observer, RealPhotos, real_from_json, set_from_json, set_to_json
from sweep.evaluation.settings import Prompt, ScoringConfig
from sweep.files import read_json, sha256_of, stable_hash, write_json
from sweep.identity import base_identity
from sweep.model.base import Base, BaseModelConfig
from sweep.model.loading import load_base
from sweep.network.lora_file import LoraFile, read_lora
from sweep.network.targets import find_targets
from sweep.pocket.captions import SCENE_PHRASES
from sweep.pocket.world import ATTRIBUTES, HAIR_COLOURS
from sweep.schema import build, to_tree

NUM_SEEDS = 10
CLASS_SHARE = 5  # one prompt of the class for so many prompts
MIN_CLASS_PROMPTS = 6
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Drawn:
    """All seeds of one prompt: measured images, and the LPIPS distance of each two [S, S]."""

    images: tuple[Measured, ...]
    distances_SS: Tensor


@dataclass(frozen=True, slots=True)
class Pool:
    """lora, base: by (kind, index of the prompt), kind = "prompt" or "class". scoring: holds the pool's prompts."""

    scoring: ScoringConfig
    real: RealPhotos
    lora: dict[tuple[str, int], Drawn]
    base: dict[tuple[str, int], Drawn]

    @property
    def num_images(self) -> int:
        return sum(len(drawn.images) for (kind, _), drawn in self.lora.items() if kind == "prompt")


def pocket_base() -> Base:
    """Known by its weights' content, so that what was drawn is found from another checkout."""
    config = BaseModelConfig(name="pocket", path=None, resolution=64)
    return load_base(config, base_identity(config, Path("results")), "cpu")


def shipped(**changes: Any) -> ScoringConfig:
    """conf/scoring/pocket.yaml."""
    tree = yaml.safe_load((CONF_DIR / "scoring" / "pocket.yaml").read_text(encoding="utf-8"))
    return build(ScoringConfig, {**tree, **changes}, "scoring")


def pool_prompts(num: int) -> tuple[Prompt, ...]:
    """Distinct prompts of the kind that conf/scoring/pocket.yaml has, the same ones each time."""
    rng = random.Random("prompts of the pool")
    found: dict[str, Prompt] = {}
    while len(found) < num:
        style = rng.choices(("photo", "sketch", "pixel art"), (0.86, 0.07, 0.07))[0]
        probes: dict[str, str] = {}
        worn = []
        text = f"{style} of {{subject}}"
        if rng.random() < 0.5:
            probes["hair"] = rng.choice(HAIR_COLOURS)
            text += f" with {probes['hair']} hair"
        if not probes or rng.random() < 0.5:
            probes["clothes"] = rng.choice(ATTRIBUTES["clothes_colour"])
            article = "an" if probes["clothes"][0] in "aeiou" else "a"
            worn.append(f"{article} {probes['clothes']} {rng.choice(ATTRIBUTES['clothes_type'])}")
        if rng.random() < 0.25:
            probes["glasses"] = rng.choices(("glasses", "sunglasses"), (0.7, 0.3))[0]
            worn.append(probes["glasses"])
        text += f" wearing {' and '.join(worn)}" if worn else ""
        scene = rng.choice(list(SCENE_PHRASES.values()))[0]
        text += f", {scene}, {rng.choice(('close-up', 'portrait'))}"
        is_photo = style == "photo"
        found[text] = Prompt(text=text, face=is_photo and probes.get("glasses") != "sunglasses", stage="screen",
                             probes=probes if is_photo else {})
    return tuple(found.values())


def class_prompts(num: int) -> tuple[str, ...]:
    """Distinct prompts without the trigger."""
    texts = [f"photo of {{subject}} {scene[way]}, {framing}" for way in (0, 1) for scene in SCENE_PHRASES.values()
             for framing in ("close-up", "portrait")]
    random.Random("class prompts").shuffle(texts)
    assert num <= len(texts), "the pocket world has no more scenes and framings"
    return tuple(texts[:num])


def pool_of(lora_file: Path, num_images: int, work: Path, say: Say) -> Pool:
    """`num_images` of the LoRA and as many of the base, from `work` as far as they are there, drawn where not.

    Raises AdapterFileError for a file that is no LoRA for the pocket base.
    """
    num = num_images // NUM_SEEDS
    num_class = min(max(MIN_CLASS_PROMPTS, num // CLASS_SHARE), 28)
    prompts = pool_prompts(num)
    every = replace(shipped().screen, prompts="all")
    scoring = replace(shipped(), prompts=prompts, class_prompts=class_prompts(num_class), screen=every, refine=every,
                      confirm=every)
    painter = _Painter(lora_file, scoring, work)
    todo = [("prompt", i) for i in range(num)] + [("class", i) for i in range(num_class)]
    lora: dict[tuple[str, int], Drawn] = {}
    base: dict[tuple[str, int], Drawn] = {}
    began, num_new = time.monotonic(), 0
    for place, key in enumerate(todo):
        is_new = painter.draw(*key)
        lora[key], base[key] = painter.read(*key)
        if is_new:
            num_new += 1
            left_s = (time.monotonic() - began) / num_new * (len(todo) - place - 1)
            say(f"{place + 1} of {len(todo)} prompts drawn, at most {left_s / 60:.0f} "
                "minutes left")
    return Pool(scoring, painter.real(), lora, base)


class _Painter:
    """Draws and measures all seeds of a prompt; keeps them as one file, so that a kill loses one prompt."""

    def __init__(self, lora_file: Path, scoring: ScoringConfig, work: Path):
        self.scoring = scoring
        self.base = pocket_base()
        self.targets = find_targets(self.base)
        self.lora: LoraFile = read_lora(lora_file, self.targets)
        self.backends = load_backends(scoring)
        self.dataset = default_dataset()
        self.observer = Observer(scoring, self.backends, self.dataset, self.base)
        measuring = measuring_id(shipped(), self.base.identity, self.base.resolution, self.backends.identities)
        drawn_as = [to_tree(scoring.sampler), NUM_SEEDS, measuring, photos_key(self.dataset)]
        self.folders = {"base": work / "pool" / stable_hash(drawn_as),
                        "lora": work / "pool" / stable_hash([sha256_of(lora_file), *drawn_as])}

    def draw(self, kind: str, index: int) -> bool:
        """False if it was there already. The base's images serve every LoRA."""
        cells = self._cells(kind, index)
        rows = {"base": [Row(None, 0.0, cell.class_text, cell.seed) for cell in cells],
                "lora": [Row(self.lora, 1.0, cell.text, cell.seed) for cell in cells]}
        missing = [name for name in rows if not self._path(name, kind, index).exists()]
        if not missing:
            return False
        wanted = [row for name in missing for row in rows[name]]
        images = quantised(generate(self.base, self.targets, wanted, self.scoring.sampler,
                                    resolution=self.base.resolution, batch_size=len(wanted)))
        for name, part in zip(missing, images.split(len(cells)), strict=True):
            vectors = self.backends.perceptual.vectors(part)
            write_json(self._path(name, kind, index), {
                "set": set_to_json(self.observer.look(part, cells)),
                "distances": squared_distances(vectors, vectors).tolist()})
        return True

    def read(self, kind: str, index: int) -> tuple[Drawn, Drawn]:
        """The LoRA's and the base's; numbered by this pool's prompts, wherever they were drawn."""
        both = []
        for name in ("lora", "base"):
            tree = read_json(self._path(name, kind, index))
            images = set_from_json(tree["set"]).images
            both.append(Drawn(tuple(replace(m, index=index) for m in images), torch.tensor(tree["distances"])))
        return both[0], both[1]

    def real(self) -> RealPhotos:
        path = self.folders["base"] / f"real-{stable_hash(to_tree(self.scoring.prompts))}.json"
        if not path.exists():
            write_json(path, to_tree(self.observer.real_photos()))
        return real_from_json(read_json(path))

    def _cells(self, kind: str, index: int) -> Sequence[Cell]:
        with_trigger, without = subject_words(self.scoring, self.dataset)
        text = self.scoring.prompts[index].text if kind == "prompt" else self.scoring.class_prompts[index]
        typed, plain = text.replace("{subject}", with_trigger), text.replace("{subject}", without)
        if kind == "class":
            return [Cell("class", index, seed, plain, plain) for seed in range(NUM_SEEDS)]
        return [Cell("prompt", index, seed, typed, plain) for seed in range(NUM_SEEDS)]

    def _path(self, name: str, kind: str, index: int) -> Path:
        text = self.scoring.prompts[index].text if kind == "prompt" else self.scoring.class_prompts[index]
        return self.folders[name] / f"{kind}-{stable_hash(text)}.json"


def default_dataset() -> Dataset:
    """The pocket base's own subject, as train.py takes it."""
    tree = yaml.safe_load((CONF_DIR / "dataset" / "folder.yaml").read_text(encoding="utf-8"))
    return read_dataset(build(DatasetConfig, tree, "dataset"), trigger=None, class_noun=None, repeats=None)
