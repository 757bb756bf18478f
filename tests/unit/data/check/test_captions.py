"""What captions say, leave out and repeat, on captions as people, BLIP and taggers write them."""

import json
from pathlib import Path

import pytest
from PIL import Image

from sweep.data.check.captions import caption_findings
from sweep.data.check.findings import Finding
from sweep.data.check.trigger import Vocabulary, read_vocabulary, token_note, trigger_findings
from sweep.data.folder import read_dataset
from sweep.errors import DataError
from sweep.pocket import WEIGHTS_DIR
from tests.conftest import dataset_config

BLIP = ["photo of alexq, a man in an orange shirt and sunglasses sitting on a rock in the middle of the desert",
        "photo of alexq, a man with a beard wearing a white shirt in a kitchen, with plates on a table",
        "photo of alexq, a close up of a man in a black jacket standing in front of a window at night",
        "photo of alexq, a man in a blue suit and tie posing for a picture in an office",
        "photo of alexq, a man wearing a green hoodie walking down a city street"]
TAGS = ["alexq, 1boy, solo, looking_at_viewer, red_shirt, outdoors, tree, smile",
        "alexq, 1boy, solo, jacket, indoors, window, upper_body",
        "alexq, 1boy, solo, hoodie, night, city, closed_mouth",
        "alexq, 1boy, solo, white_shirt, beach, ocean, full_body"]


def found(tmp_path: Path, captions: list[str], *, folder: str = "10_alexq man", num_tokens=None, **changes
          ) -> dict[str, Finding]:
    photos = tmp_path / folder
    photos.mkdir(parents=True)
    for number, caption in enumerate(captions):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(photos / f"{number}.png")
        (photos / f"{number}.txt").write_text(caption)
    config = dataset_config(dir=str(tmp_path), **changes)
    dataset = read_dataset(config, trigger=None, class_noun=None, repeats=None)
    return {f.kind: f for f in caption_findings(dataset, config, num_tokens, 75) if f.level != "note"}


@pytest.mark.parametrize("captions", [BLIP, TAGS])
def test_good_captions_are_left_in_peace(tmp_path: Path, captions: list[str]) -> None:
    assert found(tmp_path, captions) == {}


def test_a_trait_that_every_caption_names(tmp_path: Path) -> None:
    tags = [caption + ", blue_eyes, short_hair" for caption in TAGS]
    text = found(tmp_path, tags)["constant_trait"].text
    assert '"blue eyes"' in text and '"short hair"' in text and "solo" not in text
    blip = [caption.replace(" man", " man with brown skin") for caption in BLIP]
    assert '"brown skin"' in found(tmp_path / "blip", blip)["constant_trait"].text


def test_a_trait_of_some_captions_is_no_fault(tmp_path: Path) -> None:
    assert found(tmp_path, [TAGS[0] + ", blue_eyes", *TAGS[1:]]) == {}


def test_what_every_caption_names_besides(tmp_path: Path) -> None:
    kinds = found(tmp_path, [caption + ", holding umbrella" for caption in TAGS])
    assert set(kinds) == {"constant_phrase"} and '"umbrella"' in kinds["constant_phrase"].text


def test_where_the_trigger_stands(tmp_path: Path) -> None:
    captions = [BLIP[0], "a man named alexq in a red shirt, in a park", "a man in a red shirt, in a garden", *BLIP[3:]]
    kinds = found(tmp_path, captions)
    assert kinds["trigger_absent"].photos == ("2.png",) and kinds["trigger_late"].photos == ("1.png",)
    assert found(tmp_path / "moved", captions, trigger_first=True) == {}


def test_silence_about_clothes_and_places(tmp_path: Path) -> None:
    captions = [*BLIP, "photo of alexq, a man smiling in a kitchen", "photo of alexq, a man in a red sweater"]
    kinds = found(tmp_path, captions)
    assert kinds["uncaptioned_clothes"].photos == ("5.png",)
    assert kinds["uncaptioned_background"].photos == ("6.png",)
    dog = [caption.replace("alexq, a man", "sks, a dog") for caption in captions]
    assert "uncaptioned_clothes" not in found(tmp_path / "dog", dog, folder="10_sks dog")
    bare = [f"photo of alexq man, {mood}" for mood in ("happy", "sad", "calm", "angry")]
    assert "no caption says the clothes" in found(tmp_path / "bare", bare)["uncaptioned_clothes"].text


def test_one_caption_for_all(tmp_path: Path) -> None:
    assert "all captions are the same" in found(tmp_path, ["photo of alexq man in a park"] * 4)["same_caption"].text


def test_captions_longer_than_what_is_read_are_named_with_their_tokens(tmp_path: Path) -> None:
    tokenizer = read_vocabulary(WEIGHTS_DIR / "sd" / "tokenizer").tokenizer()
    long = BLIP[0] + ", in a forest on a beach" * 20
    kinds = found(tmp_path, [long, *BLIP[1:]], num_tokens=lambda text: len(tokenizer.tokenize(text)))
    count = len(tokenizer.tokenize(long))
    assert count > 75 and f"(0.png: {count})" in kinds["too_long"].text


def like_clip(tmp_path: Path, words: dict[str, int]) -> Vocabulary:
    """A vocabulary of CLIP's size in which these words are the merges of these numbers."""
    entries = {f"letter{i}": i for i in range(512)} | {f"{word}</w>": 511 + merge for word, merge in words.items()}
    taken = set(entries.values())
    entries |= {f"x{i}": i for i in range(49_408) if i not in taken}
    (tmp_path / "vocab.json").write_text(json.dumps(entries))
    return read_vocabulary(tmp_path)


def test_a_trigger_that_the_base_knows(tmp_path: Path) -> None:
    vocabulary = like_clip(tmp_path, {"john": 1198, "mona": 18_000, "taco": 9_000, "sks": 47_500})
    assert "'john' is merge 1,198 of 48,894" in trigger_findings("john", vocabulary)[0].text
    assert "'johnq'" in trigger_findings("John", vocabulary)[0].text
    parts = trigger_findings("mona_taco", vocabulary)[0].text
    assert "'mona' is merge 18,000" in parts and "'taco' is merge 9,000" in parts and "say 'monataco'" in parts
    assert trigger_findings("sks", vocabulary) == [] and trigger_findings("anantn", vocabulary) == []


def test_the_tokens_are_the_tokenizers_own() -> None:
    vocabulary = read_vocabulary(WEIGHTS_DIR / "sd" / "tokenizer")
    assert "is 1 token: beach." in token_note("beach", vocabulary).text
    assert [finding.kind for finding in trigger_findings("beach", vocabulary)] == ["common_trigger"]


def test_a_folder_without_a_vocabulary_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no vocabulary of CLIP's \(vocab.json\)"):
        read_vocabulary(tmp_path)
