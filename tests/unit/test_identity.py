"""A trial is known by what it trains: keys that came later change nothing while they hold their neutral value."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from sweep.data.batches import BatchPlan
from sweep.data.folder import read_dataset
from sweep.identity import NEUTRAL, train_id
from tests.equivalence.trials import member


@pytest.fixture(scope="module")
def dataset():
    config = member("a").config
    return read_dataset(config.dataset, trigger=config.trigger, class_noun=config.class_noun, repeats=None)


def test_the_ids_of_older_versions_are_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweep.identity.TRAINING_VERSION", 1)
    dataset = SimpleNamespace(identity="photos", trigger="alexq", class_noun="man", reg_photos=())
    config = member("a").config
    before = train_id(config, dataset, "base")
    assert before == "034b2e972d54", "recorded before clip_skip and max_token_length were keys"
    for key, value in {"clip_skip": 2, "max_token_length": 150}.items():
        assert getattr(config, key) == NEUTRAL[key]
        assert train_id(replace(config, **{key: value}), dataset, "base") != before
    assert train_id(config, dataset, "another base") != before


@pytest.mark.parametrize(("one", "other"), [
    ({"network": "ia3", "dim": 8}, {"network": "ia3", "dim": 32, "alpha": 1}),
    ({"network": "locon", "conv_dim": 8, "conv_alpha": 4}, {"network": "lora", "conv_dim": 8, "conv_alpha": 4}),
    ({"loraplus_lr_ratio": 1.0}, {"loraplus_lr_ratio": None}),
    ({"method": "dreambooth", "dim": 8}, {"method": "dreambooth", "dim": 32, "alpha": 1}),
])
def test_what_trains_the_same_is_one_trial(one: dict, other: dict) -> None:
    dataset = SimpleNamespace(identity="photos", trigger="alexq", class_noun="man", reg_photos=())
    ids = [train_id(member("a", **each).config, dataset, "base") for each in (one, other, {**other, "seed": 9})]
    assert ids[0] == ids[1] != ids[2]


def test_a_method_is_part_of_what_is_trained() -> None:
    dataset = SimpleNamespace(identity="photos", trigger="alexq", class_noun="man", reg_photos=())
    configs = [member("a", method=method, unet_lr=0.0).config for method in ("lora", "dreambooth", "textual_inversion")]
    more = replace(configs[2], method=replace(configs[2].method, num_vectors=3))
    assert len({train_id(config, dataset, "base") for config in (*configs, more)}) == 4


@pytest.mark.parametrize(("family", "prediction", "version", "architecture"), [
    ("sd1", "epsilon", "sd_v1", "stable-diffusion-v1/lora"),
    ("sd2", "epsilon", "sd_v2", "stable-diffusion-v2-512/lora"),
    ("sd2", "v_prediction", "sd_v2_v", "stable-diffusion-v2-768-v/lora"),
    ("sdxl", "epsilon", "sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora"),
])
def test_a_file_says_which_family_it_is_for(dataset, family, prediction, version, architecture) -> None:
    from sweep.network.metadata import training_metadata

    base = SimpleNamespace(family=family, prediction_type=prediction, identity="0123")
    told = training_metadata(member("a", clip_skip=2).config, dataset, output_name="a", plan=BatchPlan((1,), 1, 0),
                             num_steps=1, step=1, epoch=1, base=base)
    assert told["ss_base_model_version"] == version and told["modelspec.architecture"] == architecture
    assert told["ss_v2"] == str(family == "sd2") and told["ss_clip_skip"] == "2"
    assert told["modelspec.prediction_type"] == ("v" if prediction == "v_prediction" else "epsilon")
    assert not any(str(Path.home()) in value for value in told.values())


@pytest.mark.parametrize(("method", "architecture", "told"), [
    ("dreambooth", "stable-diffusion-v1", {}),
    ("textual_inversion", "stable-diffusion-v1/textual-inversion",
     {"ss_token_string": "alexq", "ss_init_word": "man", "ss_num_vectors_per_token": "2"}),
])
def test_a_file_says_by_which_method(dataset, method, architecture, told) -> None:
    from sweep.network.metadata import training_metadata

    base = SimpleNamespace(family="sd1", prediction_type="epsilon", identity="0123")
    found = training_metadata(member("a", method=method).config, dataset, output_name="a", plan=BatchPlan((1,), 1, 0),
                              num_steps=1, step=1, epoch=1, base=base)
    assert found["modelspec.architecture"] == architecture and told.items() <= found.items()
    assert not any(key.startswith("ss_network") for key in found)
