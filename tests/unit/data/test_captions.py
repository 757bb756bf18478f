from collections import Counter
from pathlib import Path

import pytest

from sweep.data.captions import classed, drawn_caption, has_trigger, plain_caption, read_caption, with_fixed_parts
from tests.conftest import dataset_config

TAGS = "alexq man, beach, hat, smiling, close-up"


def drawn(template: str, num: int = 400, *, seed: int = 1, epoch: int = 1, **changes) -> list[str]:
    config = dataset_config(**changes)
    return [drawn_caption(template, config, seed=seed, index=i, row=0, epoch=epoch) for i in range(num)]


def test_prefix_suffix_and_trigger() -> None:
    def fixed(caption: str, **changes) -> str:
        return with_fixed_parts(caption, dataset_config(**changes), "alexq")

    assert fixed("a man", caption_prefix="photo of", caption_suffix="at night") == "photo of a man at night"
    assert fixed("a man, hat", trigger_first=True) == "alexq, a man, hat"
    assert fixed("hat, alexq, beach", trigger_first=True) == "alexq, hat, beach"
    assert fixed("alexq man, hat", trigger_first=True) == "alexq man, hat"
    assert fixed("photo of alexq man", trigger_first=True) == "alexq, photo of alexq man"
    assert fixed("a man", trigger_first=True, caption_prefix="photo of") == "alexq, photo of a man"
    assert fixed("one\ntwo", caption_suffix="x") == "one x\ntwo x"


def test_a_trigger_is_a_word_of_its_own() -> None:
    assert has_trigger("photo of alexq, smiling", "alexq") and not has_trigger("photo of alexqs man", "alexq")


@pytest.mark.parametrize(("caption", "expected"), [
    ("photo of alexq man in a city", "photo of a man in a city"), ("a photo of an alexq man", "a photo of a man"),
    ("alexq, brown hair", "a man, brown hair"), ("photo of Alexq Man", "photo of a man"),
    ("photo of alexqx man", "photo of alexqx man"), ("no such word", "no such word")])
def test_the_same_words_about_any_member_of_the_class(caption: str, expected: str) -> None:
    assert classed(caption, "alexq", "man") == expected


def test_shuffling_keeps_the_first_tags_and_every_tag() -> None:
    captions = drawn(TAGS, shuffle_caption=True, keep_tokens=2)
    assert all(caption.startswith("alexq man, beach, ") for caption in captions)
    assert {frozenset(caption.split(", ")) for caption in captions} == {frozenset(TAGS.split(", "))}
    orders = Counter(captions)
    assert len(orders) == 6 and min(orders.values()) > 40  # each of 3! orders about 67 times


def test_trigger_first_is_kept_without_keep_tokens() -> None:
    assert all(caption.startswith("alexq man, ") for caption in drawn(TAGS, shuffle_caption=True, trigger_first=True))


def test_tags_are_dropped_at_their_rate_but_not_the_kept() -> None:
    captions = drawn(TAGS, caption_tag_dropout_rate=0.3, keep_tokens=1)
    assert all(caption.split(", ")[0] == "alexq man" for caption in captions)
    share = sum("beach" in caption for caption in captions) / len(captions)
    assert share == pytest.approx(0.7, abs=0.07)
    assert drawn(TAGS, 1, caption_tag_dropout_rate=1.0, keep_tokens=1) == ["alexq man"]


def test_a_separator_says_what_is_kept() -> None:
    captions = drawn("alexq man, beach ||| hat, smiling ||| close-up", shuffle_caption=True,
                     keep_tokens_separator="|||")
    assert set(captions) == {"alexq man, beach, hat, smiling, close-up", "alexq man, beach, smiling, hat, close-up"}
    assert plain_caption("alexq man ||| hat", "|||", choose=False) == "alexq man, hat"
    assert drawn("alexq man ||| hat", 1, keep_tokens_separator="|||") == ["alexq man, hat"]


def test_captions_are_dropped_at_their_rate() -> None:
    captions = drawn(TAGS, caption_dropout_rate=0.2)
    assert set(captions) == {"", TAGS}
    assert captions.count("") / len(captions) == pytest.approx(0.2, abs=0.06)


def test_captions_are_dropped_every_n_epochs() -> None:
    assert [drawn(TAGS, 1, epoch=epoch, caption_dropout_every_n_epochs=3)[0] for epoch in range(1, 7)] == [
        TAGS, TAGS, "", TAGS, TAGS, ""]


def test_one_of_the_choices_and_of_the_lines_is_drawn() -> None:
    captions = Counter(drawn("a {red|blue} hat\na {{plain}} one", enable_wildcard=True))
    assert set(captions) == {"a red hat", "a blue hat", "a {plain} one"}
    assert captions["a {plain} one"] / 400 == pytest.approx(0.5, abs=0.1)
    assert set(drawn("{a|{b|c}d}", enable_wildcard=True)) == {"a", "bd", "cd"}
    assert plain_caption("a {red|blue} hat\nx", "", choose=True) == "a red hat"


def test_braces_stay_without_wildcards() -> None:
    assert drawn("a {red|blue} hat", 1) == ["a {red|blue} hat"]


def test_draws_differ_by_seed_batch_and_row_and_by_nothing_else() -> None:
    config = dataset_config(shuffle_caption=True)
    one = [drawn_caption(TAGS, config, seed=1, index=i, row=r, epoch=1) for i in range(9) for r in range(2)]
    assert one == [drawn_caption(TAGS, config, seed=1, index=i, row=r, epoch=1) for i in range(9) for r in range(2)]
    assert one[0::2] != one[1::2]
    assert one != [drawn_caption(TAGS, config, seed=2, index=i, row=r, epoch=1) for i in range(9) for r in range(2)]


def test_dropping_captions_changes_no_other_draw() -> None:
    plain = drawn(TAGS, shuffle_caption=True)
    dropped = drawn(TAGS, shuffle_caption=True, caption_dropout_rate=0.5)
    assert all(b in ("", a) for a, b in zip(plain, dropped, strict=True))


def test_the_first_line_of_a_file_or_all(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\ufefffirst\n\nsecond \n", encoding="utf-8")
    assert read_caption(tmp_path / "a.png", ".txt", all_lines=False) == ("first", "")
    assert read_caption(tmp_path / "a.png", ".txt", all_lines=True) == ("first\nsecond", "")
    assert read_caption(tmp_path / "b.png", ".txt", all_lines=True) == (None, "")
    (tmp_path / "c.txt").symlink_to(tmp_path / "c.txt")
    assert "c.txt can't be read" in read_caption(tmp_path / "c.png", ".txt", all_lines=False)[1]
