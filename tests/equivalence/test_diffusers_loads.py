"""A file that we saved, loaded by diffusers' own pipeline, draws what we draw from it."""

from pathlib import Path

import pytest
import torch

from sweep.evaluation.generate import Row, generate
from sweep.evaluation.settings import Sampler
from sweep.network.bank import AdapterBank, AdapterSpec
from sweep.network.convert import convert
from sweep.network.lora_file import read_lora, write_lora
from sweep.pocket import WEIGHTS_DIR
from sweep.randomness import generator

SAMPLER = Sampler(name="dpmpp_2m_karras", num_steps=8, guidance_scale=5.0, negative_prompt="a hat")
PROMPT, SEED = "photo of alexq man with red hair, close-up", 3


@pytest.fixture(scope="module", params=["lora", "locon", "locon as PEFT", "lora as diffusers"])
def lora_path(request, targets, tmp_path_factory) -> Path:
    """A LoRA on both parts, strong enough to change the picture."""
    kind, _, form = request.param.partition(" as ")
    conv = {"conv_dim": 2, "conv_alpha": 1.0} if kind == "locon" else {}
    bank = AdapterBank(targets, [AdapterSpec(dim=4, alpha=2, **conv)])
    bank.init_weights(0, seed=1)
    g = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for tensors in bank.weights(0).values():
            up = tensors["lora_up.weight"]
            up.copy_((0.3 if not conv else 0.1) * torch.randn(up.shape, generator=g))
    path = tmp_path_factory.mktemp("lora") / "mine.safetensors"
    write_lora(path, bank.weights(0), dtype=torch.float32, metadata={"ss_network_dim": "4"})
    if form:
        convert(path, path.with_name("other.safetensors"), form.lower(), targets)
        return path.with_name("other.safetensors")
    return path


@pytest.fixture(scope="module")
def pipeline(lora_path: Path):
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(WEIGHTS_DIR / "sd", dtype=torch.float32)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config, use_karras_sigmas=True)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(lora_path.parent, weight_name=lora_path.name)
    return pipe


@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_the_pipeline_draws_the_same_image(base, targets, lora_path: Path, pipeline, strength: float) -> None:
    lora = read_lora(lora_path, targets)
    ours, bare = generate(base, targets, [Row(lora, strength, PROMPT, SEED), Row(None, 0, PROMPT, SEED)], SAMPLER,
                          resolution=64)
    latents = torch.randn(1, 4, 16, 16, generator=generator(SEED, 0, "latents"))
    pipeline.set_adapters(pipeline.get_active_adapters(), adapter_weights=strength)
    theirs = pipeline(PROMPT, negative_prompt=SAMPLER.negative_prompt, num_inference_steps=SAMPLER.num_steps,
                      guidance_scale=SAMPLER.guidance_scale, height=64, width=64, latents=latents,
                      output_type="pt").images[0]
    effect = (ours - bare).abs().mean()
    assert effect > 1 / 255, "the LoRA changes the picture"
    assert (ours - theirs).abs().mean() < 0.01 * effect
