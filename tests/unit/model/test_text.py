"""clip_skip and max_token_length mean what they mean in sd-scripts."""

import copy

import pytest
import torch

from sweep.errors import ConfigError
from sweep.model.text import check_clip_skip, check_token_length, chunk_ids, token_ids

LONG = " ".join(["a man with red hair and a blue hat"] * 30)  # 240 words, each a token


@pytest.fixture(scope="module")
def bases(folders, load):
    return {family: load(path) for family, path in folders.items()}


def test_one_chunk_is_what_the_tokenizer_itself_does(base, bases) -> None:
    tokenizers = [base.tokenizer, *(each for one in bases.values() for each in one.tokenizers)]
    for tokenizer in tokenizers:
        for text in ("", "photo of alexq man", LONG):
            expected = tokenizer(text, padding="max_length", truncation=True, max_length=77).input_ids
            assert chunk_ids(tokenizer, text, 75) == [expected]


@pytest.mark.parametrize("num_words", [0, 1, 74, 75, 76, 149, 150, 151, 225, 300])
@pytest.mark.parametrize("family", ["sd1", "sd2"])
def test_chunks_are_sd_scripts_own(bases, family: str, num_words: int) -> None:
    """sd-scripts cuts one long padded row into 75s and mends each piece's ends; ours makes each piece a prompt."""
    tokenizer = bases[family].tokenizer
    begin, end, padding = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    text = " ".join(["man"] * num_words)
    words = token_ids(tokenizer, text)
    assert len(words) == num_words
    row = [begin, *words[:225], end]
    row += [padding] * (227 - len(row))
    expected = []
    for first in (1, 76, 151):
        piece = [row[0], *row[first:first + 75], row[-1]]
        if padding != end:
            if piece[-2] not in (end, padding):
                piece[-1] = end  # full of text
            if piece[1] == padding:
                piece[1] = end  # nothing left of the text
        expected.append(piece)
    assert chunk_ids(tokenizer, text, 225) == expected


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_long_captions_keep_the_first_begin_and_the_last_end(bases, family: str) -> None:
    base = bases[family]
    with torch.no_grad():
        long = base.text_states([LONG, "a man"], 1, 225)
        assert long.states_BLD.shape[:2] == (2, 227)
        chunk = base.text_states([LONG], 1, 75)
        torch.testing.assert_close(long.states_BLD[:1, :76], chunk.states_BLD[:, :76], atol=1e-5, rtol=0)
        if family == "sdxl":  # summed up by its first 75 tokens
            torch.testing.assert_close(long.pooled_BP[:1], chunk.pooled_BP, atol=1e-5, rtol=0)
        rest = base.text_states([base.tokenizer.decode(token_ids(base.tokenizer, LONG)[75:150])], 1, 75)
        torch.testing.assert_close(long.states_BLD[:1, 76:151], rest.states_BLD[:, 1:76], atol=1e-5, rtol=0)
        last = base.text_states([base.tokenizer.decode(token_ids(base.tokenizer, LONG)[150:225])], 1, 75)
        torch.testing.assert_close(long.states_BLD[:1, 151:], last.states_BLD[:, 1:], atol=1e-5, rtol=0)
        assert base.text_states([LONG], 1, 150).states_BLD.shape[1] == 152
    assert base.is_cut(LONG, 225) and not base.is_cut("a man", 75)


def test_clip_skip_counts_from_the_end_and_keeps_the_final_norm(bases) -> None:
    for family in ("sd1", "sd2"):
        base = bases[family]
        ids = base.tokenize(["a man"])[0][0]
        with torch.no_grad():
            hidden = base.text_encoder(ids, output_hidden_states=True).hidden_states
            for clip_skip in (1, 2, 3):
                expected = base.text_encoder.final_layer_norm(hidden[-clip_skip])
                torch.testing.assert_close(base.text_states(["a man"], clip_skip).states_BLD, expected, atol=0, rtol=0)
            # the same by taking layers away: the second from the end is the last of an encoder without its last
            shorter = copy.deepcopy(base.text_encoder)
            del shorter.encoder.layers[-1]
            expected = shorter(ids).last_hidden_state
            torch.testing.assert_close(base.text_states(["a man"], 2).states_BLD, expected, atol=1e-6, rtol=0)


def test_what_cannot_be_read_is_refused(bases) -> None:
    with pytest.raises(ConfigError, match="clip_skip=5: this base's text encoder has 4 layers; give 1 to 4"):
        bases["sd1"].text_states(["a man"], 5)
    with pytest.raises(ConfigError, match="always reads the last but one layer"):
        check_clip_skip(2, "sdxl", 12)
    with pytest.raises(ConfigError, match="max_token_length=100 must be 75, 150 or 225"):
        check_token_length(100)
    check_clip_skip(12, "sd1", 12)
    check_token_length(150)
