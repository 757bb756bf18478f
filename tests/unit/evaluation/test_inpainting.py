"""Inpainting: what is known stays, only the mask is drawn anew, and likeness is asked for inside of it."""

import pytest
import torch

from sweep.errors import ScoringError
from sweep.evaluation.generate import Known, Row, generate
from sweep.evaluation.inpainting import InpaintConfig, _boxes, _outside, _pictures
from sweep.evaluation.scorer import Scorer
from sweep.evaluation.settings import Sampler
from sweep.evaluation.standalone import evaluate
from sweep.files import read_json
from sweep.network.lora_file import read_lora
from tests.unit.evaluation.evaluation_examples import TREE, tiny_scoring
from tests.unit.evaluation.test_standalone import config
from tests.unit.evaluation.test_uses import uses

BRIEF = {**TREE["sampler"], "num_steps": 8}


def sampler(name: str) -> Sampler:
    return Sampler(name=name, num_steps=4, guidance_scale=7.0, negative_prompt="")


@pytest.fixture(scope="module")
def lora(make_lora, targets, tmp_path_factory):
    return read_lora(make_lora(tmp_path_factory.mktemp("lora") / "a.safetensors"), targets)


@pytest.fixture(scope="module")
def scorer(base, targets, subject_dataset, tmp_path_factory):
    return Scorer(base, targets, tiny_scoring(sampler=BRIEF), subject_dataset, tmp_path_factory.mktemp("results"))


def known_of(base, photo, mask_1HW, key="k") -> Known:
    latents = base.encode_moments(photo[None] * 2 - 1)[0, :base.latent_channels] * base.scaling_factor
    return Known(latents, mask_1HW, key)


@pytest.fixture(scope="module")
def photo(subject_dataset):
    from sweep.data.cache import load_pixels

    return load_pixels(subject_dataset.photos[0].path, 64)


@pytest.mark.parametrize("name", ["dpmpp_2m_karras", "euler_a"])
def test_the_rest_is_as_the_autoencoder_leaves_it_and_the_mask_is_new(base, targets, lora, photo, name):
    mask = torch.zeros(1, 16, 16)
    mask[:, :6, :6] = 1
    known = known_of(base, photo, mask)
    [image] = generate(base, targets, [Row(lora, 1.0, "photo of alexq man", 3, known=known)], sampler(name),
                       resolution=64)
    [coded] = base.decode(known.latents_CHW[None])
    change = (image - coded).abs().amax(dim=0)
    assert float(change[48:, 48:].max()) < 0.02, "far from the mask nothing has changed"
    assert float(change[:24, :24].mean()) > 0.1


def test_a_mask_over_everything_draws_a_whole_image_and_one_over_nothing_the_picture_itself(base, targets, lora, photo):
    row = Row(lora, 1.0, "photo of alexq man", 3)
    everything, nothing = (known_of(base, photo, torch.full((1, 16, 16), value)) for value in (1.0, 0.0))
    rows = [row, Row(lora, 1.0, row.prompt, 3, known=everything), Row(lora, 1.0, row.prompt, 3, known=nothing)]
    whole, masked, kept = generate(base, targets, rows, sampler("dpmpp_2m_karras"), resolution=64)
    torch.testing.assert_close(masked, whole, atol=1e-3, rtol=0)
    torch.testing.assert_close(kept, base.decode(nothing.latents_CHW[None])[0], atol=1e-3, rtol=0)
    alone = generate(base, targets, rows[:1], sampler("dpmpp_2m_karras"), resolution=64)
    torch.testing.assert_close(alone[0], whole, atol=1e-3, rtol=0)  # companions that are inpainted change nothing


def test_masks_cover_the_face_and_leave_some_of_the_picture(scorer):
    pictures = _pictures(InpaintConfig(num_pictures=3, margin=0.2), scorer)
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
    picture = _pictures(InpaintConfig(num_pictures=3, margin=0.2), scorer)[0]
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
        _pictures(InpaintConfig(num_pictures=3, margin=0.2), scorer)


def test_a_named_file_is_judged_by_inpainting_from_end_to_end(make_lora, tmp_path, capsys):
    asked = config(make_lora(tmp_path / "a.safetensors"), tmp_path / "results", scoring=tiny_scoring(sampler=BRIEF),
                   uses=uses(inpaint__num_pictures=3))
    evaluate(asked)
    said = capsys.readouterr().out
    assert "Inpainting, at strength" in said and "all pictures (3, " in said and "the rest changed by 0.0" in said
    [path] = (tmp_path / "results").glob("evaluate-*/uses.json")
    [told] = read_json(path)["inpaint"]
    assert told["likeness"]["value"] is not None and told["likeness"]["n"] == 3
    assert told["rest_autoencoded"] <= told["rest_changed"] < told["rest_autoencoded"] + 0.02
    assert (path.parent / "inpaint.png").stat().st_size > 1000
    images = {image: image.stat().st_mtime_ns for image in (tmp_path / "results" / "cache" / "images").rglob("*.png")}
    evaluate(asked)
    assert read_json(path)["inpaint"] == [told]
    assert images == {image: image.stat().st_mtime_ns
                      for image in (tmp_path / "results" / "cache" / "images").rglob("*.png")}, "nothing drawn twice"


def test_too_few_pictures_are_refused(make_lora, tmp_path):
    with pytest.raises(ScoringError, match="num_pictures = 2: an interval needs at least 3"):
        evaluate(config(make_lora(tmp_path / "a.safetensors"), tmp_path, uses=uses(inpaint__num_pictures=2)))
