"""Drafts are shown, written only when asked to, and never over the only copy of what a person wrote."""

from pathlib import Path

import pytest
from PIL import Image

from sweep.data.caption.__main__ import main
from sweep.data.caption.edits import Edits, read_list, read_pairs
from sweep.errors import DataError
from tests.unit.data.caption.models import write_blip, write_tagger

COLOURS = {"001": (255, 0, 0), "002": (0, 255, 0), "003": (0, 0, 255), "004": (255, 0, 0)}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos" / "10_alexq man"
    folder.mkdir(parents=True)
    for name, colour in COLOURS.items():
        Image.new("RGB", (24, 24), colour).save(folder / f"{name}.png")
    (folder / "001.txt").write_text("photo of alexq, a man with black hair in a red t-shirt\n")
    return folder


def texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text().strip() for path in sorted(folder.glob("*.txt*"))}


@pytest.fixture
def tagger(tmp_path: Path) -> str:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    return str(write_tagger(tmp_path / "tagger"))


def test_a_dry_run_shows_the_changes_and_writes_nothing(photos: Path, tagger: str, capsys) -> None:
    before = texts(photos)
    assert main([str(photos.parent), "--tagger", tagger]) == 0
    said = capsys.readouterr().out
    assert "002.png\n  - (none)\n  + alexq, green hat, ^_^" in said.replace("10_alexq man/", "")
    assert "4 photos: 4 captions would change, 1 of them are there already; --write writes them" in said
    assert texts(photos) == before


def test_writing_keeps_what_a_person_wrote(photos: Path, tagger: str, capsys) -> None:
    assert main([str(photos.parent), "--tagger", tagger, "--prefix", "photo of {trigger},", "--write"]) == 0
    assert texts(photos) == {"001.txt": "photo of alexq, a man with black hair in a red t-shirt",
                             "002.txt": "photo of alexq, green hat, ^_^", "003.txt": "photo of alexq, blue sky, ^_^",
                             "004.txt": "photo of alexq, red shirt, alice (red), ^_^"}
    assert main([str(photos.parent), "--tagger", tagger, "--prefix", "photo of {trigger},", "--write"]) == 0
    assert "0 captions written" in capsys.readouterr().out  # the same again changes nothing


def test_backups_are_never_overwritten(photos: Path, tagger: str) -> None:
    first = (photos / "001.txt").read_text()
    for prefix in ("one,", "two,"):
        assert main([str(photos.parent), "--tagger", tagger, "--existing", "replace", "--prefix", prefix,
                     "--write"]) == 0
    assert (photos / "001.txt.bak").read_text() == first
    assert (photos / "001.txt.bak2").read_text().startswith("one, ")
    assert (photos / "001.txt").read_text().startswith("two, ")


def test_models_are_put_behind_what_is_there(photos: Path, tagger: str, tmp_path: Path) -> None:
    blip = str(write_blip(tmp_path / "blip"))
    assert main([str(photos), "--tagger", tagger, "--blip", blip, "--min-length", "2", "--max-length", "4", "--beams",
                 "1", "--existing", "append", "--write"]) == 0
    after = texts(photos)
    assert after["001.txt"].startswith("photo of alexq, a man with black hair in a red t-shirt, beach")
    assert after["002.txt"].startswith("photo of alexq, beach") and after["002.txt"].endswith(", green hat, ^_^")


def test_captions_alone_can_be_edited_and_what_is_constant_is_told(photos: Path, capsys) -> None:
    for name, place in (("002", "park"), ("003", "bar"), ("004", "car")):
        (photos / f"{name}.txt").write_text(f"photo of alexq, a man with black hair in a {place}")
    assert main([str(photos.parent), "--replace", "t-shirt=tee"]) == 0
    said = capsys.readouterr().out
    assert "+ photo of alexq, a man with black hair in a red tee\n" in said
    assert 'on nearly every photo: black hair' in said and '--prune "black hair' in said
    assert main([str(photos.parent), "--prune", "black hair", "--write"]) == 0
    assert texts(photos)["002.txt"] == "photo of alexq, a man in a park"


@pytest.mark.parametrize("caption,pruned", [
    ("alexq, black hair, hat", "alexq, hat"), ("alexq, black_hair, hat", "alexq, hat"),
    ("a man with a black hair and beard", "a man and beard"), ("blackhair, black hairs", "blackhair, black hairs"),
    ("a man with hat and black hair, smiling", "a man with hat, smiling"), ("Black Hair", "")])
def test_pruning(caption: str, pruned: str) -> None:
    assert Edits(prune=("black hair",)).apply(caption) == pruned


def test_prefix_and_replacements() -> None:
    edits = Edits(prefix="photo of alexq,", replace=(("guy", "man"), ("a.b", "c")))
    assert edits.apply("a guy with guys") == "photo of alexq, a man with guys"
    assert edits.apply("Photo of alexq, a guy") == "Photo of alexq, a man"
    assert edits.apply("axb") == "photo of alexq, axb"


def test_lists_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "prune.txt").write_text("# the subject\nblack hair\n\nbrown skin\n")
    assert read_list([str(tmp_path / "prune.txt"), "beard, mole"]) == ("black hair", "brown skin", "beard", "mole")
    assert read_pairs(["a b=c, d="]) == (("a b", "c"), ("d", ""))
    with pytest.raises(DataError, match="write old=new"):
        read_pairs(["a"])
    with pytest.raises(DataError, match="there is no such file"):
        read_list([str(tmp_path / "nowhere.txt")])


@pytest.mark.parametrize("arguments,message", [
    ([], "Nothing to do: give --blip or --tagger"),
    (["--tagger", "nowhere"], "nowhere is neither a folder nor in the hub's cache"),
    (["--prune", "photo of alexq,a man,in a red t-shirt,black hair", "--write"], "nothing would be left"),
    (["--prune", "x", "--extension", "txt"], "must begin with a point"),
    (["--prune", "x", "--threshold", "2"], "a probability, 0 to 1"),
    (["--prune", "x", "--min-length", "80"], "the least length not above the most")])
def test_what_is_refused(photos: Path, arguments: list[str], message: str, capsys) -> None:
    before = texts(photos)
    assert main([str(photos.parent), *arguments]) == 2
    assert message in capsys.readouterr().err and texts(photos) == before


def test_a_trigger_must_be_known_for_the_usual_beginning(tmp_path: Path, tagger: str, capsys) -> None:
    (tmp_path / "plain").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "plain" / "1.png")
    assert main([str(tmp_path / "plain"), "--tagger", tagger]) == 2
    assert "Give --trigger WORD" in capsys.readouterr().err
    assert main([str(tmp_path / "nowhere"), "--prune", "x"]) == 2
    assert "there is no such folder" in capsys.readouterr().err
