"""How strongly the base itself draws something for the trigger, asked before it is trained on.

Shapes: B noises, C H W latent, T timesteps, W words.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sweep.data.check.findings import Advice, Finding
from sweep.model.base import Base
from sweep.randomness import generator

if TYPE_CHECKING:
    from torch import Tensor

MEASURED = Advice("DreamBooth (Ruiz et al. 2023, sec. 3.2): a word with a weak prior",
                  "measured on your base; the limit comes from words that the pocket base knows")
STRONG = 4.0
"""Times the median of nonsense words. On the pocket base 40 of those have 0.4 to 2.1, "glasses" 13, "forest" 14, "suit"
18, "beach" 26."""
NUM_NONSENSE = 8
NUM_NOISES = 4
TIMESTEPS = (800, 600)  # of 1,000: where a picture's content is decided


def strength_finding(base: Base, trigger: str, class_noun: str) -> Finding:
    """Compares what the word adds to the predicted noise with what nonsense adds."""
    pulls = pulls_of(base, [trigger, *nonsense(NUM_NONSENSE)], class_noun)
    usual = statistics.median(pulls[1:])
    ratio = pulls[0] / max(usual, 1e-12)
    if ratio < STRONG:
        return Finding(kind="trigger_strength", topic="trigger", level="note", advice=MEASURED,
                       text=f"the base draws {ratio:.1f} times as much for {trigger!r} as for nonsense words: it means "
                            "nothing yet.")
    return Finding(kind="strong_trigger", topic="trigger", level="advice", advice=MEASURED,
                   text=f"the base already draws {ratio:.0f} times as much for {trigger!r} as for nonsense words: what "
                        "it means by it mixes with your subject. Take another word.")


def pulls_of(base: Base, words: Sequence[str], class_noun: str) -> list[float]:
    """Root mean square of eps("photo of WORD NOUN") - eps("photo of NOUN") on the same noises, of each word."""
    import torch

    side = base.resolution // base.vae_scale
    noises_BCHW = torch.stack([torch.randn(base.latent_channels, side, side, generator=generator(i, 0, "trigger"))
                               for i in range(NUM_NOISES)]).to(base.device)
    with torch.no_grad(), base.autocast():
        plain = _predicted(base, noises_BCHW, f"photo of {class_noun}")
        return [float((_predicted(base, noises_BCHW, f"photo of {word} {class_noun}") - plain).square().mean().sqrt())
                for word in words]


def nonsense(num: int) -> list[str]:
    """Words that no text was full of: "wujizeq"."""
    draw = random.Random("nonsense")
    return ["".join(draw.choice("bdfgjkmpvwxz") + draw.choice("aeiou") for _ in range(3)) + draw.choice("jqxz")
            for _ in range(num)]


def _predicted(base: Base, noises_BCHW: Tensor, text: str) -> Tensor:
    """[T x B, C, H, W]"""
    import torch

    states = base.text_states([text])[torch.zeros(len(noises_BCHW), dtype=torch.long)]
    return torch.cat([base.predict(noises_BCHW, torch.full((len(noises_BCHW),), t, device=base.device), states).float()
                      for t in TIMESTEPS])
