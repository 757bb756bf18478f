"""The weight set: loads in the layout of SD 1.x, is what its manifest says, and small enough to ship."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sweep.errors import ModelError
from sweep.pocket import WEIGHTS_DIR, models
from sweep.pocket.export import export_untrained, sha256

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """The shipped set if there is one, else random weights in the same layout."""
    if (WEIGHTS_DIR / "weights.json").is_file():
        return WEIGHTS_DIR
    folder = tmp_path_factory.mktemp("weights")
    export_untrained(folder, seed=0)
    return folder


def test_manifest_names_every_file_with_its_hash(weights: Path) -> None:
    manifest = json.loads((weights / "weights.json").read_text(encoding="utf-8"))
    found = {p.relative_to(weights).as_posix() for p in weights.rglob("*") if p.is_file()} - {"weights.json"}
    assert found == set(manifest["files"])
    for name, entry in manifest["files"].items():
        assert sha256(weights / name) == entry["sha256"], name
    assert sum(entry["bytes"] for entry in manifest["files"].values()) <= 25_000_000


def test_pipeline_is_stable_diffusion_and_draws(weights: Path) -> None:
    pipeline = models.load_pipeline(weights / "sd")
    assert pipeline.vae.config.scaling_factor == 0.18215
    assert pipeline.scheduler.config.beta_schedule == "scaled_linear"
    assert not pipeline.unet.config.use_linear_projection
    assert pipeline.tokenizer.model_max_length == 77
    images = pipeline("photo of alexq man", num_inference_steps=2, output_type="pt").images
    assert images.shape == (1, 3, 64, 64)


def test_any_word_has_tokens_and_a_trigger_is_no_unknown(weights: Path) -> None:
    tokenizer = models.load_pipeline(weights / "sd").tokenizer
    ids = tokenizer("photo of alexq man, Zürich 7 ✓").input_ids
    assert ids.count(tokenizer.eos_token_id) == 1
    assert tokenizer.tokenize("wearing beanie") == ["wearing</w>", "beanie</w>"]


def test_face_embeds_with_unit_norm_at_any_size(weights: Path) -> None:
    face = models.load_face(weights / "face.safetensors")
    boxes, confidence = face.locate(torch.nn.functional.interpolate(IMAGES, size=(128, 96)))
    assert boxes.shape == (2, 4) and ((0 <= confidence) & (confidence <= 1)).all()
    assert torch.allclose(face.embed(IMAGES).norm(dim=1), torch.ones(2), atol=1e-4)
    assert not any(parameter.requires_grad for parameter in face.parameters())


def test_perceptual_distance_is_zero_for_equal_pictures(weights: Path) -> None:
    perceptual = models.load_perceptual(weights / "perceptual.safetensors")
    assert perceptual.lpips_distance(IMAGES, IMAGES).abs().max() < 1e-5
    assert perceptual.lpips_distance(IMAGES, IMAGES.flip(0)).min() > 0
    assert len(perceptual(IMAGES)) == 4


def test_clip_features_do_not_depend_on_padding(weights: Path) -> None:
    clip, tokenizer = models.load_clip(weights / "clip")
    alone = models.clip_text_features(clip, tokenizer, ["photo of a man"])
    padded = models.clip_text_features(clip, tokenizer, ["photo of a man", "photo of a man wearing a red hoodie"])
    assert torch.allclose(alone[0], padded[0], atol=1e-5)
    assert models.clip_image_features(clip, IMAGES).shape == (2, 128)


def test_a_file_of_another_network_or_version_is_refused(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no FaceRecogniser .* lacks .* has unknown heads.*sweep\.pocket\.build"):
        models.load_face(weights / "judge.safetensors")
    tensors = load_file(weights / "judge.safetensors")
    wider = tmp_path / "judge.safetensors"
    save_file({**tensors, "heads.hat.bias": torch.zeros(9)}, wider)
    with pytest.raises(ModelError, match=r"in another shape heads\.hat\.bias \(1 in all\)"):
        models.load_judge(wider)


def test_missing_weights_say_where_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"sweep\.pocket\.build"):
        models.load_face(tmp_path / "face.safetensors")
    with pytest.raises(ModelError, match=r"model_index\.json"):
        models.load_pipeline(tmp_path)
