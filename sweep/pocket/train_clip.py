"""Stage `clip`: image and text towers, trained by contrast over what captions truly say.

Legend: B pictures or captions, D width of an embedding, A attributes, L tokens.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from sweep.pocket.captions import attribute_words, describe
from sweep.pocket.dataset import ATTRIBUTE_NAMES, Pictures
from sweep.pocket.fit import fit
from sweep.pocket.models import TEXT_WIDTH, clip_image_features, new_clip
from sweep.pocket.recipe import Stage
from sweep.pocket.tokenizer import MAX_LENGTH
from sweep.pocket.train_networks import soften
from sweep.pocket.world import ATTRIBUTES

if TYPE_CHECKING:
    from transformers import CLIPModel, CLIPTokenizer

CAPTIONS_PER_PICTURE = 4
MAX_LOGIT_SCALE = 4.0


def caption_table(pictures: Pictures, tokenizer: CLIPTokenizer, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """For each picture a full caption and short ones that name one or two things.

    Returns tokens N x captions x L (int16, padded) and N x captions x A: which attribute each caption names.
    """
    rng = random.Random(seed)
    texts: list[str] = []
    mentioned: list[list[bool]] = []
    for row in range(len(pictures)):
        words = attribute_words(pictures.shots, row)
        for index in range(CAPTIONS_PER_PICTURE):
            # The person's sex is always said right or not at all; nobody has a name here.
            say = None if index == 0 else _say_only(rng)
            caption = describe(words, rng, bool(pictures.shots.hair_overridden[row]), say=say)
            texts.append(caption.text)
            mentioned.append([name in caption.mentioned for name in ATTRIBUTE_NAMES])
    batch = tokenizer(texts, padding="longest", truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
    tokens = batch.input_ids.to(torch.int16).view(len(pictures), CAPTIONS_PER_PICTURE, -1)
    return tokens, torch.tensor(mentioned).view(len(pictures), CAPTIONS_PER_PICTURE, -1)


def _say_only(rng: random.Random) -> dict[str, bool]:
    """One or two of the things a caption can name; a hat and glasses are said anyhow."""
    parts = ("hair_colour", "clothes", "expression", "scene", "framing")
    chosen = set(rng.sample(parts, rng.choice((0, 1, 1, 2))))
    said = {part: part in chosen for part in parts if part != "clothes"}
    return said | {"clothes_colour": "clothes" in chosen, "clothes_type": "clothes" in chosen}


def truths(attributes_BA: torch.Tensor, captioned_BA: torch.Tensor, mentioned_BA: torch.Tensor) -> torch.Tensor:
    """Pictures x captions: does the picture show everything that the caption names?"""
    agrees = attributes_BA[:, None] == captioned_BA[None]
    return (agrees | ~mentioned_BA[None]).all(dim=2)


def _contrast(logits_BB: torch.Tensor, true_BB: torch.Tensor) -> torch.Tensor:
    """Eq. 2 of Khosla et al. 2020 over pictures and captions: for each row the mean over its true pairs of -log p."""
    log_p = logits_BB.log_softmax(dim=1)
    return -(log_p * true_BB).sum(dim=1).div(true_BB.sum(dim=1).clamp(min=1)).mean()


class TrainClip(nn.Module):
    """CLIP with the attribute heads that only its training needs."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.clip = new_clip(tokenizer)
        num_values = sum(len(values) for values in ATTRIBUTES.values())
        self.image_head = nn.Linear(TEXT_WIDTH, num_values)
        self.text_head = nn.Linear(TEXT_WIDTH, num_values)


def _attribute_loss(logits_BV: torch.Tensor, attributes_BA: torch.Tensor, counted_BA: torch.Tensor) -> torch.Tensor:
    """Cross entropy per attribute, over the pictures or captions where it counts."""
    parts = logits_BV.float().split([len(values) for values in ATTRIBUTES.values()], dim=1)
    losses = torch.stack(
        [F.cross_entropy(part, target, reduction="none") for part, target in zip(parts, attributes_BA.T, strict=True)],
        dim=1,
    )
    return (losses * counted_BA).sum() / counted_BA.sum()


def train_clip(pictures: Pictures, tokenizer: CLIPTokenizer, stage: Stage, folder: Path) -> CLIPModel:
    """Contrast in both directions, by what is true.

    A caption is true of every picture that shows what it names, so that other pictures of a "man with red hair" in
    the batch are no false negatives. Attribute heads on both towers give them something dense to learn from, which
    contrast alone does not at so few pictures.
    """
    torch.manual_seed(5)
    module = TrainClip(tokenizer)
    clip = module.clip
    # Measured: twice as fast as the CPU's fused attention at this size.
    clip.set_attn_implementation("eager")
    tokens_NKL, mentioned_NKA = caption_table(pictures, tokenizer, seed=5)
    attributes_NA = pictures.attributes_NA()

    def loss_function(generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        rows = torch.randint(len(pictures), (stage.batch_size,), generator=generator)
        which = torch.randint(CAPTIONS_PER_PICTURE, (stage.batch_size,), generator=generator)
        truth_BA, said_BA = attributes_NA[rows], mentioned_NKA[rows, which]
        image_BD = clip_image_features(clip, soften(pictures.images(rows), generator))
        pooled = clip.text_model(input_ids=tokens_NKL[rows, which].long()).pooler_output
        text_BD = F.normalize(clip.text_projection(pooled).float(), dim=1)
        true_BB = truths(truth_BA, truth_BA, said_BA).float()
        logits = image_BD @ text_BD.T * clip.logit_scale.float().clamp(max=MAX_LOGIT_SCALE).exp()
        loss = (_contrast(logits, true_BB) + _contrast(logits.T, true_BB.T)) / 2
        scale = TEXT_WIDTH**0.5
        loss = loss + _attribute_loss(module.image_head(image_BD * scale), truth_BA, torch.ones_like(said_BA))
        loss = loss + _attribute_loss(module.text_head(text_BD * scale), truth_BA, said_BA)
        hit = true_BB.gather(1, logits.argmax(dim=1, keepdim=True)).mean()
        return loss, {"best_caption_is_true": hit.item(), "logit_scale": clip.logit_scale.item()}

    fit("clip", stage, module, loss_function, folder)
    return clip
