"""One layer's tensors out of a file as a form that the bank can stack, or else as a whole weight difference.

Shapes: R rank, I in, O out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.errors import AdapterFileError
from sweep.network.forms import Form, Layer, TensorSpec
from sweep.network.peft_config import PeftConfig
from sweep.network.targets import Target

if TYPE_CHECKING:
    from torch import Tensor

_LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")


def read_layer(path: Path, target: Target, tensors: Mapping[str, Tensor],
               peft: PeftConfig | None = None) -> tuple[Layer, dict[str, Tensor]] | None:
    """The layer's form with its parameters in the bank's shapes; None if it is of no known kind.

    tensors: fp32, by kohya's names. Without an alpha among them it is what `peft` says, or else the dim (as PEFT's and
    diffusers' files have it).
    Raises AdapterFileError if the shapes don't fit the base's layer.
    """
    dim = _rank(tensors)
    if dim is None:
        return None
    told = float(dim) if peft is None else peft.alpha(target.path, dim)
    alpha = float(tensors["alpha"]) if "alpha" in tensors else told
    form = _packed_form(target, tensors, dim)
    if form is None:
        return Layer(Form("diff", 1), 1.0), {"diff": _difference(path, target, tensors, dim, alpha)}
    parameters = {}
    for spec in form.tensors(target):
        tensor = tensors.get(spec.name)
        if tensor is None:
            raise AdapterFileError(f"{path}: {target.key} has no {spec.name}. Is the file cut short?")
        if _sides(tensor.shape) != _sides(spec.shape):
            raise _does_not_fit(path, target, tensors)
        parameters[spec.name] = tensor.reshape(spec.shape)
    if "lokr_w1" in parameters:
        _check_kronecker(path, target, parameters)
    return Layer(form, 1.0 if form.algorithm in ("ia3", "diff") else alpha), parameters


def _rank(tensors: Mapping[str, Tensor]) -> int | None:
    """None: no adapter that is known here."""
    for name in ("lora_down.weight", "hada_w1_b", "lokr_w2_b", "lokr_w1_b"):
        if name in tensors:
            return len(tensors[name])
    whole = "lokr_w2" in tensors or "diff" in tensors or {"weight", "on_input"} <= set(tensors)
    return 1 if whole else None


def _packed_form(target: Target, tensors: Mapping[str, Tensor], dim: int) -> Form | None:
    """The form whose tensors these are; None for what must be multiplied out."""
    names = set(tensors) - {"alpha"}
    if "diff" in names:
        return Form("diff", 1)
    if "on_input" in names:
        return Form("ia3", 1, int(tensors["on_input"]))
    if names == {"lora_down.weight", "lora_up.weight"}:
        return Form("lora", dim)
    if names == {"lora_down.weight", "lora_up.weight", "dora_scale"}:
        return Form("dora", dim) if _is_per_output(tensors["dora_scale"], target) else None
    if names == set(_LOHA):
        return Form("loha", dim)
    if names in ({"lokr_w1", "lokr_w2"}, {"lokr_w1", "lokr_w2_a", "lokr_w2_b"}):
        ups = {"lokr_w2", "lokr_w2_b"}  # the factorisation is the file's own
        found = {name: tensors[name].flatten(1) if name == "lokr_w2_b" else tensors[name] for name in sorted(names)}
        shapes = [TensorSpec(name, tuple(tensor.shape), name in ups) for name, tensor in found.items()]
        return Form("lokr", dim, shapes=tuple(shapes))
    return None


def _difference(path: Path, target: Target, tensors: Mapping[str, Tensor], dim: int, alpha: float) -> Tensor:
    """The weight difference [O,I(,kh,kw)] of forms with Tucker cores, two low-rank factors or another magnitude."""
    import torch
    from lycoris.functional import locon as lycoris_locon
    from lycoris.functional import loha, lokr, weight_decompose

    get = tensors.get
    try:
        if "lora_down.weight" in tensors:
            delta = lycoris_locon.diff_weight(tensors["lora_down.weight"], tensors["lora_up.weight"],
                                              get("lora_mid.weight"), gamma=alpha / dim, backend="torch")
        elif "hada_w1_a" in tensors:
            delta = loha.diff_weight(tensors["hada_w1_b"], tensors["hada_w1_a"], tensors["hada_w2_b"],
                                     tensors["hada_w2_a"], get("hada_t1"), get("hada_t2"),
                                     gamma=torch.tensor(alpha / dim), backend="torch")
        else:
            delta = lokr.diff_weight(get("lokr_w1"), get("lokr_w1_a"), get("lokr_w1_b"), get("lokr_w2"),
                                     get("lokr_w2_a"), get("lokr_w2_b"), get("lokr_t2"), gamma=alpha, backend="torch")
        delta = delta.detach().reshape(target.weight_shape)
    except (KeyError, RuntimeError) as error:
        raise AdapterFileError(f"{path}: the tensors of {target.key} ({', '.join(sorted(tensors))}) don't make a "
                               f"weight of the base's layer, {list(target.weight_shape)}: {error}") from error
    if "dora_scale" not in tensors:
        return delta
    module: Any = target.module
    weight = module.weight.detach().float().cpu()
    magnitude = tensors["dora_scale"]
    decomposed: Tensor = weight_decompose(weight + delta, magnitude, wd_on_out=_is_per_output(magnitude, target),
                                          backend="torch")
    return decomposed - weight


def _sides(shape: Sequence[int]) -> list[int]:
    """Without those of length 1: a 1x1 convolution's tensors are saved with them or without, a vector with either."""
    return [side for side in shape if side != 1]


def _is_per_output(magnitude: Tensor, target: Target) -> bool:
    """DoRA's magnitudes are [O] or [O,1(,1,1)]; an older habit of LyCORIS is one per input, [1,I(,1,1)]."""
    return magnitude.ndim == 1 or len(magnitude) == target.out_features


def _check_kronecker(path: Path, target: Target, parameters: Mapping[str, Tensor]) -> None:
    """The factors' sizes must multiply to the layer's."""
    w1 = parameters["lokr_w1"]
    w2_out = len(parameters["lokr_w2"] if "lokr_w2" in parameters else parameters["lokr_w2_a"])
    last = parameters["lokr_w2"].flatten(1) if "lokr_w2" in parameters else parameters["lokr_w2_b"]
    num_in = target.in_features * target.kernel_size[0] * target.kernel_size[1]
    if (len(w1) * w2_out, w1.shape[1] * last.shape[1]) != (target.out_features, num_in):
        raise _does_not_fit(path, target, parameters)


def _does_not_fit(path: Path, target: Target, tensors: Mapping[str, Tensor]) -> AdapterFileError:
    shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in sorted(tensors.items()) if tensor.ndim)
    return AdapterFileError(f"{path}: {target.key} has {shapes}; the base's layer is {target.in_features} -> "
                            f"{target.out_features}, {list(target.weight_shape)}. Was it trained on another model?")
