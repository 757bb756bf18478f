"""A finding: what was seen, what to do about it, who advises it and how sure that advice is. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Level = Literal["problem", "advice", "note"]
"""problem: mend it before training; advice: worth a look; note: a figure, nothing to do."""

Topic = Literal["photos", "faces", "captions", "trigger", "training"]
TOPICS: tuple[Topic, ...] = ("photos", "faces", "captions", "trigger", "training")


@dataclass(frozen=True, slots=True)
class Advice:
    """Who says so, and how sure it is."""

    source: str
    certainty: str


_ONE_AUTHOR = "one author's experience, not measured"
_GUIDES = "several guides agree; not measured"

TUTORIAL = Advice("the tutorial (Anant, \"Fine-tuning with LoRA\", 2023)", _ONE_AUTHOR)
CHARACTER_GUIDE = Advice("the character guide (tagging, pruning, concepts and outfits)", _ONE_AUTHOR)
DUMMIES = Advice("\"Lora for dummies\"", _ONE_AUTHOR)
EVERYTHING = Advice("\"Everything I Know About Lora\"", _ONE_AUTHOR)
NUMBER_OF_PHOTOS = Advice("the tutorial (20 to 50 for a character, 50 to 200 for a style); DreamBooth (Ruiz et al. "
                          "2023) does with 3 to 5", "guides agree on 20; the paper's figure is for full fine-tuning")
QUALITY = Advice("the tutorial, \"Lora for dummies\"", _GUIDES)
VARIETY = Advice("the tutorial, \"Everything I Know About Lora\"", _GUIDES)
COPIES = Advice("Somepalli et al. 2023, \"Understanding and Mitigating Copying in Diffusion Models\", sec. 4",
                "measured there on Stable Diffusion: repeated images are memorised first")
CAPTIONS_HELP = Advice("the tutorial, the training diary; results/pocket/phenomena.md",
                       "measured here on the pocket base: clothes that captions do not name stick")
RARE_WORD = Advice("DreamBooth (Ruiz et al. 2023, sec. 3.2); the tutorial, the character guide",
                   "the paper's own ablation, and the guides agree")
TEXT_ENCODER = Advice("CLIP (Radford et al. 2021): 77 positions, begin and end among them", "certain")
STEPS = Advice("the tutorial (1,500 to 2,000), the training diary (1,500 to 3,500)",
               "two authors' experience on Stable Diffusion 1.5 at 512 pixels")
SCALE = Advice("LoRA (Hu et al. 2021, sec. 4.1), the tutorial, the training diary; results/pocket/phenomena.md",
               "the scale is certain; measured here: at alpha = 1 likeness stays near the base's own")
BUCKETS = Advice("the character guide (4 or 5 sizes)", "hearsay there: \"has been linked to getting blurry images\"")
CROP = Advice("how the photos are read here", "certain")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """kind: a stable name, for programs. photos: names of the files it is about; empty = the set as a whole."""

    kind: str
    topic: Topic
    level: Level
    text: str
    advice: Advice | None = None  # None: nobody advises it, it is said for your information
    photos: tuple[str, ...] = ()


def listed(names: Iterable[str], most: int = 6) -> str:
    """"001.png, 002.png and 3 more"."""
    names = list(names)
    shown = names if len(names) <= most else names[:most - 1]
    text = ", ".join(shown)
    return text if len(shown) == len(names) else f"{text} and {len(names) - len(shown)} more"


def by_topic(findings: Sequence[Finding]) -> dict[Topic, list[Finding]]:
    """In the order of TOPICS, problems first."""
    order = ("problem", "advice", "note")
    return {topic: sorted((f for f in findings if f.topic == topic), key=lambda f: order.index(f.level))
            for topic in TOPICS}
