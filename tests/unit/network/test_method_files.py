"""What DreamBooth and textual inversion leave: files of the layouts that A1111 reads, which are what is scored."""

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file

from sweep.errors import AdapterFileError
from sweep.evaluation.generate import Row, generate
from sweep.evaluation.settings import Sampler
from sweep.model.text import with_new_words
from sweep.network.bank import AdapterBank
from sweep.network.checkpoint_file import write_checkpoint_file
from sweep.network.embedding_file import write_embedding_file
from sweep.network.file_kinds import kind_of_file
from sweep.network.lora_file import LoadedSpec
from sweep.network.spec import WholeSpec, WordsSpec
from sweep.network.targets import PARTS, find_layers, find_targets
from sweep.network.tools.make import extract
from sweep.network.trained_file import read_trained
from tests.miniatures import write_folder
from tests.unit.model.conftest import config

SAMPLER = Sampler(name="dpmpp_2m", num_steps=4, guidance_scale=3.0, negative_prompt="")
PROMPT = "photo of alexq man on a beach"


@pytest.fixture(scope="module")
def layers(base):
    return find_layers(base)


@pytest.fixture(scope="module")
def xl(tmp_path_factory):
    from sweep.model.loading import load_base

    return load_base(config(write_folder(tmp_path_factory.mktemp("xl"), "sdxl")), "identity", "cpu")


def moved(layers, spec) -> AdapterBank:
    """A trial's weights some way from where they start."""
    bank = AdapterBank(layers, [spec])
    bank.init_weights(0, seed=1)
    with torch.no_grad():
        bank.flat(0).add_(0.01 * torch.randn(bank.flat(0).shape, generator=torch.Generator().manual_seed(3)))
    return bank


def drawn(base, layers, row: Row) -> torch.Tensor:
    return generate(base, layers, [row], SAMPLER, resolution=64)


@pytest.mark.parametrize("parts", [("unet",), PARTS])
def test_a_checkpoint_read_back_draws_what_its_weights_draw(base, layers, tmp_path, parts) -> None:
    """Its weights put into copies of the models, and drawn with nothing beside."""
    path, bank = tmp_path / "a.safetensors", moved(layers, WholeSpec(parts=parts))
    write_checkpoint_file(path, base, layers, bank.weights(0), dtype=torch.float32, metadata={"ss_epoch": "1"})
    read = read_trained(path, layers)
    assert (read.kind, read.unknown, read.metadata["ss_epoch"]) == ("checkpoint", (), "1")
    assert set(read.layers) == set(bank.weights(0)), "parts that are the base's own are left out"
    plain = copy.copy(base)
    plain.unet, plain.text_encoders = copy.deepcopy(base.unet), [copy.deepcopy(base.text_encoder)]
    twins = {target.key: target.module for target in find_layers(plain)}
    with torch.no_grad():
        for key, tensors in bank.weights(0).items():
            for name, tensor in tensors.items():
                getattr(twins[key], name).copy_(tensor)
    expected = drawn(plain, find_layers(plain), Row(None, 1.0, PROMPT, 7))
    torch.testing.assert_close(drawn(base, layers, Row(read, 1.0, PROMPT, 7)), expected, atol=1e-3, rtol=0)
    assert (expected - drawn(base, layers, Row(None, 1.0, PROMPT, 7))).abs().max() > 0.05


def test_between_base_and_checkpoint_lie_its_strengths(base, layers, tmp_path) -> None:
    """As A1111's merger makes them: W0 + s (W - W0)."""
    path, bank = tmp_path / "a.safetensors", moved(layers, WholeSpec(parts=("unet",)))
    start = AdapterBank(layers, [WholeSpec(parts=("unet",))])
    start.init_weights(0, seed=1)
    write_checkpoint_file(path, base, layers, bank.weights(0), dtype=torch.float32, metadata={})
    half = read_trained(path, layers)
    for key, tensors in half.weights.items():
        for name, tensor in tensors.items():
            tensor.copy_((tensor + start.weights(0)[key][name]) / 2)
    whole = read_trained(path, layers)
    rows = [Row(whole, 0.0, PROMPT, 7), Row(whole, 0.5, PROMPT, 7), Row(half, 1.0, PROMPT, 7), Row(None, 1, PROMPT, 7)]
    none, lerped, halved, bare = generate(base, layers, rows, SAMPLER, resolution=64)
    torch.testing.assert_close(none, bare, atol=1e-3, rtol=0)
    torch.testing.assert_close(lerped, halved, atol=2e-3, rtol=0)
    assert (halved - bare).abs().max() > 0.05


def test_a_checkpoint_is_a_base_of_its_own(tmp_path) -> None:
    """A miniature of Stable Diffusion 1.x with trained weights loads as base_model=file."""
    from sweep.model.loading import load_base

    mini = load_base(config(write_folder(tmp_path / "mini", "sd1")), "identity", "cpu")
    layers, path = find_layers(mini), tmp_path / "a.safetensors"
    bank = moved(layers, WholeSpec(parts=PARTS))
    write_checkpoint_file(path, mini, layers, bank.weights(0), dtype=torch.float32, metadata={})
    again = load_base(config(path), "identity", "cpu")
    twins = {target.key: target.module for target in find_layers(again)}
    for key, tensors in bank.weights(0).items():
        assert all(torch.equal(getattr(twins[key], name), tensor) for name, tensor in tensors.items()), key
    vae, its = again.vae.state_dict(), mini.vae.state_dict()
    assert all(torch.equal(vae[name], its[name]) for name in its)


def test_a_lora_can_be_extracted_from_it(tmp_path) -> None:
    """Of a change of rank 4 it keeps all."""
    from sweep.model.loading import load_base

    folder = write_folder(tmp_path / "mini", "sd1")
    mini = load_base(config(folder), "identity", "cpu")
    layers, path, g = find_layers(mini), tmp_path / "a.safetensors", torch.Generator().manual_seed(1)
    bank = AdapterBank(layers, [WholeSpec(parts=("unet",))])
    bank.init_weights(0, seed=1)
    for tensors in bank.weights(0).values():
        weight = tensors["weight"]
        if weight.ndim == 2:
            weight.add_(0.05 * torch.randn(len(weight), 4, generator=g) @ torch.randn(4, weight.shape[1], generator=g))
    write_checkpoint_file(path, mini, layers, bank.weights(0), dtype=torch.float32, metadata={})
    done = extract(str(path), str(folder), tmp_path / "lora.safetensors", rank=4, dtype=torch.float32)
    assert done.kept_frac > 0.999 and len(done.ranks) > 100


def test_a_checkpoint_of_another_architecture_is_named(base, layers, tmp_path) -> None:
    from sweep.model.loading import load_base

    mini = load_base(config(write_folder(tmp_path / "mini", "sd1")), "identity", "cpu")
    path = tmp_path / "mini.safetensors"
    write_checkpoint_file(path, mini, [], {}, dtype=torch.float16, metadata={})
    with pytest.raises(AdapterFileError, match="another architecture"):
        read_trained(path, layers)
    with pytest.raises(AdapterFileError, match="only LoRA files can be used"):
        read_trained(path, find_targets(base))


def test_another_trainers_tokens_are_named(base, layers, tmp_path) -> None:
    """Some train the table of tokens too, which is no layer here."""
    path, plain = tmp_path / "a.safetensors", copy.copy(base)
    plain.text_encoders = [copy.deepcopy(base.text_encoder)]
    with torch.no_grad():
        plain.text_encoder.get_input_embeddings().weight[5] += 1
    write_checkpoint_file(path, plain, [], {}, dtype=torch.float16, metadata={})
    unknown = read_trained(path, layers).unknown
    assert "text_encoder.embeddings.token_embedding.weight" in unknown


def test_vectors_read_back_draw_what_they_drew(base, layers, tmp_path) -> None:
    """As rows of the table itself, under numbers of its own."""
    path = tmp_path / "alexq.safetensors"
    bank = moved(layers, WordsSpec(num_vectors=2, init_word="woman"))
    write_embedding_file(path, layers, bank.weights(0), dtype=torch.float32, metadata={})
    assert {name: list(t.shape) for name, t in load_file(path).items()} == {"emb_params": [2, 128]}
    read = read_trained(path, layers)
    assert (read.kind, read.num_vectors) == ("embedding", 2)
    plain = copy.copy(base)
    plain.text_encoders = [copy.deepcopy(base.text_encoder)]
    # two words of the table, which nothing else in the prompt uses, get the vectors
    stand_ins = [base.tokenizer(word, add_special_tokens=False).input_ids for word in ("green", "red")]
    with torch.no_grad():
        for [i], vector in zip(stand_ins, load_file(path)["emb_params"], strict=True):
            plain.text_encoder.get_input_embeddings().weight[i] = vector
    expected = drawn(plain, find_layers(plain), Row(None, 1.0, PROMPT.replace("alexq", "green red"), 7))
    found = drawn(base, layers, Row(read, 1.0, with_new_words(PROMPT, "alexq", 2), 7))
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
    assert (expected - drawn(base, layers, Row(None, 1.0, PROMPT, 7))).abs().max() > 0.05


@pytest.mark.parametrize("key", ["emb_params", "<alexq>"])
def test_vectors_of_other_trainers_are_read(layers, tmp_path, key: str) -> None:
    save_file({key: torch.ones(128)}, tmp_path / "a.safetensors")
    assert read_trained(tmp_path / "a.safetensors", layers).num_vectors == 1


def test_vectors_of_another_width_are_named(layers, tmp_path) -> None:
    save_file({"emb_params": torch.ones(2, 768)}, tmp_path / "a.safetensors")
    with pytest.raises(AdapterFileError, match="vectors of width 768, this base's text encoder has 128"):
        read_trained(tmp_path / "a.safetensors", layers)


def test_xl_has_vectors_for_each_text_encoder(xl, layers, tmp_path) -> None:
    path, its = tmp_path / "a.safetensors", find_layers(xl)
    bank = moved(its, WordsSpec(num_vectors=3, init_word="man"))
    write_embedding_file(path, its, bank.weights(0), dtype=torch.float16, metadata={})
    assert {name: list(t.shape) for name, t in load_file(path).items()} == {"clip_g": [3, 128], "clip_l": [3, 64]}
    read = read_trained(path, its)
    loaded = AdapterBank(its, [LoadedSpec(read)])
    loaded.load_weights(0, read.weights)
    torch.testing.assert_close(loaded.flat(0), bank.flat(0), atol=1e-3, rtol=0)
    texts = [with_new_words("photo of alexq man", "alexq", 3), "photo of man"]
    with torch.no_grad(), loaded.attached(), loaded.rows([2]):
        new, plain = (xl.text_states(texts)[torch.tensor([i])] for i in (0, 1))
    assert (new.pooled_BP - plain.pooled_BP).abs().max() > 1e-3, "the end is still where the text is summed up"
    with pytest.raises(AdapterFileError, match="2 text encoders, this base has 1"):
        read_trained(path, layers)


def test_kinds_are_told_apart(tmp_path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"unet.a.weight": torch.ones(2, 2, 3, 3)}, path)
    assert kind_of_file(path) is None
    save_file({"lora_unet_a.lora_down.weight": torch.ones(2, 2), "lora_unet_a.lora_up.weight": torch.ones(2, 2)}, path)
    assert kind_of_file(path) == "lora"
