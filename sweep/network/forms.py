"""What a trial has of its own for one layer, mostly an adapter: which tensors, under which file names, and how they
start.

Shapes: R rank, I in, O out, kh kw kernel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweep.errors import ConfigError
from sweep.network.targets import Target
from sweep.randomness import derived_seed, generator

if TYPE_CHECKING:
    from torch import Tensor

WORDS = "emb_params"  # A1111's name for an embedding's vectors
LOW_RANK = ("lora", "dylora", "dora")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor of a layer's adapter. is_up: it starts at zero, so that a fresh adapter changes nothing."""

    name: str  # in files, after the layer's key
    shape: tuple[int, ...]
    is_up: bool


@dataclass(frozen=True, slots=True)
class Form:
    """How a layer's adapter is parameterised; layers of equal form and shape can be stacked."""

    algorithm: str  # lora (LoCon too), dylora, dora, loha, lokr, ia3, diff; whole: its own layer; words: its own tokens
    dim: int  # words: how many
    option: int = 0  # dylora: unit; lokr: factor; ia3: 1 = scales the layer's input
    shapes: tuple[TensorSpec, ...] = ()  # as found in a file; () = as our own settings make them
    init_word: str = ""  # words: what they start from

    def tensors(self, target: Target) -> tuple[TensorSpec, ...]:
        return self.shapes or _TENSORS[self.algorithm](self, target)


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer's adapter: its form and its scale, alpha / dim."""

    form: Form
    alpha: float

    @property
    def scale(self) -> float:
        return self.alpha / self.form.dim

    def constants(self) -> dict[str, Tensor]:
        """What a file holds besides the parameters."""
        import torch

        if self.form.algorithm == "ia3":
            return {"on_input": torch.tensor(self.form.option)}
        return {} if self.form.algorithm in ("diff", "whole", "words") else {"alpha": torch.tensor(self.alpha)}


def initial_tensors(form: Form, target: Target, seed: int) -> dict[str, Tensor]:
    """The tensors a trial starts from, by file name; a function of (seed, layer key) alone."""
    import torch

    with torch.no_grad():
        if form.algorithm in LOW_RANK:
            return _initial_low_rank(form, target, seed)
        if form.algorithm in ("loha", "lokr"):
            return _initial_lycoris(form, target, seed)
        if form.algorithm in ("whole", "words"):
            return _initial_whole(target) if form.algorithm == "whole" else _initial_words(form, target)
        return {spec.name: torch.zeros(spec.shape) for spec in form.tensors(target)}


def _initial_low_rank(form: Form, target: Target, seed: int) -> dict[str, Tensor]:
    """down: kaiming-uniform(a = sqrt 5), i.e. U(-1/sqrt(fan-in), 1/sqrt(fan-in)); up: zeros (Hu et al. 2021, 4.1).
    DoRA's magnitude: the norm of each output's weights (Liu et al. 2024, Eq. 5)."""
    import torch

    down, up, *magnitude = form.tensors(target)
    bound = 1 / math.sqrt(target.in_features * math.prod(target.kernel_size))
    uniform = torch.rand(down.shape, generator=generator(seed, 0, f"init/{target.key}"))
    tensors = {down.name: (2 * uniform - 1) * bound, up.name: torch.zeros(up.shape)}
    for spec in magnitude:
        weight: Any = target.module.weight
        tensors[spec.name] = weight.detach().float().flatten(1).norm(dim=1).cpu().reshape(spec.shape)
    return tensors


def _initial_lycoris(form: Form, target: Target, seed: int) -> dict[str, Tensor]:
    """lycoris.functional draws from the global generator: it is lent a seed of ours and put back."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derived_seed(seed, 0, f"init/{target.key}"))
        if form.algorithm == "loha":
            from lycoris.functional import loha

            shape = torch.empty(target.out_features, math.prod(target.weight_shape[1:]), device="meta")
            w1d, w1u, w2d, w2u, _, _ = loha.weight_gen(shape, form.dim, tucker=False)
            drawn = {"hada_w1_b": w1d, "hada_w1_a": w1u, "hada_w2_b": w2d, "hada_w2_a": w2u}
        else:
            from lycoris.functional import lokr

            shape = torch.empty(target.weight_shape, device="meta")
            w1, _, _, w2, w2a, w2b, _ = lokr.weight_gen(shape, form.dim, tucker=False, factor=form.option)
            drawn = {"lokr_w1": w1, "lokr_w2": w2, "lokr_w2_a": w2a, "lokr_w2_b": w2b}
    return {spec.name: drawn[spec.name].reshape(spec.shape) for spec in form.tensors(target)}


def _initial_whole(target: Target) -> dict[str, Tensor]:
    """The base's own."""
    module: Any = target.module
    return {name: tensor.detach().float().cpu() for name, tensor in module.named_parameters(recurse=False)}


def _initial_words(form: Form, target: Target) -> dict[str, Tensor]:
    """The vectors of the initial words, in turn (Gal et al. 2023, 4.1, for one vector).

    Raises ConfigError for a word without tokens.
    """
    import torch

    from sweep.model.text import token_ids

    ids = token_ids(target.tokenizer, form.init_word)
    if not ids:
        raise ConfigError(f"method.init_word={form.init_word!r} has no tokens; give a word that the base knows.")
    module: Any = target.module
    table = module.weight.detach().float().cpu()
    return {WORDS: table[torch.tensor([ids[i % len(ids)] for i in range(form.dim)])]}


def _low_rank_tensors(form: Form, target: Target) -> tuple[TensorSpec, ...]:
    tail, ones = (target.kernel_size, (1, 1)) if target.is_conv else ((), ())
    return (TensorSpec("lora_down.weight", (form.dim, target.in_features, *tail), False),
            TensorSpec("lora_up.weight", (target.out_features, form.dim, *ones), True))


def _dora_tensors(form: Form, target: Target) -> tuple[TensorSpec, ...]:
    ones = (1, 1, 1) if target.is_conv else (1,)
    return (*_low_rank_tensors(form, target), TensorSpec("dora_scale", (target.out_features, *ones), False))


def _loha_tensors(form: Form, target: Target) -> tuple[TensorSpec, ...]:
    num_out, num_in = target.out_features, math.prod(target.weight_shape[1:])
    return (TensorSpec("hada_w1_b", (form.dim, num_in), False), TensorSpec("hada_w2_b", (form.dim, num_in), False),
            TensorSpec("hada_w2_a", (num_out, form.dim), False), TensorSpec("hada_w1_a", (num_out, form.dim), True))


def _lokr_tensors(form: Form, target: Target) -> tuple[TensorSpec, ...]:
    """w1 [a,c] (x) w2 [b,d]; w2 is a product of rank R unless R is at least half of its larger side (LyCORIS)."""
    from lycoris.functional import factorization

    out_small, out_large = factorization(target.out_features, form.option)
    in_small, in_large = factorization(target.in_features, form.option)
    tail = target.kernel_size if target.is_conv else ()
    w1 = TensorSpec("lokr_w1", (out_small, in_small), False)
    if form.dim >= max(out_large, in_large) / 2:
        return (w1, TensorSpec("lokr_w2", (out_large, in_large, *tail), True))
    return (w1, TensorSpec("lokr_w2_a", (out_large, form.dim), False),
            TensorSpec("lokr_w2_b", (form.dim, in_large * math.prod(tail)), True))


def _ia3_tensors(form: Form, target: Target) -> tuple[TensorSpec, ...]:
    size = target.in_features if form.option else target.out_features
    return (TensorSpec("weight", (1, size, 1, 1) if target.is_conv else (size,), True),)


def _diff_tensors(form: Form, target: Target) -> tuple[TensorSpec, ...]:
    return (TensorSpec("diff", target.weight_shape, True),)


def _whole_tensors(form: Form, target: Target) -> tuple[TensorSpec, ...]:
    weight = TensorSpec("weight", target.weight_shape, False)
    return (weight, TensorSpec("bias", (target.out_features,), False)) if target.has_bias else (weight,)


def _word_tensors(form: Form, target: Target) -> tuple[TensorSpec, ...]:
    return (TensorSpec(WORDS, (form.dim, target.out_features), False),)


_TENSORS = {"lora": _low_rank_tensors, "dylora": _low_rank_tensors, "dora": _dora_tensors, "loha": _loha_tensors,
            "lokr": _lokr_tensors, "ia3": _ia3_tensors, "diff": _diff_tensors, "whole": _whole_tensors,
            "words": _word_tensors}
