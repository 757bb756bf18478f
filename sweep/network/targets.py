"""Which layers of a base are trained, and what each is called in a kohya LoRA file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sweep.network.ldm_names import ldm_path

if TYPE_CHECKING:
    from torch import nn

    from sweep.model.base import Base

Part = Literal["unet", "text_encoder"]
PARTS: tuple[Part, ...] = ("unet", "text_encoder")

Kind = Literal["attention", "feed_forward", "projection", "resnet", "sample", "outer", "norm", "tokens"]
TRANSFORMER_KINDS: tuple[Kind, ...] = ("attention", "feed_forward", "projection")
ADAPTED_KINDS: tuple[Kind, ...] = (*TRANSFORMER_KINDS, "resnet", "sample")
WHOLE_KINDS: tuple[Kind, ...] = (*ADAPTED_KINDS, "outer", "norm")

# sd-scripts' two sets of UNet containers, by class: the second joins with conv_dim
_TRANSFORMERS = ("Transformer2DModel",)
_CONVOLUTIONAL: dict[str, Kind] = {"ResnetBlock2D": "resnet", "Downsample2D": "sample", "Upsample2D": "sample"}
_TEXT_CONTAINERS: dict[str, Kind] = {"CLIPAttention": "attention", "CLIPSdpaAttention": "attention",
                                     "CLIPMLP": "feed_forward"}


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """One frozen layer that adapters are laid over, or that a trial has weights of its own for."""

    key: str  # "lora_unet_down_blocks_0_attentions_0_proj_in"
    part: Part
    module: nn.Module
    in_features: int
    out_features: int
    is_conv: bool  # a convolution: weights are saved 4-D, [r,in,kh,kw]
    kernel_size: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    kind: Kind = "attention"
    component: str = "unet"  # of the diffusers pipeline: unet, text_encoder, text_encoder_2
    path: str = ""  # of the module in its component, as PEFT files name it
    has_bias: bool = False
    tokenizer: Any = None  # of a text encoder's table of tokens

    @property
    def is_spatial(self) -> bool:
        """Whether its kernel is larger than 1x1: such layers have conv_dim and conv_alpha."""
        return self.kernel_size != (1, 1)

    @property
    def is_product(self) -> bool:
        """Whether it is one matrix product: a Linear, or a convolution of single pixels."""
        from torch import nn

        return type(self.module) is nn.Linear or (type(self.module) is nn.Conv2d and not self.is_spatial
                                                  and self.stride == (1, 1) and self.padding == (0, 0))

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """[O,I] or [O,I,kh,kw]; of a norm [O]."""
        if self.kind == "norm":
            return (self.out_features,)
        tail = self.kernel_size if self.is_conv else ()
        return (self.out_features, self.in_features, *tail)


def find_layers(base: Base) -> list[Target]:
    """Everything that some method trains: `find_targets`, then the UNet's and the text encoders' other layers (first
    and last convolution, time embedding, norms), and each text encoder's table of tokens, for new words."""
    targets = find_targets(base)
    known = {id(target.module) for target in targets}
    named = [("unet", base.unet), *zip(_text_components(base), base.text_encoders, strict=True)]
    for component, model in named:
        part: Part = "unet" if component == "unet" else "text_encoder"
        targets += [_outer(f"{component}.{path}", part, module, component, path)
                    for path, module in model.named_modules() if id(module) not in known and _has_weights(module)]
    for component, encoder, tokenizer in zip(_text_components(base), base.text_encoders, base.tokenizers, strict=True):
        table = encoder.get_input_embeddings()
        targets.append(Target(f"{component}.tokens", "text_encoder", table, table.num_embeddings, table.embedding_dim,
                              False, kind="tokens", component=component, tokenizer=tokenizer))
    return targets


def _text_components(base: Base) -> list[str]:
    return ["text_encoder" + ("_2" if i else "") for i in range(len(base.text_encoders))]


def find_targets(base: Base) -> list[Target]:
    """Every layer that some adapter may be laid over, the UNet's first; a spec picks its own from them.

    UNet: Linear and convolution layers inside transformer blocks' containers, ResNet blocks, down- and upsamplers. Text
    encoders: attention and MLP Linears. Of SD 1.5's, a plain LoRA takes 192 + 72; of SDXL's, 722 + 264 (kohya's sets).
    """
    num_texts = len(base.text_encoders)
    prefixes = ("lora_te",) if num_texts == 1 else ("lora_te1", "lora_te2")[:num_texts]
    targets = list(_unet_targets(base.unet, is_ldm=base.family == "sdxl"))
    for index, (prefix, text_encoder) in enumerate(zip(prefixes, base.text_encoders, strict=True)):
        targets += _text_encoder_targets(text_encoder, prefix, "text_encoder" + ("_2" if index else ""))
    return targets


def _unet_targets(unet: Any, is_ldm: bool) -> Iterator[Target]:
    for container_name, container in unet.named_modules():
        container_class = type(container).__name__
        if container_class not in _TRANSFORMERS and container_class not in _CONVOLUTIONAL:
            continue
        for name, module in container.named_modules():
            if not _is_layer(module):
                continue
            path = f"{container_name}.{name}"
            saved = ldm_path(path, unet.config.layers_per_block) if is_ldm else path
            kind = _CONVOLUTIONAL.get(container_class) or _transformer_kind(name)
            yield _target(f"lora_unet_{_flat(saved)}", "unet", module, kind, "unet", path)


def _text_encoder_targets(text_encoder: Any, prefix: str, component: str) -> Iterator[Target]:
    for container_name, container in text_encoder.named_modules():
        kind = _TEXT_CONTAINERS.get(type(container).__name__)
        if kind is None:
            continue
        for name, module in container.named_modules():
            if _is_layer(module):
                # transformers 5 dropped the level "text_model" that every LoRA file in the world names
                path = "text_model." + f"{container_name}.{name}".removeprefix("text_model.")
                yield _target(f"{prefix}_{_flat(path)}", "text_encoder", module, kind, component, path)


def _is_layer(module: nn.Module) -> bool:
    from torch import nn

    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)


def _has_weights(module: nn.Module) -> bool:
    from torch import nn

    return _is_layer(module) or isinstance(module, (nn.GroupNorm, nn.LayerNorm))


def _outer(key: str, part: Part, module: Any, component: str, path: str) -> Target:
    """A layer that no adapter is laid over."""
    if _is_layer(module):
        return _target(key, part, module, "outer", component, path)
    num_channels = len(module.weight)
    return Target(key, part, module, num_channels, num_channels, False, kind="norm", component=component, path=path,
                  has_bias=module.bias is not None)


def _transformer_kind(name: str) -> Kind:
    if ".attn1." in name or ".attn2." in name:
        return "attention"
    return "feed_forward" if ".ff." in name else "projection"


def _target(key: str, part: Part, module: Any, kind: Kind, component: str, path: str) -> Target:
    from torch import nn

    if isinstance(module, nn.Linear):
        return Target(key, part, module, module.in_features, module.out_features, False, kind=kind, component=component,
                      path=path, has_bias=module.bias is not None)
    assert isinstance(module, nn.Conv2d) and not isinstance(module.padding, str)
    (kernel_h, kernel_w), (stride_h, stride_w), (pad_h, pad_w) = module.kernel_size, module.stride, module.padding
    return Target(key, part, module, module.in_channels, module.out_channels, True, (kernel_h, kernel_w),
                  (stride_h, stride_w), (pad_h, pad_w), kind, component, path, module.bias is not None)


def _flat(path: str) -> str:
    return path.replace(".", "_")
