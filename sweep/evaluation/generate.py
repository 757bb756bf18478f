"""Images from saved LoRA files: rows of any files and strengths in one batch over one frozen base.

Shapes: B images, C H W latent or pixels, L tokens, D width of the text states.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweep.errors import ScoringError, is_out_of_memory
from sweep.evaluation.known import Known, known_of
from sweep.evaluation.settings import Sampler
from sweep.network.bank import AdapterBank
from sweep.network.forms import Form
from sweep.network.lora_file import LoadedSpec, LoraFile
from sweep.network.targets import Target
from sweep.randomness import generator

if TYPE_CHECKING:
    from torch import Tensor

    from sweep.model.base import Base, TextStates

OnProgress = Callable[[int, int], None]  # images done, images in all
OnDrawn = Callable[[Sequence[int], "Tensor"], None]  # which rows a batch holds, and its images on the CPU


@dataclass(frozen=True, slots=True)
class Row:
    """One image to draw. lora: None = the base alone. guidance_scale: None = the sampler's. known: None = a whole image
    is drawn."""

    lora: LoraFile | None
    strength: float
    prompt: str
    seed: int
    guidance_scale: float | None = None
    known: Known | None = None

    @property
    def adapter(self) -> tuple[int, float]:
        """Rows that share it share an adapter."""
        return (0, 0.0) if self.lora is None else (id(self.lora), self.strength)


def generate(base: Base, targets: Sequence[Target], rows: Sequence[Row], sampler: Sampler, *, resolution: int,
             batch_size: int = 32, clip_skip: int = 1, max_token_length: int = 75, on_drawn: OnDrawn | None = None,
             on_progress: OnProgress | None = None) -> Tensor:
    """Draw all rows: [B, 3, resolution, resolution] in [0, 1] on the CPU, in the order of `rows`.

    A row's image depends on its file, strength, prompt and seed; what else is in its batch changes it by rounding
    alone. A LoRA with NaN in it gives NaN images and leaves the others alone. Where memory runs out, batches are halved
    from there on; raises ScoringError if it does not hold one image.
    clip_skip, max_token_length: how prompts are read, as in training (`Base.text_states`).
    on_drawn, on_progress: called after each batch, in this order; what they raise ends the drawing.
    """
    import torch

    size = resolution // base.vae_scale * base.vae_scale
    images = torch.empty(len(rows), 3, size, size)
    order = _bank_order(rows)
    start = 0
    while start < len(order):
        chosen = order[start:start + batch_size]
        drawn = _drawn_if_it_fits(base, targets, [rows[i] for i in chosen], sampler, size // base.vae_scale,
                                  (clip_skip, max_token_length))
        if drawn is None:  # out here, what the failed batch held is free again
            _free(base)
            batch_size = len(chosen) // 2
            continue
        images[chosen] = drawn
        start += len(chosen)
        if on_drawn is not None:
            on_drawn(chosen, drawn)
        if on_progress is not None:
            on_progress(start, len(order))
    return images


def _drawn_if_it_fits(base: Base, targets: Sequence[Target], rows: Sequence[Row], sampler: Sampler, latent_size: int,
                      reading: tuple[int, int]) -> Tensor | None:
    """One batch; None if the memory does not hold it."""
    try:
        return _draw(base, targets, rows, sampler, latent_size, reading)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        if len(rows) == 1:
            raise ScoringError("The memory does not hold the drawing of one image for the scores. Lower "
                               "base_model.resolution, or set scoring=none; what was trained is kept.") from error
        return None


def _free(base: Base) -> None:
    import gc

    import torch

    gc.collect()
    if base.device.type == "cuda":
        torch.cuda.empty_cache()


def _bank_order(rows: Sequence[Row]) -> list[int]:
    """Base rows first, then files of one structure together, files and strengths in the order in which they appear."""
    first_seen: dict[tuple[int, float], int] = {}
    structures: list[dict[str, Form]] = [{}]
    structure_of: dict[tuple[int, float], int] = {}
    for row in rows:
        if row.adapter in first_seen:
            continue
        first_seen[row.adapter] = len(first_seen)
        forms = {key: layer.form for key, layer in row.lora.layers.items()} if row.lora else {}
        if forms not in structures:
            structures.append(forms)
        structure_of[row.adapter] = structures.index(forms)
    return sorted(range(len(rows)), key=lambda i: (structure_of[rows[i].adapter], first_seen[rows[i].adapter]))


def _draw(base: Base, targets: Sequence[Target], rows: Sequence[Row], sampler: Sampler, latent_size: int,
          reading: tuple[int, int]) -> Tensor:
    """One batch, rows in the bank's order."""
    import torch

    bank, counts = _bank_of(base, targets, rows)
    latents_BCHW = torch.stack([
        torch.randn(base.latent_channels, latent_size, latent_size, generator=generator(row.seed, 0, "latents"))
        for row in rows]).to(base.device)
    with torch.no_grad(), base.autocast(), bank.attached() if bank else nullcontext():
        text = _text_states(base, bank, rows, counts, sampler.negative_prompt, reading)
        with bank.rows([2 * count for count in counts]) if bank else nullcontext():
            latents_BCHW = _sample(base, latents_BCHW, text, sampler, rows)
    return base.decode(latents_BCHW)


def _bank_of(base: Base, targets: Sequence[Target], rows: Sequence[Row]) -> tuple[AdapterBank | None, list[int]]:
    """An adapter per distinct (file, strength) with its number of rows; base rows get one without layers."""
    adapters: list[tuple[Row, int]] = []
    for row in rows:
        if adapters and adapters[-1][0].adapter == row.adapter:
            adapters[-1] = (adapters[-1][0], adapters[-1][1] + 1)
        else:
            adapters.append((row, 1))
    counts = [count for _, count in adapters]
    if all(row.lora is None for row, _ in adapters):
        return None, counts
    bank = AdapterBank(targets, [LoadedSpec(row.lora, row.strength) for row, _ in adapters], base.device)
    for index, (row, _) in enumerate(adapters):
        if row.lora is not None:
            bank.load_weights(index, row.lora.weights)
    return bank, counts


def _text_states(base: Base, bank: AdapterBank | None, rows: Sequence[Row], counts: Sequence[int],
                 negative_prompt: str, reading: tuple[int, int]) -> TextStates:
    """Of 2B texts: negative and prompt of each row in turn; each distinct (adapter, text) goes through once."""
    import torch

    texts: list[str] = []
    text_counts: list[int] = []
    picks: list[int] = []
    first = 0
    for count in counts:
        index_of: dict[str, int] = {}
        for row in rows[first:first + count]:
            for text in (negative_prompt, row.prompt):
                picks.append(index_of.setdefault(text, len(texts) + len(index_of)))
        texts += index_of
        text_counts.append(len(index_of))
        first += count
    with bank.rows(text_counts) if bank else nullcontext():
        states = base.text_states(texts, *reading)
    return states[torch.tensor(picks, device=base.device)]


def _sample(base: Base, latents_BCHW: Tensor, text: TextStates, sampler: Sampler, rows: Sequence[Row]) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, Algorithm 2) on Karras et al. 2022's sigmas (Eq. 5), classifier-free guidance
    (Ho & Salimans 2022, Eq. 6)."""
    import torch

    scheduler = _scheduler(base.scheduler_config, sampler)
    noise_of = ({"generator": [generator(row.seed, 0, "ancestral") for row in rows]}
                if sampler.name == "euler_a" else {})
    scale_B111 = torch.tensor([sampler.guidance_scale if row.guidance_scale is None else row.guidance_scale
                               for row in rows], device=latents_BCHW.device).view(-1, 1, 1, 1)
    noise_BCHW, known = latents_BCHW, known_of([row.known for row in rows], latents_BCHW)
    latents_BCHW = latents_BCHW * scheduler.init_noise_sigma
    for sigma, timestep in zip(scheduler.sigmas[1:].tolist(), scheduler.timesteps, strict=True):
        doubled = latents_BCHW.repeat_interleave(2, dim=0)
        doubled = scheduler.scale_model_input(doubled, timestep)
        timesteps_B: Tensor = timestep.expand(len(doubled)).to(base.device)
        if known is not None and base.takes_masks:
            doubled = torch.cat([doubled, known.condition_BCHW.repeat_interleave(2, dim=0)], dim=1)
        noise = base.predict(doubled, timesteps_B, text).float()
        negative, positive = noise[0::2], noise[1::2]
        guided = negative + scale_B111 * (positive - negative)
        latents_BCHW = scheduler.step(guided, timestep, latents_BCHW, **noise_of).prev_sample
        if known is not None and not base.takes_masks:
            latents_BCHW = known.blended(latents_BCHW, noise_BCHW, sigma, grows=sampler.name == "euler_a")
    return latents_BCHW


def _scheduler(config: dict[str, Any], sampler: Sampler) -> Any:
    from diffusers import DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler

    if sampler.name == "euler_a":
        ancestral = EulerAncestralDiscreteScheduler.from_config(config)
        ancestral.set_timesteps(sampler.num_steps)
        return ancestral
    scheduler = DPMSolverMultistepScheduler.from_config(
        config, algorithm_type="dpmsolver++", solver_order=2, use_karras_sigmas=True)
    scheduler.set_timesteps(sampler.num_steps)
    return scheduler
