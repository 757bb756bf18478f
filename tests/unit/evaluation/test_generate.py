"""An image depends on its file, strength, prompt and seed, and on nothing else."""

import pytest
import torch
import yaml

from sweep.command_line import CONF_DIR
from sweep.errors import ScoringError
from sweep.evaluation import generate as generate_module
from sweep.evaluation.generate import Row, generate
from sweep.evaluation.settings import Sampler
from sweep.network.lora_file import read_lora

SAMPLER = Sampler(name="dpmpp_2m_karras", num_steps=4, guidance_scale=7.0, negative_prompt="")


@pytest.fixture(scope="module")
def loras(make_lora, targets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("loras")
    return [read_lora(make_lora(folder / f"{i}.safetensors", dim=dim, seed=i), targets)
            for i, dim in enumerate((4, 8, 4))]


def draw(base, targets, rows, **options):
    return generate(base, targets, rows, SAMPLER, resolution=64, **options)


def test_companions_change_nothing_but_rounding(base, targets, loras):
    rows = [Row(loras[0], 1.0, "photo of alexq man", 1), Row(None, 1.0, "photo of a man", 1),
            Row(loras[1], 0.5, "photo of alexq man with red hair", 2), Row(loras[2], 0.8, "sketch of a man", 3),
            Row(loras[0], 0.6, "photo of alexq man", 1), Row(loras[1], 0.5, "photo of alexq man", 4)]
    alone = torch.cat([draw(base, targets, [row]) for row in rows])
    packed = draw(base, targets, rows)
    split = draw(base, targets, rows, batch_size=4)
    assert float((packed - alone).abs().max()) < 1e-3
    assert float((split - alone).abs().max()) < 1e-3
    different = (alone[:, None] - alone[None]).abs().amax(dim=(2, 3, 4)) > 5e-3
    assert bool((different | torch.eye(len(rows), dtype=torch.bool)).all()), "each row is an image of its own"


def test_a_batch_that_memory_does_not_hold_is_halved(base, targets, loras, monkeypatch):
    rows = [Row(loras[i % 3], 1.0, "photo of alexq man", i) for i in range(7)]
    whole, sizes, progress, real = draw(base, targets, rows), [], [], generate_module._draw

    def scarce(base, targets, rows, *rest):
        sizes.append(len(rows))
        if len(rows) > room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(base, targets, rows, *rest)

    monkeypatch.setattr(generate_module, "_draw", scarce)
    room = 3
    images = draw(base, targets, rows, batch_size=6, on_progress=lambda *done: progress.append(done))
    torch.testing.assert_close(images, whole, atol=1e-3, rtol=0)
    assert sizes == [6, 3, 3, 1] and progress == [(3, 7), (6, 7), (7, 7)]
    room = 0
    with pytest.raises(ScoringError, match="one image"):  # no training failed: its pack is not made smaller for it
        draw(base, targets, rows[:2])


def test_strength_zero_is_the_base(base, targets, loras):
    rows = [Row(loras[0], 0.0, "photo of a man", 5), Row(None, 1.0, "photo of a man", 5)]
    with_lora, without = draw(base, targets, rows)
    torch.testing.assert_close(with_lora, without, atol=1e-4, rtol=0)


def test_a_broken_file_leaves_its_companions_alone(base, targets, loras, make_lora, tmp_path):
    broken = read_lora(make_lora(tmp_path / "nan.safetensors", dim=4, size=float("nan")), targets)
    rows = [Row(broken, 1.0, "photo of alexq man", 1), Row(loras[0], 1.0, "photo of alexq man", 1)]
    images = draw(base, targets, rows)
    assert not bool(torch.isfinite(images[0]).all())
    torch.testing.assert_close(images[1:], draw(base, targets, rows[1:]), atol=1e-3, rtol=0)


def test_the_base_draws_what_diffusers_own_pipeline_draws(base, targets):
    from diffusers import DPMSolverMultistepScheduler

    from sweep.pocket.models import load_pipeline
    from sweep.randomness import generator

    pipeline = load_pipeline()
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(
        pipeline.scheduler.config, algorithm_type="dpmsolver++", use_karras_sigmas=True)
    latents = torch.randn(1, 4, 16, 16, generator=generator(7, 0, "latents"))
    theirs = pipeline("photo of a man with red hair", negative_prompt="", num_inference_steps=4, guidance_scale=7.0,
                      latents=latents, output_type="pt").images
    ours = draw(base, targets, [Row(None, 1.0, "photo of a man with red hair", 7)])
    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)


def test_progress_counts_images(base, targets):
    seen = []
    draw(base, targets, [Row(None, 1.0, "a man", i) for i in range(3)], batch_size=2,
         on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 3), (3, 3)]


@pytest.mark.parametrize(("file", "guidance_scale"), [("shared/real.yaml", 7), ("pocket.yaml", 3)])
def test_the_shipped_samplers_are_that_of_scores_md_but_for_the_pockets_guidance(file, guidance_scale):
    sampler = yaml.safe_load((CONF_DIR / "scoring" / file).read_text())["sampler"]
    assert (sampler["name"], sampler["num_steps"], sampler["guidance_scale"]) == ("dpmpp_2m_karras", 20, guidance_scale)


def test_euler_a_draws_its_noise_from_the_rows_own_seed(base, targets, loras):
    ancestral = Sampler(name="euler_a", num_steps=4, guidance_scale=7.0, negative_prompt="")
    rows = [Row(loras[0], 1.0, "photo of alexq man", seed) for seed in (1, 2)]
    together = generate(base, targets, rows, ancestral, resolution=64)
    alone = generate(base, targets, rows[1:], ancestral, resolution=64)
    torch.testing.assert_close(together[1:], alone, atol=1e-3, rtol=0)
    assert float((together[0] - together[1]).abs().max()) > 0.01
    assert float((together - draw(base, targets, rows)).abs().max()) > 0.01
