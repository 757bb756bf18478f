"""The metadata of a file against sd-scripts' own."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sweep.data.batches import BatchPlan
from sweep.data.folder import read_dataset
from sweep.network.metadata import training_metadata
from tests.equivalence.trials import member

GOLDEN = Path(__file__).parents[2] / "assets/kohya/metadata_a_dim32.json"
NOT_OURS = {"modelspec.date", "modelspec.implementation_version", "ss_sd_model_hash", "ss_sd_scripts_commit_hash",
            "ss_session_id", "ss_training_started_at", "ss_training_finished_at", "sshs_legacy_hash",
            "sshs_model_hash"}  # times, hosts, its own version; the hashes are added by write_lora


def metadata(base, photos: Path, network: str = "lora", **flat) -> dict[str, str]:
    config = member("a", network=network, **flat).config
    dataset = read_dataset(replace(config.dataset, dir=str(photos)), trigger=None, class_noun=None, repeats=None)
    return training_metadata(config, dataset, output_name="a", plan=BatchPlan((1,) * 10, 1, 0),
                             num_steps=20, step=10, epoch=1, base=base)


def test_every_key_of_sd_scripts_that_can_be_known_is_there(base, photo_folder: Path) -> None:
    golden = json.loads(GOLDEN.read_text())
    golden = golden.get("metadata", golden)
    ours = metadata(base, photo_folder)
    assert set(golden) - set(ours) == NOT_OURS
    same = ("ss_network_module", "ss_network_dropout", "ss_scale_weight_norms", "ss_min_snr_gamma", "ss_loss_type",
            "ss_flip_aug", "ss_huber_schedule", "ss_v2", "ss_base_model_version")
    assert {key: ours[key] for key in same} == {key: golden[key] for key in same}


@pytest.mark.parametrize(("network", "flat", "module", "args"), [
    ("locon", {"conv_dim": 8, "conv_alpha": 4.0}, "networks.lora", {"conv_dim": "8", "conv_alpha": "4.0"}),
    ("dylora", {"module_dropout": 0.1}, "networks.dylora", {"unit": "2", "module_dropout": "0.1"}),
    ("lokr", {}, "lycoris.kohya", {"algo": "lokr", "factor": "8"}),
    ("dora", {}, "lycoris.kohya", {"algo": "lora", "dora_wd": "True"}),
])
def test_the_network_is_named_as_its_trainer_names_it(base, photo_folder: Path, network, flat, module, args) -> None:
    told = metadata(base, photo_folder, network, **flat)
    assert told["ss_network_module"] == module and json.loads(told["ss_network_args"]) == args
