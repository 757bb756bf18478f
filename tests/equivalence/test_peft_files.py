"""Files that go to PEFT and come from it: what PEFT computes from them is what the bank computes."""

import copy
from pathlib import Path

import pytest
import torch

from sweep.network.bank import AdapterBank, AdapterSpec
from sweep.network.convert import convert
from sweep.network.lora_file import LoadedSpec, read_lora, write_lora

LINEAR_AND_CONV = r".*attentions.*(to_q|to_k|proj_in|proj_out)"  # the pocket's projections are 1x1 convolutions


@pytest.fixture(scope="module")
def inputs(base):
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    return latents, torch.tensor([500]), base.text_states(["photo of a man"])


def answer_of_peft(unet, inputs) -> torch.Tensor:
    latents, timesteps, text = inputs
    with torch.no_grad():
        return unet(latents, timesteps, encoder_hidden_states=text.states_BLD).sample


def answer_of_bank(base, bank: AdapterBank, inputs) -> torch.Tensor:
    with torch.no_grad(), bank.attached(), bank.rows([1]):
        return base.predict(*inputs)


def assert_same(ours: torch.Tensor, theirs: torch.Tensor, bare: torch.Tensor) -> None:
    effect = (theirs - bare).abs().max()
    assert effect > 1e-2, "the adapter does something"
    assert (ours - theirs).abs().max() < 1e-4 * effect


@pytest.mark.parametrize("use_dora", [False, True])
@pytest.mark.parametrize("told", [{}, {"use_rslora": True}, {"alpha_pattern": {"to_k": 1, r"attn2\.to_q": 2}}])
def test_a_file_of_peft_is_read_as_peft_means_it(base, targets, inputs, tmp_path: Path, use_dora: bool, told) -> None:
    from diffusers import StableDiffusionPipeline
    from peft import LoraConfig, get_peft_model_state_dict

    unet = copy.deepcopy(base.unet)
    unet.add_adapter(LoraConfig(r=4, lora_alpha=4, use_dora=use_dora, target_modules=LINEAR_AND_CONV, **told))
    g = torch.Generator().manual_seed(1)
    for name, parameter in unet.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.05, generator=g)
        elif "magnitude" in name:
            parameter.data.mul_(1 + 0.1 * torch.randn(parameter.shape, generator=g))
    StableDiffusionPipeline.save_lora_weights(
        tmp_path, unet_lora_layers=get_peft_model_state_dict(unet), weight_name="theirs.safetensors",
        unet_lora_adapter_metadata=unet.peft_config["default"].to_dict())
    lora = read_lora(tmp_path / "theirs.safetensors", targets)
    assert not lora.unknown and {layer.form.algorithm for layer in lora.layers.values()} == {
        "dora" if use_dora else "lora"}
    bank = AdapterBank(targets, [LoadedSpec(lora)])
    bank.load_weights(0, lora.weights)
    assert_same(answer_of_bank(base, bank, inputs), answer_of_peft(unet, inputs), answer_of_peft(base.unet, inputs))


@pytest.mark.parametrize("algorithm", ["lora", "dora"])
def test_diffusers_takes_our_file_in_pefts_form(base, targets, inputs, tmp_path: Path, algorithm: str) -> None:
    bank = AdapterBank(targets, [AdapterSpec(dim=4, alpha=2, algorithm=algorithm, parts=("unet",))])
    bank.init_weights(0, seed=1)
    g = torch.Generator().manual_seed(1)
    for tensors in bank.weights(0).values():
        tensors["lora_up.weight"].normal_(std=0.05, generator=g)
        if algorithm == "dora":
            tensors["dora_scale"].mul_(1 + 0.1 * torch.randn(tensors["dora_scale"].shape, generator=g))
    source, there = tmp_path / "ours.safetensors", tmp_path / "peft.safetensors"
    write_lora(source, bank.weights(0), dtype=torch.float32, metadata={})
    convert(source, there, "peft", targets)
    unet = copy.deepcopy(base.unet)
    unet.load_lora_adapter(there, prefix="unet")
    assert_same(answer_of_bank(base, bank, inputs), answer_of_peft(unet, inputs), answer_of_peft(base.unet, inputs))
