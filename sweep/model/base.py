"""A frozen base: UNet, text encoders, VAE and noise schedule, and what is asked of them.

`sources.py` finds and checks one without torch, `loading.py` loads it.
Shapes: B images, C H W latent or pixels, N chunks of L tokens (77), D width of the text states, P of the pooled text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from sweep.model.families import Family
from sweep.model.text import check_clip_skip, chunk_ids, encode_chunks, token_ids
from sweep.schema import bounds, one_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor


_REMEMBERED_TEXTS = 4096  # shuffled captions are new ones at every step


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModelConfig:
    """The base that all adapters of a pack are laid over. EMBEDDED ones come with the package."""

    name: str = one_of("pocket", "pocket_rv", "sd15", "sd2", "sdxl", "file")
    path: str | None
    # EMBEDDED: null = the package's, or another weight set's sd/ folder; else folder, hub id or checkpoint file
    resolution: int = bounds(16, 4096)
    # training and scoring resolution in pixels, a multiple of 8
    unet_channels: ClassVar[int] = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainedConfig(BaseModelConfig):
    """A base of the user's own."""

    download: bool
    # whether a hub id that is not in the hub's cache may be downloaded
    vae: str | None
    # file or folder of another VAE; null = the base's own
    tokenizer: str | None
    # folder with CLIP's vocab.json and merges.txt, for a checkpoint file; null = one in the hub's cache
    prediction_type: str | None = one_of("epsilon", "v_prediction")
    # what the UNet predicts; null = what the base says


@dataclass(frozen=True, slots=True, kw_only=True)
class InpaintingConfig(PretrainedConfig):
    """A base whose UNet is also told the mask and what is around it. It is no member of BASE_MODELS: nothing is trained
    on it, a LoRA is only used on it."""

    unet_channels: ClassVar[int] = 9


EMBEDDED = ("pocket", "pocket_rv")
"""Miniatures of one rendered world; "pocket_rv" is "pocket" and a low-rank difference (`sources.DIFFERENCE`)."""

BASE_MODELS: Mapping[str, type] = {**dict.fromkeys(EMBEDDED, BaseModelConfig),
                                   **dict.fromkeys(("sd15", "sd2", "sdxl", "file"), PretrainedConfig)}


@dataclass(frozen=True, slots=True)
class TextStates:
    """What the UNet sees of B texts. pooled_BP: XL's summary of each text, by its second encoder."""

    states_BLD: Tensor
    pooled_BP: Tensor | None = None

    def __getitem__(self, picks: Tensor) -> TextStates:
        """The texts at these indices, any number of times each."""
        return TextStates(self.states_BLD[picks], None if self.pooled_BP is None else self.pooled_BP[picks])

    @staticmethod
    def joined(rows: Sequence[TextStates]) -> TextStates:
        """One after the other. Either all or none have a pooled state."""
        import torch

        pooled = [row.pooled_BP for row in rows if row.pooled_BP is not None]
        return TextStates(torch.cat([row.states_BLD for row in rows]), torch.cat(pooled) if pooled else None)

    def to(self, device: torch.device) -> TextStates:
        return TextStates(self.states_BLD.to(device), None if self.pooled_BP is None else self.pooled_BP.to(device))


@dataclass(slots=True, kw_only=True)
class Base:
    """A frozen base in evaluation mode. Nothing in it is ever trained or changed; adapters come as forward hooks."""

    unet: Any
    vae: Any  # always fp32: XL's overflows in fp16
    text_encoders: list[Any]  # XL has two
    tokenizers: list[Any]  # one for each text encoder
    alphas_cumprod: Tensor  # [T], the products of (1 - beta) of Ho et al. 2020; on the CPU, where noise is drawn
    scheduler_config: dict[str, Any]
    device: torch.device
    name: str
    family: Family
    prediction_type: str  # "epsilon" or "v_prediction"
    identity: str  # hash of the weights
    resolution: int  # pixels, of training and scoring
    scaling_factor: float  # of the latents, from the VAE's config
    latent_channels: int
    vae_scale: int  # pixels per latent
    dtype: torch.dtype  # of the UNet's and text encoders' matrices; computed with under `autocast`
    _tokens: dict[tuple[str, int], list[list[list[int]]]] = field(default_factory=dict)

    @property
    def text_encoder(self) -> Any:
        """The first text encoder."""
        return self.text_encoders[0]

    @property
    def tokenizer(self) -> Any:
        """The first text encoder's."""
        return self.tokenizers[0]

    @property
    def takes_masks(self) -> bool:
        """Whether it is an inpainting base (`InpaintingConfig`)."""
        return int(self.unet.config.in_channels) == InpaintingConfig.unet_channels

    def tokenize(self, texts: Sequence[str], max_token_length: int = 75) -> list[Tensor]:
        """Token ids [N, B, L] for each text encoder."""
        import torch

        if len(self._tokens) > _REMEMBERED_TEXTS:
            self._tokens.clear()
        for text in texts:
            if (text, max_token_length) not in self._tokens:
                self._tokens[text, max_token_length] = [chunk_ids(tokenizer, text, max_token_length)
                                                        for tokenizer in self.tokenizers]
        each = [self._tokens[text, max_token_length] for text in texts]
        return [torch.tensor([ids[i] for ids in each], device=self.device).transpose(0, 1)
                for i in range(len(self.tokenizers))]

    def is_cut(self, text: str, max_token_length: int = 75) -> bool:
        """Whether a text has more tokens than are read."""
        return len(token_ids(self.tokenizer, text)) > max_token_length

    def text_states(self, captions: Sequence[str], clip_skip: int = 1, max_token_length: int = 75) -> TextStates:
        """What the text encoders make of the captions. Under `bank.rows` the adapters take part.

        clip_skip: which hidden state counts, from the end (XL: always the last but one). max_token_length: 75, 150 or
        225 tokens are read, in chunks of 75.
        """
        import torch

        check_clip_skip(clip_skip, self.family, self.text_encoder.config.num_hidden_layers)
        states, pooled_BP = [], None
        for encoder, ids_NBL in zip(self.text_encoders, self.tokenize(captions, max_token_length), strict=True):
            states_BLD, pooled_BP = encode_chunks(encoder, ids_NBL, clip_skip, self.family)
            states.append(states_BLD)
        return TextStates(torch.cat(states, dim=-1) if len(states) > 1 else states[0], pooled_BP)

    def predict(self, noisy_BCHW: Tensor, timesteps_B: Tensor, text: TextStates,
                sizes: Sequence[Sequence[int]] | None = None) -> Tensor:
        """The UNet's answer [B, C, H, W]. Under `bank.rows` the adapters take part.

        sizes: for XL, each row's (original height, original width, crop top, crop left, target height, target width)
        in pixels (Podell et al. 2023, 2.2); None = whole pictures of just the latents' size. Other families have none.
        """
        import torch

        added = None
        if self.family == "sdxl":
            height, width = (int(side) * self.vae_scale for side in noisy_BCHW.shape[2:])
            rows = sizes or [(height, width, 0, 0, height, width)] * len(noisy_BCHW)
            added = {"text_embeds": text.pooled_BP,
                     "time_ids": torch.tensor(rows, dtype=torch.float32, device=self.device)}
        answer_BCHW: Tensor = self.unet(noisy_BCHW, timesteps_B, encoder_hidden_states=text.states_BLD,
                                        added_cond_kwargs=added).sample
        return answer_BCHW

    def autocast(self) -> torch.autocast:
        """Compute in the base's own precision: needed wherever it is not fp32."""
        import torch

        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def encode_moments(self, pixels_BCHW: Tensor) -> Tensor:
        """Mean and standard deviation of the latents, [B, 2C, h, w], unscaled; pixels in [-1, 1]."""
        import torch

        with torch.no_grad():
            distribution = self.vae.encode(pixels_BCHW.to(self.device)).latent_dist
        return torch.cat([distribution.mean, distribution.std], dim=1).cpu()

    def decode(self, latents_BCHW: Tensor) -> Tensor:
        """Images in [0, 1] on the CPU, [B, 3, H, W], from latents as the UNet sees them."""
        import torch

        with torch.no_grad():
            pixels = self.vae.decode(latents_BCHW / self.scaling_factor).sample
        return (pixels.float().cpu() / 2 + 0.5).clamp(0, 1)

