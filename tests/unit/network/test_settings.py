"""Combinations that mean nothing are refused with the reason, before anything is loaded."""

import re

import pytest

from sweep.network.settings import refusal
from tests.equivalence.trials import member


@pytest.mark.parametrize(("network", "flat", "message"), [
    ("lora", {"conv_alpha": 4.0}, "conv_alpha=4 without conv_dim scales nothing"),
    ("locon", {}, "network=locon needs conv_dim"),
    ("ia3", {"conv_dim": 8}, "conv_dim=8 means nothing for network=ia3"),
    ("loha", {"network_dropout": 0.1}, "network_dropout=0.1 acts on .* network=loha has none. Use module_dropout"),
    ("lokr", {"rank_dropout": 0.1}, "rank_dropout=0.1"),
    ("dora", {"scale_weight_norms": 1.0}, "scale_weight_norms=1 .* not for dora"),
    ("lora", {"conv_alpha": 1.0}, "Set conv_dim too"),
    ("dylora", {"dim": 7}, "network_dim=7 must be a multiple of network.unit=2"),
    ("dylora", {"conv_dim": 3}, "conv_dim=3 must be a multiple of network.unit=2"),
])
def test_what_means_nothing_is_refused(network, flat, message) -> None:
    assert re.search(message, refusal(member("a", network=network, **flat).config))


@pytest.mark.parametrize(("network", "flat"), [
    ("lora", {"conv_dim": 8}), ("locon", {"conv_dim": 8, "network_dropout": 0.1, "scale_weight_norms": 1.0}),
    ("lokr", {"conv_dim": 8, "module_dropout": 0.1}), ("ia3", {}), ("dora", {"rank_dropout": 0.1})])
def test_what_means_something_passes(network, flat) -> None:
    assert refusal(member("a", network=network, **flat).config) == ""
