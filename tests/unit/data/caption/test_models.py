"""BLIP and the tagger through their real loading code, on small models in the real layout."""

import json
from pathlib import Path

import pytest
from PIL import Image

from sweep.data.caption.blip import Blip
from sweep.data.caption.tagger import Tagger
from sweep.errors import ModelError
from tests.unit.data.caption.models import write_blip, write_tagger

RED = Image.new("RGB", (40, 40), (255, 0, 0))


@pytest.fixture(scope="module")
def blip_folder(tmp_path_factory) -> Path:
    return write_blip(tmp_path_factory.mktemp("models") / "blip")


@pytest.fixture
def tagger_folder(tmp_path: Path) -> Path:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    return write_tagger(tmp_path / "tagger")


@pytest.mark.parametrize("shortest,longest", [(3, 5), (25, 30)])
def test_blip_says_as_many_tokens_as_asked(blip_folder: Path, shortest: int, longest: int) -> None:
    caption = Blip(str(blip_folder), num_beams=3, min_length=shortest, max_length=longest)(RED)
    words = caption.split()
    assert set(words) == {"beach"} and shortest - 3 <= len(words) <= longest


def test_blip_is_the_same_every_time(blip_folder: Path) -> None:
    blip = Blip(str(blip_folder), num_beams=2, min_length=3, max_length=9)
    assert blip(RED) == blip(RED)


def test_what_blip_can_not_load_is_named(blip_folder: Path, tmp_path: Path) -> None:
    def load(folder: Path) -> None:
        Blip(str(folder), num_beams=1, min_length=1, max_length=5)

    with pytest.raises(ModelError, match=r"neither a folder nor in the hub's cache, and nothing is downloaded unasked"):
        load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"lacks config.json, .* pytorch_model.bin is pickled and is not read"):
        load(tmp_path / "empty")
    other = tmp_path / "clip"
    other.mkdir()
    for path in blip_folder.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "model_type": "clip"}))
    with pytest.raises(ModelError, match="a model of the kind 'clip'; --blip reads BLIP"):
        load(other)
    (other / "config.json").write_text(json.dumps(config))
    weights = (other / "model.safetensors").read_bytes()
    (other / "model.safetensors").write_bytes(weights[:len(weights) // 2])
    with pytest.raises(ModelError, match="is truncated"):
        load(other)


def test_a_blip_without_its_decoder_is_refused(blip_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    half = tmp_path / "half"
    half.mkdir()
    for path in blip_folder.iterdir():
        (half / path.name).write_bytes(path.read_bytes())
    tensors = {name: tensor for name, tensor in load_file(half / "model.safetensors").items()
               if name.startswith("vision_model.")}
    save_file(tensors, half / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks \d+ tensors, e.g. text_decoder"):
        Blip(str(half), num_beams=1, min_length=1, max_length=5)


def tags(folder: Path, image: Image.Image, threshold: float = 0.35, character: float = 0.85) -> str:
    return Tagger(str(folder), threshold=threshold, character_threshold=character)(image)


def test_the_tagger_sees_the_colours_as_they_are(tagger_folder: Path) -> None:
    """A picture whose channels were swapped, or scaled to 1, would be tagged otherwise."""
    assert tags(tagger_folder, RED) == "red shirt, alice (red), ^_^"
    assert tags(tagger_folder, Image.new("RGB", (9, 9), (0, 255, 0))) == "green hat, ^_^"
    assert tags(tagger_folder, Image.new("RGB", (9, 9), (0, 0, 255))) == "blue sky, ^_^"


def test_the_tagger_sees_the_whole_picture_on_white(tagger_folder: Path) -> None:
    wide = set(tags(tagger_folder, Image.new("RGB", (90, 30))).split(", "))  # black, with twice as much white beside
    assert wide == {"red shirt", "green hat", "blue sky", "^_^"}
    assert tags(tagger_folder, Image.new("RGB", (90, 90))) == "^_^"


def test_thresholds_of_tags_and_characters(tagger_folder: Path) -> None:
    assert tags(tagger_folder, RED, threshold=0.9) == "red shirt, alice (red)"
    assert tags(tagger_folder, RED, character=1.0) == "red shirt, ^_^"


def test_what_the_tagger_can_not_load_is_named(tagger_folder: Path, tmp_path: Path) -> None:
    table = tagger_folder / "selected_tags.csv"
    whole = table.read_text()
    table.write_text("\n".join(whole.splitlines()[:-1]))
    with pytest.raises(ModelError, match=r"answers with 6 probabilities, selected_tags.csv has 5 tags"):
        tags(tagger_folder, RED)
    table.write_text("name;kind\na;0\n")
    with pytest.raises(ModelError, match="is no table of tags"):
        tags(tagger_folder, RED)
    table.unlink()
    with pytest.raises(ModelError, match=r"lacks selected_tags.csv. Give a folder of the kind of SmilingWolf/"):
        tags(tagger_folder, RED)
    table.write_text(whole)
    (tagger_folder / "model.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"model.onnx can't be read as ONNX"):
        tags(tagger_folder, RED)
    with pytest.raises(ModelError, match="neither a folder nor in the hub's cache"):
        tags(tmp_path / "nowhere", RED)
