"""Inpainting: what is known stays, only the mask is drawn anew, and likeness is asked for inside of it."""

import pytest
import torch

from sweep.errors import ModelError, ScoringError
from sweep.evaluation.generate import Row, generate
from sweep.evaluation.inpainting import InpaintConfig, _boxes, _outside, _pictures, score_inpainting
from sweep.evaluation.known import known_picture
from sweep.evaluation.lora_files import FoundLora
from sweep.evaluation.scorer import Scorer
from sweep.evaluation.settings import Sampler
from sweep.evaluation.standalone import evaluate
from sweep.model.base import InpaintingConfig, PretrainedConfig
from sweep.model.loading import load_base
from sweep.network.lora_file import read_lora
from sweep.pocket import WEIGHTS_DIR
from tests.unit.evaluation.evaluation_examples import TREE, unconfirmed_scoring
from tests.unit.evaluation.test_standalone import config
from tests.unit.evaluation.test_uses import answer_of, uses

BRIEF = {**TREE["sampler"], "num_steps": 8}


def sampler(name: str) -> Sampler:
    return Sampler(name=name, num_steps=4, guidance_scale=7.0, negative_prompt="")


@pytest.fixture(scope="module")
def lora(make_lora, targets, tmp_path_factory):
    return read_lora(make_lora(tmp_path_factory.mktemp("lora") / "a.safetensors"), targets)


@pytest.fixture(scope="module")
def scorer(base, targets, subject_dataset, tmp_path_factory):
    scoring = unconfirmed_scoring(sampler=BRIEF)
    return Scorer(base, targets, scoring, subject_dataset, tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def photo(subject_dataset):
    from sweep.data.cache import load_pixels

    return load_pixels(subject_dataset.photos[0].path, 64)


@pytest.mark.parametrize("name", ["dpmpp_2m_karras", "euler_a"])
def test_the_rest_is_as_the_autoencoder_leaves_it_and_the_mask_is_new(base, targets, lora, photo, name):
    known = known_picture(base, photo, (0, 0, 24, 24), "k")
    [image] = generate(base, targets, [Row(lora, 1.0, "photo of alexq man", 3, known=known)], sampler(name),
                       resolution=64)
    [coded] = base.decode(known.latents_CHW[None])
    change = (image - coded).abs().amax(dim=0)
    assert float(change[48:, 48:].max()) < 0.02, "far from the mask nothing has changed"
    assert float(change[:24, :24].mean()) > 0.1


def with_nine_channels(folder, seed=0):
    """The pocket base as an inpainting base: its first layer also sees mask and hole, by weights drawn at random."""
    import json
    import shutil

    import safetensors.torch

    shutil.copytree(WEIGHTS_DIR / "sd", folder)
    settings = folder / "unet" / "config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "in_channels": 9}))
    [path] = (folder / "unet").glob("*.safetensors")
    tensors = safetensors.torch.load_file(path)
    first = tensors["conv_in.weight"]
    more = torch.randn(len(first), 5, 3, 3, generator=torch.Generator().manual_seed(seed)) * 0.05
    tensors["conv_in.weight"] = torch.cat([first, more.to(first)], dim=1)
    safetensors.torch.save_file(tensors, path)
    return folder


@pytest.fixture(scope="module")
def inpainting_folder(tmp_path_factory):
    return with_nine_channels(tmp_path_factory.mktemp("inpainting") / "sd")


@pytest.mark.parametrize("is_plain", [True, False], ids=["blended", "nine channels"])
def test_it_draws_what_diffusers_own_pipeline_draws(base, targets, photo, inpainting_folder, monkeypatch, is_plain):
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionInpaintPipeline
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    from sweep.randomness import generator

    if not is_plain:
        base = load_base(InpaintingConfig(name="file", path=str(inpainting_folder), resolution=64, download=False,
                                          vae=None, tokenizer=None, prediction_type=None), "nine")
    assert base.takes_masks != is_plain
    known = known_picture(base, photo, (16, 8, 48, 40), "k")
    [ours] = generate(base, targets, [Row(None, 1.0, "photo of a man", 7, known=known)], sampler("dpmpp_2m_karras"),
                      resolution=64)
    scheduler = DPMSolverMultistepScheduler.from_config(base.scheduler_config, algorithm_type="dpmsolver++",
                                                        use_karras_sigmas=True)
    pipeline = StableDiffusionInpaintPipeline(
        base.vae, base.text_encoder, base.tokenizer, base.unet, scheduler, safety_checker=None, feature_extractor=None,
        requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mean)
    mask = torch.zeros(1, 1, 64, 64)
    mask[:, :, 8:40, 16:48] = 1
    noise = torch.randn(1, 4, 16, 16, generator=generator(7, 0, "latents"))
    theirs = pipeline("photo of a man", image=photo[None], mask_image=mask, height=64, width=64, strength=1.0,
                      num_inference_steps=4, guidance_scale=7.0, negative_prompt="", latents=noise,
                      output_type="pt").images[0]
    torch.testing.assert_close(ours, theirs, atol=5e-3, rtol=0)


def test_a_mask_over_everything_draws_a_whole_image_and_one_over_nothing_the_picture_itself(base, targets, lora, photo):
    row = Row(lora, 1.0, "photo of alexq man", 3)
    everything, nothing = (known_picture(base, photo, (0, 0, side, side), "k") for side in (64, 0))
    rows = [row, Row(lora, 1.0, row.prompt, 3, known=everything), Row(lora, 1.0, row.prompt, 3, known=nothing)]
    whole, masked, kept = generate(base, targets, rows, sampler("dpmpp_2m_karras"), resolution=64)
    torch.testing.assert_close(masked, whole, atol=1e-3, rtol=0)
    torch.testing.assert_close(kept, base.decode(nothing.latents_CHW[None])[0], atol=1e-3, rtol=0)
    alone = generate(base, targets, rows[:1], sampler("dpmpp_2m_karras"), resolution=64)
    torch.testing.assert_close(alone[0], whole, atol=1e-3, rtol=0)  # companions that are inpainted change nothing


def pictures_of(scorer):
    return _pictures(InpaintConfig(num_pictures=3, margin=0.2, base_model=None), scorer, scorer.drawer)


def test_masks_cover_the_face_and_leave_some_of_the_picture(scorer):
    pictures = pictures_of(scorer)
    assert len({picture.cell.index for picture in pictures}) == len(pictures) == 3
    for picture in pictures:
        [faces] = scorer.backends.face.faces(picture.image_CHW[None])
        x0, y0, x1, y1 = picture.box
        fx0, fy0, fx1, fy1 = faces.boxes_F4[0].tolist()
        assert x0 <= max(fx0, 0) and y0 <= max(fy0, 0) and x1 >= min(fx1, 64) and y1 >= min(fy1, 64)
        assert picture.known.mask_1HW.mean() == pytest.approx(picture.masked_frac) and picture.masked_frac <= 0.9
        assert all(edge % 4 == 0 for edge in picture.box), "whole latents"
    assert len({picture.known.key for picture in pictures}) == 3


def test_what_changed_outside_the_mask_is_found(scorer):
    picture = pictures_of(scorer)[0]
    before = picture.image_CHW[None]
    inside, outside = before.clone(), (before + 0.1)
    x0, y0, x1, y1 = picture.box
    inside[:, :, y0:y1, x0:x1] = 0.5
    assert _outside(inside, before, [picture], scorer) == [0.0]
    assert _outside(outside, before, [picture], scorer) == [pytest.approx(0.1)]


def test_what_has_no_face_is_masked_in_the_middle(scorer, monkeypatch):
    import dataclasses

    monkeypatch.setattr(scorer, "backends", dataclasses.replace(scorer.backends, face=None))
    assert _boxes(torch.zeros(2, 3, 64, 64), 0.35, scorer) == [(16, 16, 48, 48)] * 2


def test_pictures_without_a_face_are_refused(scorer, monkeypatch):
    monkeypatch.setattr("sweep.evaluation.inpainting._boxes", lambda images, *_: [None] * len(images))
    with pytest.raises(ScoringError, match="a face in 0 of its 3 pictures; inpainting needs at least 3"):
        pictures_of(scorer)


def test_likeness_is_told_for_all_and_a_picture_is_drawn_once(make_lora, scorer, tmp_path):
    lora = FoundLora(make_lora(tmp_path / "a.safetensors"), 1, 10)
    asked = InpaintConfig(num_pictures=3, margin=0.2, base_model=None)
    [told] = score_inpainting(asked, lora, answer_of(lora.path), scorer, tmp_path)
    assert told.likeness.value is not None and told.likeness.n == 3 and 0.1 < told.masked_frac < 0.9
    assert told.rest_autoencoded <= told.rest_changed < told.rest_autoencoded + 0.02
    assert "all pictures (3, " in told.words() and "the rest changed by 0.0" in told.words()
    assert (tmp_path / "inpaint.png").stat().st_size > 1000
    images = {image: image.stat().st_mtime_ns for image in (scorer.results_dir / "cache" / "images").rglob("*.png")}
    assert score_inpainting(asked, lora, answer_of(lora.path), scorer, tmp_path) == [told]
    assert images == {image: image.stat().st_mtime_ns
                      for image in (scorer.results_dir / "cache" / "images").rglob("*.png")}


def test_an_inpainting_base_is_used_for_it_and_for_nothing_else(make_lora, scorer, inpainting_folder, tmp_path):
    lora = FoundLora(make_lora(tmp_path / "a.safetensors"), 1, 10)
    asked = InpaintConfig(num_pictures=3, margin=0.2, base_model=str(inpainting_folder))
    [told] = score_inpainting(asked, lora, answer_of(lora.path), scorer, tmp_path)
    assert told.likeness.n == 3 and told.rest_changed > told.rest_autoencoded + 0.02, (
        "with weights drawn at random it does not keep what it is told")
    asked = uses(inpaint__num_pictures=3, inpaint__base_model=str(WEIGHTS_DIR / "sd"))
    with pytest.raises(ModelError, match=r"takes 4 channels, an inpainting model's takes 9.*leave .*base_model out"):
        evaluate(config(lora.path, tmp_path, uses=asked))
    trained_on = PretrainedConfig(name="file", path=str(inpainting_folder), resolution=64, download=False, vae=None,
                                  tokenizer=None, prediction_type=None)
    with pytest.raises(ModelError, match="an inpainting model, which can't be trained on"):
        load_base(trained_on, "x")


def test_too_few_pictures_are_refused(make_lora, tmp_path):
    with pytest.raises(ScoringError, match="num_pictures = 2: an interval needs at least 3"):
        evaluate(config(make_lora(tmp_path / "a.safetensors"), tmp_path, uses=uses(inpaint__num_pictures=2)))
